r"""The words of a text in any script: what near-duplicates, overlaps and lengths are counted in.

Text in Latin letters has the tokens of the package ``rouge_score`` without stemming, to the letter: lower case, runs
of ``[a-z0-9]``, so that an accented letter ends a token. Text in other scripts has Unicode words beside them:

- Scripts that put spaces between words (Cyrillic, Greek, Arabic, Hebrew, Devanagari, Hangul and all that are not named
  below) by words, combining marks included; Tibetan by syllables.
- Scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese and their kin) by characters with their marks.
  Two characters of Chinese or Japanese, or three of the others, count as much as a word of English
  (:func:`word_count`, :func:`ends`).

Copies that differ only in spelling that readers do not see as different have equal tokens: composed and decomposed,
full and half width, case and final sigma, digits of any script, accents of Greek and Cyrillic, vowel points of Hebrew
and Arabic, tatweel, joiners, and the polite ending of a Japanese sentence.

Greek and Cyrillic letters also stand in English as symbols (``TNF-α``, ``μg``) and as look-alikes of Latin ones. They
count only in a text without Latin letters, or in one with words of three or more of them that outnumber those in which
they are mixed with Latin letters. Symbols and emoji are no words.
"""

import functools
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

_TOKEN = re.compile(r"[a-z0-9]+")
# Latin letters of all kinds, punctuation, symbols and letters that serve as symbols. Roman numerals stand apart.
_LATIN = (
    "\\x00-\u036f\u1ab0-\u1aff\u1d00-\u1dff\u1e00-\u1eff\u2000-\u215f\u2189-\u2bff\u2c60-\u2c7f\u2e00-\u2e7f"
    "\ua700-\ua7ff\uab30-\uab6f\ufb00-\ufb06\U00010780-\U000107bf\U0001d400-\U0001d7ff\U0001df00-\U0001dfff\U0001ee00-\U0001faff"
)
_ROMAN_NUMERALS = "\u2160-\u2188"
_GREEK_OR_CYRILLIC = "\u0370-\u03ff\u1f00-\u1fff\u0400-\u052f\u1c80-\u1c8f\ua640-\ua69f"
_IDEOGRAPHIC = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3040-\u312f\u31a0-\u31ff\u3400-\u4dbf"
    "\u4e00-\ua4cf\uf900-\ufaff\uff66-\uff9f\U00016fe0-\U0001b2ff\U00020000-\U0003ffff"
)
_PHONETIC = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9ff\uaa60-\uaadf"
)
_TIBETAN = "\u0f00-\u0fff"
_ACCENTS = "\u0300-\u036f"
_JOINERS = "\u00ad\u200c\u200d\u2060"
_OTHER_LETTER = re.compile(rf"[^\W_{_LATIN}{_ROMAN_NUMERALS}{_GREEK_OR_CYRILLIC}]")
_GREEK_OR_CYRILLIC_WORD = re.compile(
    rf"(?<![^\W\d_])(?<![{_ACCENTS}])[{_GREEK_OR_CYRILLIC}][{_GREEK_OR_CYRILLIC}{_ACCENTS}]{{2,}}+(?![^\W\d_])"
)
_LATIN_LETTER = re.compile(rf"[^\W\d_{_GREEK_OR_CYRILLIC}]")
_GREEK_OR_CYRILLIC_LETTER = re.compile(f"[{_GREEK_OR_CYRILLIC}]")
_LETTERS = re.compile(r"[^\W\d_]+")
_OTHER_RUN = re.compile(f"[^{_LATIN}]+(?:[{_ACCENTS}{_JOINERS}]+[^{_LATIN}]+)*[{_ACCENTS}{_JOINERS}]*")
_UNSPACED = re.compile(f"[{_IDEOGRAPHIC}{_PHONETIC}{_TIBETAN}]")
_UNSPACED_RUN = re.compile(f"[{_IDEOGRAPHIC}{_PHONETIC}{_TIBETAN}\u3000-\u303f\ufe30-\ufe4f\uff00-\uffef]+")
# Accents of Greek and Cyrillic, points of Hebrew and Arabic, tatweel, joiners, fillers, variation selectors.
_UNSEEN = re.compile(
    f"[{_ACCENTS}\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f"
    f"\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u08d3-\u08ff\u115f\u1160\ufe00-\ufe0f{_JOINERS}\U000e0100-\U000e01ef]"
)
# Endings of politeness in Japanese, which the same question may have or not, and all questions share.
_POLITE = re.compile(r"(?:[てで](?:ください|下さい)|でしょう|です|ます)(?=か?(?:[。.?!\s]|\Z))")
_SAME_LETTER = str.maketrans("یىک", "ييك")  # Persian and Arabic keyboards
# Thai and Lao "am" is typed with the tone before or behind its ring.
_AM = re.compile("([\u0e4d\u0ecd])([\u0e48-\u0e4b\u0ec8-\u0ecb])")
_DIGIT = re.compile(r"[^\D0-9]")
_WORD, _SYLLABLE, _CHARACTER = 6, 3, 2
"""What a token counts, in sixths of a word."""


