"""Plain checks of a task before it is answered and of an answer before it is published.

Each returns a short stable reason for rejection, or None if the text passes.
"""

import re
from collections.abc import Iterator

from datagen.dedup import count_words, rouge_l, tokenize
from datagen.finish import read_finish
from datagen.language import ANY, is_other_language
from datagen.loops import is_caught_in_a_loop
from datagen.phrases import compiled, search
from datagen.placeholders import asks_to_insert, is_placeholder
from datagen.records import SeedTask

MIN_INSTRUCTION_WORDS = 2
MAX_INSTRUCTION_WORDS = 150
MAX_INPUT_WORDS = 600
MAX_ANSWER_WORDS = 2000
ECHO = 0.8
MAX_REFUSAL_WORDS = 75
MAX_SECTIONS = 31

_END_MARKS = "。！？｡．।॥؟۔።፧။།។៕"  # of scripts that need no space behind them, or have their own
_SENTENCE_END = re.compile(rf"(?<=[.!?])(?<![.][.])\s+|(?<=[{_END_MARKS}])\s*|\n+")
_HEADING_WORDS = 8
_FRAGMENT_WORDS = 15
_FINISHED = re.compile(rf"""[.!?…:;)\]"'”’»*`>|{_END_MARKS}）」』】》〉〕｣］｝：；؛״׃]$|\d\s*[%％٪]?$""")


def refers_to_material(instruction: str) -> bool:
    """Say whether an instruction refers to a text that only an input could hold.

    Example:
        >>> refers_to_material("Summarise the following note."), refers_to_material("What is gout?")
        (True, False)
        >>> refers_to_material("Classify the following symptom: pain in the chest on climbing stairs")
        False
    """
    return bool(search("refers to material", instruction)) and not search("brings its own", instruction)


def echoes(instruction: str, given: str) -> bool:
    """Say whether an input only repeats its instruction (ROUGE-L F1 above 0.8)."""
    return rouge_l(instruction, given) > ECHO


def asks_for_media(instruction: str, given: str) -> bool:
    """Say whether a task needs a file or an image, or asks for a drawing.

    Example:
        >>> asks_for_media("Name the fracture.", "The X-ray is shown below.")
        True
        >>> asks_for_media("Which muscles are attached to the femur?", "")
        False
    """
    if (
        search("is attached", instruction)
        or search("asks for a drawing", instruction)
        or search("shows a picture", given)
    ):
        return True
    # "Based on the provided X-ray": the input may put the picture into words.
    return not given and bool(search("shows a picture", instruction))


def check_task(task: SeedTask, language: str = ANY) -> str | None:
    """Return why a task should not be answered, or None.

    Args:
        task: The task.
        language: Code of the language required of instructions, or "any". Inputs may be in any language.

    Returns:
        One of ``empty-instruction``, ``wrong-language``, ``instruction-too-short``, ``instruction-too-long``,
        ``input-too-long``, ``refusal``, ``asks-for-media``, ``no-choices``, ``unfinished``, ``input-missing``,
        ``input-is-placeholder``, ``input-echoes-instruction``, ``repeats-itself``; None if the task passes.

    Example:
        >>> check_task(SeedTask("Look at the attached image and name the fracture."))
        'asks-for-media'
    """
    return next((reason for objects, reason in _objections_to_task(task, language) if objects), None)


def _objections_to_task(task: SeedTask, language: str) -> Iterator[tuple[object, str]]:
    """Yield pairs of whether an objection holds and its reason; later pairs are computed only if needed."""
    instruction, given = task.instruction.strip(), task.normal_input()
    words = count_words(instruction)
    yield not any(map(str.isalnum, instruction)), "empty-instruction"
    yield is_other_language(instruction, language), "wrong-language"
    yield words < MIN_INSTRUCTION_WORDS, "instruction-too-short"
    yield words > MAX_INSTRUCTION_WORDS, "instruction-too-long"
    yield count_words(given) > MAX_INPUT_WORDS, "input-too-long"
    yield search("refusals", instruction) or search("refusals", given), "refusal"
    yield asks_for_media(instruction, given), "asks-for-media"
    chooses = search("choice type", task.type)
    yield chooses and not _has_choices(f"{instruction}\n{given}", task.type), "no-choices"
    yield breaks_off(instruction) or breaks_off(given), "unfinished"
    yield is_caught_in_a_loop(instruction) or is_caught_in_a_loop(given), "repeats-itself"
    yield asks_to_insert(instruction) or (given and is_placeholder(given)), "input-is-placeholder"
    alone = refers_to_material(instruction) or instruction.endswith((":", "："))
    yield not given and alone, "input-missing"
    yield given and echoes(instruction, given), "input-echoes-instruction"


