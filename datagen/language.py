"""Tells whether a text is in the language asked for, by its script and its commonest words.

It is meant to refuse only what is surely another language: a text without letters, a list of drug names, or a text
too short to tell passes. Languages that share a script are told apart only where their common words are known here.
"""

import re
import unicodedata
from collections import Counter

ANY = "any"

_COMMON_WORDS = {
    "en": "the of and is are what how with for this that which to your you from by was should can does when be it an"
    " as or at their there explain describe following between",
    "es": "el los las una del que por para con cómo qué cuáles es está son su se al más y como debe puede",
    "fr": "le les des du une est et que qui dans pour avec sur quels quelles comment pas vous votre au aux ce cette",
    "de": "der die das den dem und ist sind ein eine einer nicht mit für von wie auf zu bei welche sie werden"
    " wird auch",
    "it": "il lo gli della dei di che per con è sono una nel alla come quali più questo delle",
    "pt": "os as uma do da dos das que para com não como em é são seu sua ao pelo quais",
    "nl": "het een van de en is zijn dat met voor niet welke hoe wat bij aan ook naar wordt",
}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _language, _words in _COMMON_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_language)
_LATIN = r"A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ"
_SCRIPTS = {
    "zh": r"\u3007\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0003ffff",
    "ja": r"\u3005-\u3007\u3040-\u30ff\u4e00-\u9fff\u3400-\u4dbf",
    "ko": r"\uac00-\ud7af\u1100-\u11ff",
    "ru": r"\u0400-\u04ff",
    "uk": r"\u0400-\u04ff",
    "el": r"\u0370-\u03ff\u1f00-\u1fff",
    "ar": r"\u0600-\u06ff\u0750-\u077f",
    "fa": r"\u0600-\u06ff\u0750-\u077f",
    "he": r"\u0590-\u05ff",
    "hi": r"\u0900-\u097f",
    "bn": r"\u0980-\u09ff",
    "ta": r"\u0b80-\u0bff",
    "th": r"\u0e00-\u0e7f",
}
LANGUAGES = (*_COMMON_WORDS, *_SCRIPTS)
_WORD = re.compile(r"[^\W\d_]+")
_FEW = 3


def is_other_language(text: str, language: str) -> bool:
    """Say whether a text is surely not in the language.

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
    counts = Counter(
        code for word in _WORD.findall(text.lower()) if word in _LANGUAGES_OF for code in _LANGUAGES_OF[word]
    )
    expected = counts.pop(language, 0)
    return max(counts.values(), default=0) >= max(_FEW, 2 * expected + 1)
