"""Detects texts in another language than requested, by script and most frequent words.

It only rejects what is clearly another language: a text without letters, a list of drug names, or a text
too short to tell passes. Languages that share a script are told apart only where their common words are known here.
"""

import re
import unicodedata
from collections import Counter

from datagen.phrases import groups_of_words, read_table

ANY = "any"

_COMMON_WORDS = groups_of_words("common words")
_SCRIPTS: dict[str, str] = read_table("datagen", "phrases.yaml")["scripts"]
_LATIN = r"A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ"
LANGUAGES = (*_COMMON_WORDS, *_SCRIPTS)
_WORD = re.compile(r"[^\W\d_]+")
_FEW = 3


def is_other_language(text: str, language: str) -> bool:
    """Say whether a text is clearly not in the language.

    Args:
        text: Any text.
        language: A code of :data:`LANGUAGES`, or "any".

    Example:
        >>> is_other_language("¿Cuáles son los síntomas de la gota y cómo se trata?", "en")
        True
        >>> is_other_language("Translate 'dolor de cabeza' into English.", "en")
        False
    """
    if language == ANY:
        return False
    if language in _SCRIPTS:
        text = unicodedata.normalize("NFKC", text)  # half-width kana, presentation forms
    letters = sum(map(str.isalpha, text))
    script = _SCRIPTS.get(language, _LATIN)
    if letters < 2 * _FEW:
        return False
    if 2 * len(re.findall(f"[{script}]", text)) < letters:
        return True
    if language not in _COMMON_WORDS:
        return False
    words = Counter(_WORD.findall(text.lower()))
    counts = {
        code: sum(words[word] for word in common & words.keys()) for code, common in _COMMON_WORDS.items()
    }
    expected = counts.pop(language)
    return max(counts.values()) >= max(_FEW, 2 * expected + 1)
