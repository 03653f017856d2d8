"""What language a text is in. Optional: lingua's models are 100 MB, and a text takes 0.1 to 1 ms."""

from collections.abc import Callable

from finetune.errors import SetupError

MARGIN = 0.1  # of likelihood between the first and the second language, below which a text is too short or too mixed to tell


def detector(language: str) -> Callable[[str], bool]:
    """Return whether a text is in a language, by its ISO 639-1 code; one that is too short or too mixed to tell counts as in it.

    Raises:
        SetupError: the package is not installed, or does not know the language.
    """
    try:
        from lingua import IsoCode639_1, LanguageDetectorBuilder  # an optional package
    except ImportError:
        problem = f"data.quality.language={language}: found no package lingua, expected it"
        remedy = "run `pip install 'lingua-language-detector>=2.1,<3'` in the environment, or set data.quality.language=null"
        raise SetupError("the language of a text can't be told:", [problem], remedy) from None
    code = getattr(IsoCode639_1, language.upper(), None)
    if code is None:
        problem = f"data.quality.language: found {language!r}, expected an ISO 639-1 code that lingua knows, such as en"
        raise SetupError("the language of a text can't be told:", [problem])
    known = LanguageDetectorBuilder.from_all_languages().with_minimum_relative_distance(MARGIN).build()

    def is_in(text: str) -> bool:
        detected = known.detect_language_of(text)
        return detected is None or detected.iso_code_639_1 == code

    return is_in
