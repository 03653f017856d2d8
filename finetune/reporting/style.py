"""How reports/format.html looks, in light and in dark."""

STYLE = """\
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1f2933; --quiet: #697586; --line: #e2e6ea; --accent: #2f6f9f; --over: #c2621b;
  --learned: #d3e8f8; --learned-line: #2f6f9f; --chosen: #d8efdf; --chosen-line: #2f7d50; --rejected: #f9dedb; --rejected-line: #b8433f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --card: #1b2127; --ink: #e4e7eb; --quiet: #93a0ae; --line: #2e363e; --accent: #6fb1e0; --over: #e59a58;
    --learned: #17405e; --learned-line: #6fb1e0; --chosen: #1b4630; --chosen-line: #66bd8b; --rejected: #572726; --rejected-line: #e58984;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header, main { max-width: 1040px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 36px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 8px; }
h2 { font-size: 20px; margin: 0 0 12px; }
h3 { font-size: 13px; font-weight: 500; margin: 0 0 8px; color: var(--quiet); }
h3 code { font-weight: 600; color: var(--ink); }
h3 small { float: right; font-size: 13px; }
p { margin: 0 0 14px; max-width: 78ch; }
small { font-size: 12px; color: var(--quiet); }
nav { display: flex; flex-wrap: wrap; gap: 8px; margin: 18px 0 0; }
nav a { padding: 3px 12px; color: var(--accent); text-decoration: none; }
nav a { border: 1px solid var(--line); border-radius: 99px; background: var(--card); }
nav a:hover { border-color: var(--accent); }
.legend { display: flex; flex-wrap: wrap; gap: 6px 22px; margin: 0; padding: 0; list-style: none; color: var(--quiet); font-size: 13px; }
section { margin: 36px 0 0; padding: 24px 0 0; border-top: 1px solid var(--line); }
dl { display: flex; flex-wrap: wrap; gap: 10px 32px; margin: 0 0 14px; }
dt { color: var(--quiet); font-size: 12px; }
dd { margin: 0; font-size: 18px; font-variant-numeric: tabular-nums; }
figure { margin: 0 0 20px; }
figcaption { color: var(--quiet); font-size: 12px; }
svg { display: block; width: 100%; height: auto; }
svg rect { fill: var(--accent); }
svg rect.over { fill: var(--over); }
svg line { stroke: var(--line); }
svg line.limit { stroke: var(--over); stroke-dasharray: 4 3; }
svg text { fill: var(--quiet); font-size: 12px; }
article { margin: 0 0 12px; padding: 12px 16px; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
article p { margin: 8px 0 0; color: var(--quiet); }
.tokens, .legend span, .legend b { font: 13px/1.9 ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; }
.tokens + .tokens { margin-top: 6px; }
.tokens i, .legend i { font-style: normal; opacity: 0.4; }
.read { color: var(--quiet); }
.read > *, .learned > *, .chosen > *, .rejected > * { padding: 2px 0; border-left: 1px solid var(--card); }
.learned > * { background: var(--learned); border-bottom: 2px solid var(--learned-line); }
.chosen > * { background: var(--chosen); border-bottom: 2px solid var(--chosen-line); }
.rejected > * { background: var(--rejected); border-bottom: 2px dashed var(--rejected-line); }
b { font-weight: 600; }
.tokens b, .legend b { border-radius: 3px; outline: 1px solid var(--line); outline-offset: -1px; padding: 2px 3px; }
.gap { display: block; margin: 6px 0; color: var(--quiet); font-style: italic; }
@media (max-width: 700px) { h3 small { float: none; display: block; } header, main { padding: 0 14px; } }
"""
