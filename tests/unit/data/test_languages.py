"""Languages are told by an optional package: what is said where it is missing, and what counts as another language where it is there."""

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from finetune.data import languages, rules
from finetune.errors import SetupError
from tests.conftest import Compose

CODES = SimpleNamespace(EN="en", FR="fr")


@pytest.fixture
def lingua(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lingua that knows French by an accent, English by its absence, and can't tell a text of one word."""

    def detect(text: str) -> SimpleNamespace | None:
        return None if " " not in text else SimpleNamespace(iso_code_639_1=CODES.FR if "é" in text else CODES.EN)

    built = SimpleNamespace(build=lambda: SimpleNamespace(detect_language_of=detect))
    builder = SimpleNamespace(from_all_languages=lambda: SimpleNamespace(with_minimum_relative_distance=lambda _margin: built))
    monkeypatch.setitem(sys.modules, "lingua", SimpleNamespace(IsoCode639_1=CODES, LanguageDetectorBuilder=builder))
    rules._is_in.cache_clear()


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(SetupError, match=r"data\.quality\.language=en: found no package lingua.*\n.*pip install 'lingua-language-detector"):
        languages.detector("en")


@pytest.mark.usefixtures("lingua")
def test_a_language_that_it_does_not_know_is_refused() -> None:
    with pytest.raises(SetupError, match="found 'xx', expected an ISO 639-1 code"):
        languages.detector("xx")


@pytest.mark.usefixtures("lingua")
def test_a_text_too_short_to_tell_counts_as_in_it() -> None:
    is_in: Callable[[str], bool] = languages.detector("en")
    assert [is_in(text) for text in ("The door is open.", "La porte est fermée.", "Fermée.")] == [True, False, True]


@pytest.mark.usefixtures("lingua")
def test_the_answer_decides_and_the_rule_is_named(compose: Compose) -> None:
    quality = compose("data=files", "data.quality.language=en").data.quality
    assert rules.judge(["Translate: La porte est fermée.", "The door is closed."], [1], quality).rule is None
    assert rules.judge(["Translate: The door is closed.", "La porte est fermée."], [1], quality).rule == rules.LANGUAGE