def tokenize(text: str) -> list[str]:
    """Split into words: those of ``rouge_score`` in Latin script, Unicode words in others.

    Example:
        >>> tokenize("What's HbA1c, in %?"), tokenize("2型糖尿病"), tokenize("Лечение: ПОДА́ГРА")
        (['what', 's', 'hba1c', 'in'], ['2', '型', '糖', '尿', '病'], ['лечение', 'подагра'])
    """
    text = text.lower()
    if text.isascii() or not _has_other_words(text):
        return _TOKEN.findall(text)
    return _words().findall(_OTHER_RUN.sub(_folded, text))


def count_words(text: str) -> int:
    """Count words as a reader of the script would: pieces between spaces, characters where no spaces are written.

    Example:
        >>> count_words("Take 5 mg, twice a day."), count_words("请解释痛风的治疗方法。")
        (6, 5)
    """
    if not _UNSPACED.search(text):
        return len(text.split())
    spaced = sum(any(map(str.isalnum, piece)) for piece in _UNSPACED_RUN.sub(" ", text).split())
    return spaced + word_count(tokenize(" ".join(_UNSPACED_RUN.findall(text))))


def word_count(tokens: Sequence[str]) -> int:
    """Return how many words of English some tokens are worth: all of them, except in scripts without spaces.

    Example:
        >>> word_count(tokenize("the signs of gout")), word_count(tokenize("痛风的症状"))
        (4, 2)
    """
    if _all_words(tokens):
        return len(tokens)
    return sum(map(_sixths, tokens)) // _WORD


def ends(tokens: Sequence[str], words: int) -> Sequence[int]:
    """Return for each place, up to the last that has one, where a stretch worth that many words ends.

    Example:
        >>> list(ends(["a", "b", "c", "d"], 3)), list(ends(["痛", "风", "a", "b"], 2))
        ([3, 4], [3, 4, 4])
    """
    if _all_words(tokens):
        return range(words, len(tokens) + 1)
    sums = list(accumulate(map(_sixths, tokens), initial=0))
    wanted = words * _WORD
    stops = (bisect_left(sums, before + wanted) for before in sums[:-1])
    return [stop for stop in stops if stop < len(sums)]


def _has_other_words(text: str) -> bool:
    if _OTHER_LETTER.search(text):
        return True
    if not _GREEK_OR_CYRILLIC_LETTER.search(text):
        return False
    if not _LATIN_LETTER.search(text):
        return True
    words = len(_GREEK_OR_CYRILLIC_WORD.findall(text))
    mixed = (
        each
        for each in _LETTERS.findall(text)
        if _GREEK_OR_CYRILLIC_LETTER.search(each) and _LATIN_LETTER.search(each)
    )
    return words > 0 and words > sum(1 for _ in mixed)


def _all_words(tokens: Sequence[str]) -> bool:
    joined = "".join(tokens)
    return joined.isascii() or not _UNSPACED.search(joined)


@functools.lru_cache(maxsize=100_000)
def _sixths(token: str) -> int:
    if not _UNSPACED.match(token):
        return _WORD
    return _CHARACTER if re.match(f"[{_PHONETIC}]", token) else _SYLLABLE


def _folded(run: re.Match[str]) -> str:
    """Return a run of another script in the one spelling that all its spellings share."""
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", run[0]).casefold())
    text = unicodedata.normalize("NFC", _UNSEEN.sub("", text)).translate(_SAME_LETTER)
    text = _POLITE.sub("", _AM.sub(r"\2\1", text))
    return _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)


@functools.cache
def _words() -> re.Pattern[str]:
    """Compile what a word is; only for texts in other scripts, as it takes a moment."""
    marks = "".join(chr(n) for n in range(0x370, 0x1E950) if unicodedata.category(chr(n)).startswith("M"))
    unspaced = _IDEOGRAPHIC + _PHONETIC
    letter = rf"[^\W_{_LATIN}{unspaced}]"
    return re.compile(
        rf"[a-z0-9]+|[^\W\D{_LATIN}]|(?=\w)[{unspaced}][{marks}]*|{letter}(?:{letter}|[{marks}])*"
    )
