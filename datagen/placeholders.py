"""Detects inputs that are placeholders for a text: "A 150-word case report describing ...", "[Patient's history]".

An input is a placeholder where it names a kind of text and says of what, in one sentence, instead of being that text;
where it is a name in brackets or a label without a value; or where it asks for the text. A short text with
content of its own ("A 45-year-old man with chest pain.", "Warfarin and ibuprofen") is not a placeholder.
"""

import re

from datagen.phrases import compiled, search, words_of_list

_LONGEST = 80  # words of a description
# Words that say nothing of a patient: an input of nothing else names a text, or asks for it, in any language.
_TEXT_WORDS = words_of_list("texts of no content")
_EMPTY_WORDS = _TEXT_WORDS | words_of_list("people of no name") | words_of_list("words beside them")


def is_placeholder(given: str) -> bool:
    """Say whether an input is a placeholder for a missing text.

    Example:
        >>> is_placeholder("A 150-word case report describing a man with gout."), is_placeholder("Patient: [name]")
        (True, True)
        >>> is_placeholder("A 45-year-old man with chest pain."), is_placeholder("Diagnosis: gout")
        (False, False)
    """
    text = compiled("length added").sub("", given.strip())
    sized = text != given.strip()
    if asks_to_insert(text) or not search("placeholder word", text):
        return True
    if len(text) <= 200 and (compiled("asks for a text").match(text) or _is_bracketed(text)):
        return True
    if _holds_blanks_alone(text):
        return True
    if (
        text[-1] in "?？"
        or len(text) > 2000
        or len(text.split()) > _LONGEST
        or search("sentence goes on", text)
    ):
        return False
    if (
        _names_only(text)
        or compiled("a text to be put here").match(text)
        or search("text to come", text)
        or sized
        or compiled("length given").match(text)
    ):
        return True
    described = compiled("descriptions").match(text)
    if described is None:
        return False
    says = search("says something", text, described.end())
    return says is None or bool(search("relative clause", text[: says.start()]))


def asks_to_insert(text: str) -> bool:
    """Say whether a text holds "[insert ... here]" or filler.

    Example:
        >>> asks_to_insert("Summarise this: [insert article]"), asks_to_insert("Insert the needle (see step 2).")
        (True, False)
    """
    return bool(search("asks to insert", text))


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
    chinese = compiled("empty words of Chinese").fullmatch(text)
    return bool(chinese and chinese["text"] and (chinese["who"] or len(text) > 4))


def _is_bracketed(text: str) -> bool:
    """Say whether all of a text is a phrase in round brackets, with no sentence and no figure in it."""
    return bool(compiled("in round").fullmatch(text)) and not re.search(r"\d|[.!?;:]|, \w+, ", text)


def _holds_blanks_alone(text: str) -> bool:
    """Say whether a text is blanks to fill in and labels before them, with few words beside."""
    blanks = [
        blank
        for blank in compiled("blanks").findall(text)
        if search("placeholder word", blank) or set(blank) <= set("._…")
    ]
    if not blanks:
        return (
            text.endswith((":", "："))
            and "\n" not in text
            and bool(compiled("label of a blank").fullmatch(text))
        )
    rest = compiled("label of a blank").sub("", compiled("blanks").sub(" ", text))
    beside = len(compiled("placeholder word").findall(rest))
    return not beside or (len(blanks) >= 3 and beside <= 4 * len(blanks))