def check_answer(
    text: str, finish_reason: str, task: SeedTask | None = None, language: str = ANY
) -> str | None:
    """Return why an answer should not be published, or None.

    Args:
        text: The model's answer.
        finish_reason: As the service gave it; an answer is not whole where :mod:`datagen.finish` says so.
        task: The task that was answered; a task about languages may be answered in any language.
        language: Code of the language required of answers, or "any".

    Returns:
        One of ``empty``, ``unfinished``, ``answer-too-long``, ``refusal``, ``asks-for-media``, ``wrong-language``,
        ``repeats-itself``; None if the answer passes.

    Example:
        >>> check_answer("Drink water and rest.", "stop"), check_answer("Drink water and", "length")
        (None, 'unfinished')
    """
    objections = _objections_to_answer(text.strip(), finish_reason, task, language)
    return next((reason for objects, reason in objections if objects), None)


def _objections_to_answer(
    answer: str, finish_reason: str, task: SeedTask | None, language: str
) -> Iterator[tuple[object, str]]:
    words = count_words(answer)
    yield not any(map(str.isalnum, answer)), "empty"
    yield read_finish(finish_reason) != "whole", "unfinished"
    yield words > MAX_ANSWER_WORDS, "answer-too-long"
    # A long answer that begins so goes on to help: "I cannot diagnose you, but pain in the chest can be ..."
    yield words <= MAX_REFUSAL_WORDS and search("refusals", answer), "refusal"
    yield search("wants media", answer), "asks-for-media"
    about_language = task is not None and search("about a language", f"{task.type} {task.instruction}")
    yield not about_language and is_other_language(answer, language), "wrong-language"
    yield repeats_itself(answer), "repeats-itself"
    yield is_unfinished(answer), "unfinished"


def breaks_off(text: str) -> bool:
    """Say whether a text clearly stops within a sentence: after a comma, an article, a conjunction.

    Example:
        >>> breaks_off("Explain the difference between gout and"), breaks_off("Name a source of vitamin A")
        (True, False)
    """
    return bool(search("breaks off", text.rstrip()))


def is_unfinished(answer: str) -> bool:
    """Say whether an answer seems to stop before its end, though the service says that it ended.

    Lists, tables, headings, sources and answers without any sentence need no full stop.

    Example:
        >>> is_unfinished("Gout is painful. It is caused by crystals that form when the blood holds much")
        True
        >>> is_unfinished("It has two stages:\\n- acute\\n- chronic"), is_unfinished("Gout, by uric acid")
        (False, False)
    """
    if breaks_off(answer):
        return True
    if _FINISHED.search(answer) or search("without end marks", answer):
        return False
    before, _, last_line = answer.rpartition("\n")
    if (
        "|" in last_line
        or compiled("list item").match(last_line)
        or (before and count_words(last_line) <= _HEADING_WORDS)
        or (
            compiled("labelled line").match(last_line)
            and compiled("labelled line").match(before[before.rfind("\n") + 1 :])
        )
    ):
        return False
    sentences = _SENTENCE_END.split(last_line)
    tail = sentences[-1]
    listed = any(sign in last_line for sign in (" - ", "   ", "•", " * "))
    no_sentence = len(sentences) == 1 and not before and count_words(tail) <= _FRAGMENT_WORDS
    named = all(word[0].isupper() or len(word) <= 3 for word in compiled("run of letters").findall(tail))
    return not (listed or no_sentence or named or search("names a source", tail))


def repeats_itself(text: str) -> bool:
    """Say whether a text is caught in a loop, or has at least four lines or sentences, most of them copies of another.

    Example:
        >>> repeats_itself("Rest well. Drink. Rest well. Rest well. Rest well."), repeats_itself("Rest " * 20)
        (True, True)
    """
    if is_caught_in_a_loop(text):
        return True
    section, sections, sentences = "", 0, list[tuple[str, str]]()
    for part in _SENTENCE_END.split(text):
        sentence = " ".join(tokenize(part))
        if compiled("section heading").match(part):
            section, sections = sentence, sections + 1
        if any(map(str.isalpha, sentence)):
            sentences.append((section, sentence))
    if sections > MAX_SECTIONS:
        sentences = [("", re.sub(r"\d+", "0", sentence)) for _, sentence in sentences]
    return len(sentences) >= 4 and len(set(sentences)) <= len(sentences) / 2


def _has_choices(text: str, task_type: str) -> bool:
    """Say whether a text lists at least two lettered or numbered choices; USMLE items may be open questions."""
    if search("named choices", text):
        return True
    labels = {match.upper() for match in compiled("lettered choice").findall(text)}
    if {"A", "B"} <= labels or {"1", "2"} <= labels:
        return True
    return "usmle" in task_type.lower() and "?" in text and not search("asks to choose", text)
