"""Plain checks of a task before it is answered and of an answer before it is published.

Each returns a short stable reason, or None where nothing speaks against the text.
"""

import re

from datagen.dedup import rouge_l, tokenize
from datagen.records import SeedTask

MIN_INSTRUCTION_WORDS = 2
MAX_INSTRUCTION_WORDS = 150
MAX_INPUT_WORDS = 600
MAX_ANSWER_WORDS = 2000
ECHO = 0.8
CUT = frozenset({"length", "max_tokens", "content_filter"})

_REFUSAL = re.compile(
    r"^\W*(?:(?:(?:i['’]?m|i am) )?(?:very |really |so )?sorry\b[^.!?]{0,60}?\bbut |sorry, |unfortunately,? "
    r"|i apologi[sz]e\b[^.!?]{0,60}?\bbut )?"
    r"(?:as an? (?:ai|artificial|(?:large )?language model)\b"
    r"|i (?:can(?:not|['’]t)|am (?:not able|unable) to|['’]?m (?:not able|unable) to)(?: \w+){0,3}? "
    r"(?:help|assist|provide|comply|fulfil|fulfill|answer|give|write|complete|create|generate|offer|diagnose)\b)",
    re.IGNORECASE,
)
_MEDIA = re.compile(
    r"\b(?:attach(?:ed|ment)|upload(?:ed|ing)?|(?:image|photo(?:graph)?|picture|figure|video|audio|recording|pdf"
    r"|spreadsheet|scan|x-?ray|slide|link|url|file)s? (?:shown|below|above|provided|attached|supplied)"
    r"|(?:following|provided|attached|supplied|given|accompanying) (?:\w+ ){0,2}(?:image|photo(?:graph)?|picture|video"
    r"|audio|recording|pdf|spreadsheet|link|url|file)s?)\b",
    re.IGNORECASE,
)
_DRAWS = re.compile(
    r"^\W*(?:please )?(?:draw(?! (?:up|on|from|out|blood|attention|conclusions?|lessons?)\b)|sketch|paint|photograph"
    r"|film|record a video|create (?:an? )?(?:image|video|picture))\b",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"^\W*(?:please )?(?:provide|insert|enter|paste|add|include|supply|give)\b.{0,80}$|^\[[^\]]*\]$|^\.{3}$",
    re.IGNORECASE,
)
_CHOICE_TYPE = re.compile(r"multiple[\s-]*choice|\bmcq\b|usmle", re.IGNORECASE)
_CHOICE = re.compile(r"(?:^|[\s;,(\"“])\(?([A-Ha-h1-8])\s?[.):]\s*\S")
_MATERIAL = (
    r"(?:text|passage|case|note|notes|list|scenario|paragraph|sentences?|abstract|question|vignette|report|letter"
    r"|summary|results?|findings|information|description|statements?|conversation|dialogue|excerpt|record|history"
    r"|symptoms|details|data|patient|article)"
)
_REFERS = re.compile(
    rf"\bthe following\b|\b(?:given|provided|supplied|accompanying) (?:\w+ ){{0,2}}{_MATERIAL}\b"
    rf"|\b{_MATERIAL} (?:given|provided|below|above|described below|listed below)\b",
    re.IGNORECASE,
)
_BRINGS_ITS_OWN = re.compile(r"(?::\s*|\s[-–—]\s+)\S+(?:\W+\w+){2}|[\"“][^\"”]{12,}")
_NAMED_CHOICES = re.compile(r"\b(?:choices|options)\s*:\s*[^,;/\n]+[,;/\n]\s*\S", re.IGNORECASE)
_LIST_ITEM = re.compile(r"^\s*(?:\d{1,3}[.)]|[-*•–|])")
_ASKS_TO_CHOOSE = re.compile(r"which of (?:the following|these)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_WANTS_MEDIA = re.compile(
    r"\b(?:please|could you|can you|you (?:can|will need to|must)) (?:\w+ ){0,2}"
    r"(?:upload|attach|send|share|provide|paste)\b[^.?!]{0,60}"
    r"\b(?:image|photo(?:graph)?|picture|file|video|scan|document|text|passage|note|details)s?\b",
    re.IGNORECASE,
)
_FINISHED = re.compile(r"""[.!?…:;)\]"'”’»*`>|。！？）]$|\d\s*%?$""")


