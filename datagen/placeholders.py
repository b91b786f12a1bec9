"""Tells an input that only stands for a text: "A 150-word case report describing ...", "[Patient's history]".

An input is a placeholder where it names a kind of text and says of what, in one sentence, instead of being that text;
where it is a name in brackets or a label with nothing behind it; or where it asks for the text. A short text with
content of its own ("A 45-year-old man with chest pain.", "Warfarin and ibuprofen") is none.
"""

import re

from datagen.phrases import any_of, words_of_list

_LONGEST = 80  # words of a description
_NUMBER = r"\d{2,4}(?:\s?(?:[-–]|to|a|à|bis|bis zu)\s?\d{2,4})?"
_WORDS = r"(?:words?|palabras|mots|wörtern?|wörter|parole|palavras|слов\w{0,3}|字|語|단어)"
_LENGTH_GIVEN = re.compile(
    rf"\W{{0,3}}(?:[^\s.:;]+\s){{0,5}}?[^\W\d]{{0,3}}\(?{_NUMBER}[- ]?{_WORDS}", re.IGNORECASE
)
_DESCRIBED = re.compile(any_of("descriptions"), re.IGNORECASE)
_LENGTH_ADDED = re.compile(
    rf"\s*\((?:[a-z]+\.?\s|[~≈]\s?){{0,3}}{_NUMBER}[- ]?{_WORDS}\)\W*\Z", re.IGNORECASE
)
_SAYS = re.compile(
    r"\b(?:is|are|was|were|found|show(?:s|ed)|conclude[sd]|demonstrate[sd]|suggest(?:s|ed)|report(?:s|ed)|states?|stated"
    r"|says|said|reads)\b",
    re.IGNORECASE,
)
_RELATIVE = re.compile(r"\b(?:who|whom|whose|that|which|where|when)(?:\s\S+){0,5}\s*\Z", re.IGNORECASE)
_TO_COME = re.compile(any_of("a text to come"), re.IGNORECASE | re.DOTALL)
# Words that say nothing of a patient: an input of nothing else names a text, or asks for it, in any language.
_TEXT_WORDS = words_of_list("texts of no content")
_EMPTY_WORDS = _TEXT_WORDS | words_of_list("people of no name") | words_of_list("words beside them")
_EMPTY_CHINESE = re.compile(
    r"\W*(?:(?P<who>某|该|此|一[位名个個份篇段]|患者|病人|用户|医生|醫生|患者さん|환자)|的|の|의|和|及|与|、|在此|此处|这里|输入|提供|详细|完整|简短"
    r"|现|既往|家族|(?P<text>病历|病歷|病史|病例|病情|症状|症狀|描述|检查|化验|实验室|结果|報告|报告|资料|信息|记录|用药|清单|主诉|诊断|文章|文本|摘要"
    r"|段落|カルテ|病歴|検査結果|情報|の記録|기록|병력|증상|정보|검사 결과)|\s)+\W*"
)
_PUT_HERE = re.compile(any_of("a text to be put here"), re.IGNORECASE)
_ASKS = re.compile(any_of("asks for a text"), re.IGNORECASE)
_BLANK = re.compile(
    r"\[(?!\s?[xX✓]?\s?\])[^\[\]\n]{0,120}\]|\{\{?[^{}\n:\"]{0,120}\}\}?|<(?!/)[^\W\d][^<>\n=/]{0,120}>"
    r"|_{2,}|\.{3,}|…|\bx{3,}\b|\btb[da]\b",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^[\W\d]*(?:[^\W\d_][\w'’()/-]*\s?){1,6}[:：]", re.MULTILINE)
_INSERT = re.compile(
    r"[\[({<](?:please )?(?:insert|enter|paste|provide|fill in|your (?:text|article|input)|add (?:the|your|details))\b"
    r"[^\])}>\n]{0,120}[\])}>]"
    r"|\blorem ipsum\b",
    re.IGNORECASE,
)
_IN_ROUND = re.compile(r"\([^()\n]{1,150}\)")
_SENTENCE_GOES_ON = re.compile(r"[.!?。！？]\s*\S|\n\s*\S|:\s+\S")
_WORD = re.compile(r"[^\W_]+")


def is_placeholder(given: str) -> bool:
    """Say whether an input stands for a text that is not there.

    Example:
        >>> is_placeholder("A 150-word case report describing a man with gout."), is_placeholder("Patient: [name]")
        (True, True)
        >>> is_placeholder("A 45-year-old man with chest pain."), is_placeholder("Diagnosis: gout")
        (False, False)
    """
    text = _LENGTH_ADDED.sub("", given.strip())
    sized = text != given.strip()
    if asks_to_insert(text) or not _WORD.search(text):
        return True
    if len(text) <= 200 and (_ASKS.match(text) or _is_bracketed(text)):
        return True
    if _holds_blanks_alone(text):
        return True
    if (
        text[-1] in "?？"
        or len(text) > 2000
        or len(text.split()) > _LONGEST
        or _SENTENCE_GOES_ON.search(text)
    ):
        return False
    if (
        _names_only(text)
        or _PUT_HERE.match(text)
        or _TO_COME.search(text)
        or sized
        or _LENGTH_GIVEN.match(text)
    ):
        return True
    described = _DESCRIBED.match(text)
    if described is None:
        return False
    says = _SAYS.search(text, described.end())
    return says is None or bool(_RELATIVE.search(text[: says.start()]))


def asks_to_insert(text: str) -> bool:
    """Say whether a text holds "[insert ... here]" or filler.

    Example:
        >>> asks_to_insert("Summarise this: [insert article]"), asks_to_insert("Insert the needle (see step 2).")
        (True, False)
    """
    return bool(_INSERT.search(text))


def _names_only(text: str) -> bool:
    """Say whether every word is one that an input of any patient could have, and one of them names a text."""
    words = [
        word.removesuffix("'s") for word in re.findall(r"[^\W\d_]+(?:'s\b)?", text.lower().replace("’", "'"))
    ]
    if _EMPTY_WORDS.issuperset(words):
        return (
            bool(_TEXT_WORDS & set(words))
            and not _TEXT_WORDS.issuperset(words)
            and not re.search(r"\d", text)
        )
    chinese = _EMPTY_CHINESE.fullmatch(text)
    return bool(chinese and chinese["text"] and (chinese["who"] or len(text) > 4))


def _is_bracketed(text: str) -> bool:
    """Say whether all of a text is a phrase in round brackets, with no sentence and no figure in it."""
    return bool(_IN_ROUND.fullmatch(text)) and not re.search(r"\d|[.!?;:]|, \w+, ", text)


def _holds_blanks_alone(text: str) -> bool:
    """Say whether a text is blanks to fill in and labels before them, with few words beside."""
    blanks = [blank for blank in _BLANK.findall(text) if _WORD.search(blank) or set(blank) <= set("._…")]
    if not blanks:
        return text.endswith((":", "：")) and "\n" not in text and bool(_LABEL.fullmatch(text))
    rest = _LABEL.sub("", _BLANK.sub(" ", text))
    beside = len(_WORD.findall(rest))
    return not beside or (len(blanks) >= 3 and beside <= 4 * len(blanks))