def refers_to_material(instruction: str) -> bool:
    """Say whether an instruction speaks of a text that only an input could hold.

    Example:
        >>> refers_to_material("Summarise the following note."), refers_to_material("What is gout?")
        (True, False)
        >>> refers_to_material("Classify the following symptom: pain in the chest on climbing stairs")
        False
    """
    return bool(_REFERS.search(instruction)) and not _BRINGS_ITS_OWN.search(instruction)


def echoes(instruction: str, given: str) -> bool:
    """Say whether an input only repeats its instruction (ROUGE-L F1 above 0.8)."""
    return rouge_l(instruction, given) > ECHO


def check_task(task: SeedTask) -> str | None:
    """Return why a task should not be answered, or None.

    Returns:
        One of ``empty-instruction``, ``instruction-too-short``, ``instruction-too-long``, ``input-too-long``,
        ``refusal``, ``asks-for-media``, ``input-missing``, ``input-is-placeholder``, ``input-echoes-instruction``,
        ``no-choices``; None if the task passes.

    Example:
        >>> check_task(SeedTask("Look at the attached image and name the fracture."))
        'asks-for-media'
    """
    instruction, given = task.instruction.strip(), task.normal_input()
    words = len(instruction.split())
    if not tokenize(instruction):
        return "empty-instruction"
    if words < MIN_INSTRUCTION_WORDS:
        return "instruction-too-short"
    if words > MAX_INSTRUCTION_WORDS:
        return "instruction-too-long"
    if len(given.split()) > MAX_INPUT_WORDS:
        return "input-too-long"
    if _REFUSAL.search(instruction) or _REFUSAL.search(given):
        return "refusal"
    if _MEDIA.search(instruction) or _DRAWS.search(instruction):
        return "asks-for-media"
    if _CHOICE_TYPE.search(task.type) and not _has_choices(f"{instruction}\n{given}", task.type):
        return "no-choices"
    if not given:
        return "input-missing" if refers_to_material(instruction) else None
    if _PLACEHOLDER.match(given):
        return "input-is-placeholder"
    if echoes(instruction, given):
        return "input-echoes-instruction"
    return None


def check_answer(text: str, finish_reason: str) -> str | None:
    """Return why an answer should not be published, or None.

    Args:
        text: The model's answer.
        finish_reason: As the service gave it; "length" and "content_filter" mean that the text was cut.

    Returns:
        One of ``empty``, ``unfinished``, ``refusal``, ``asks-for-media``, ``answer-too-long``, ``repeats-itself``;
        None if the answer passes.

    Example:
        >>> check_answer("Drink water and rest.", "stop"), check_answer("Drink water and", "length")
        (None, 'unfinished')
    """
    answer = text.strip()
    words = answer.split()
    if not any(letter.isalnum() for letter in answer):
        return "empty"
    if finish_reason in CUT:
        return "unfinished"
    if len(words) > MAX_ANSWER_WORDS:
        return "answer-too-long"
    if _REFUSAL.search(answer):
        return "refusal"
    if _WANTS_MEDIA.search(answer):
        return "asks-for-media"
    if repeats_itself(answer):
        return "repeats-itself"
    last_line = answer.rsplit("\n", 1)[-1]
    if len(words) > 3 and not _FINISHED.search(answer) and not _LIST_ITEM.match(last_line):
        return "unfinished"
    return None


def repeats_itself(text: str) -> bool:
    """Say whether a text is caught in a loop: at least four lines or sentences, most of them copies of another.

    Example:
        >>> repeats_itself("Rest well. Drink. Rest well. Rest well. Rest well.")
        True
    """
    sentences = [" ".join(tokenize(part)) for part in _SENTENCE_END.split(text)]
    sentences = [sentence for sentence in sentences if sentence]
    return len(sentences) >= 4 and len(set(sentences)) <= len(sentences) / 2


def _has_choices(text: str, task_type: str) -> bool:
    """Say whether a text lists at least two lettered or numbered choices; USMLE items may be open questions."""
    if _NAMED_CHOICES.search(text):
        return True
    labels = {match.upper() for match in _CHOICE.findall(text)}
    if {"A", "B"} <= labels or {"1", "2"} <= labels:
        return True
    return "usmle" in task_type.lower() and "?" in text and not _ASKS_TO_CHOOSE.search(text)
