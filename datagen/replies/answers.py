"""The bare answer in a model's reply, and what of a model's own markup is left in it.

:func:`bare_answer` takes off what is known to be no part of the answer; :func:`leftover` objects to what looks as if
it were none either, so that it is rejected rather than published.
"""

import json
import re

from datagen.phrases import compiled, search, words_of_list
from datagen.replies.thinking import is_thought_name, without_thoughts
from datagen.replies.tokens import control_tokens, words_of

CONTROL_TOKENS, ANOTHER_TURN, THINKS_ALOUD = "control-tokens", "another-turn", "thinks-aloud"

_ANSWER, _ROLES = words_of_list("names of an answer's tag"), words_of_list("names of a role's tag")
_HTML = words_of_list("tags of HTML")
_PROSE_KINDS = {"markdown", "md", "text", "txt", "plaintext", "plain", "answer", "response", "output"}

# --- who speaks: a name at the beginning of a line with a colon behind it ------------------------------------------


# --- thoughts without a mark: the answer begins by speaking of its task or of how to go about it -------------------

_BEGINNING = 250


def bare_answer(reply: str, asked: str = "") -> str:
    """Return the answer in a reply: without thoughts, control tokens, a wrapper around all of it, and a role's name.

    Args:
        reply: A model's whole reply.
        asked: The task; one that asks for a dialogue or for markup may be answered with it.

    Example:
        >>> bare_answer("<think>Gout.</think>\\n<answer>\\nRest.\\n</answer><|im_end|>"), bare_answer("**Answer:** B")
        ('Rest.', 'B')
        >>> bare_answer("Doctor: Hello.\\nPatient: It hurts.")
        'Doctor: Hello.\\nPatient: It hurts.'
    """
    text = reply
    for _ in range(4):  # a wrapper may hold another one
        shown = compiled("thinking switch").sub("", without_thoughts(compiled("first breaks").sub("", text)))
        while last := search("last break", shown, max(0, len(shown.rstrip()) - 8)):
            shown = shown[: last.start()].rstrip()
        shown = shown[: end.start()].rstrip() if (end := search("end said", shown)) else shown
        shown = _without_label(_unwrapped(shown, asked), asked)
        if shown == text:
            break
        text = shown
    return text


def leftover(answer: str, asked: str = "") -> str | None:
    """Return why a bare answer still seems to hold something beside the answer, or None.

    Args:
        answer: What :func:`bare_answer` returned.
        asked: The task, whose own markup an answer may repeat.

    Returns:
        ``control-tokens`` (or tags of no document), ``another-turn`` (the model went on with an invented turn),
        ``thinks-aloud`` (about "the user"), or None.

    Example:
        >>> leftover("Rest.</s> Run."), leftover("Rest.\\n\\nUser: Why?"), leftover("The user asks about rest.")
        ('control-tokens', 'another-turn', 'thinks-aloud')
        >>> leftover("Keep HbA1c <7% and <b>rest</b>.")
    """
    tokens = control_tokens(answer)
    if any(token not in asked for token in tokens):
        return CONTROL_TOKENS
    if not search("asks for markup", asked) and _holds_tags(answer):
        return CONTROL_TOKENS
    if _goes_on(answer, asked):
        return ANOTHER_TURN
    begin = answer[:_BEGINNING]
    aloud = (
        search("thinks aloud", begin)
        or (search("speaks of its task", begin) and search("plans aloud", begin))
        or search("second thoughts", answer)
    )
    return (
        THINKS_ALOUD
        if aloud and "user" not in asked.lower() and not search("asks for a dialogue", asked)
        else None
    )


def _goes_on(answer: str, asked: str) -> bool:
    """Say whether somebody else's turn, or another task with its answer, follows or precedes the answer."""
    if search("glued turn", answer):
        return True
    if not search("asks for items", asked):
        item = next((item for item in compiled("question items").finditer(answer) if item.start()), None)
        listed = (
            item
            and item["asks"]
            and (compiled("question items").match(answer) or _is_introduced(answer, item.start()))
        )
        if item and not listed and search("answer to an item", answer, item.end()):
            return True
    if search("asks for a dialogue", asked):
        return False
    spoken = list(compiled("speakers").finditer(answer))
    turns = [turn for turn in compiled("invented turns").finditer(answer) if not _begins_a_sentence(turn)]
    if not spoken or (
        len(spoken) > 2
        and not answer[: spoken[0].start()].strip()
        and not compiled("invented turns").match(answer)
    ):
        return bool(turns and not spoken)  # nobody speaks, or the answer is a dialogue
    first = spoken[0]
    if turns:
        return True
    if answer[: first.start()].strip():
        return bool(search("words of speech", first["said"])) and not _is_introduced(answer, first.start())
    return len(spoken) == 2 and not first["asker"] and bool(search("thanks said", spoken[1]["said"]))


def _begins_a_sentence(turn: re.Match[str]) -> bool:
    """Say whether the text begins so and goes on in small letters: "User: a person who uses the inhaler"."""
    said = turn.string[turn.end() :].lstrip()
    return not turn.start() and turn.group()[-1] in ":：" and said[:1].islower()


def _is_introduced(text: str, at: int) -> bool:
    """Say whether the line above is a heading, or ends in a colon."""
    above = text[:at].rstrip()
    line = above[above.rfind("\n") + 1 :].strip()
    return bool(search("introduction", line)) or (len(line) <= 60 and line[-1:].isalnum())


def holds_thoughts(text: str) -> bool:
    """Say whether a text holds a tag of thoughts, whole or alone.

    Example:
        >>> holds_thoughts("Rest. <thinking> Why?"), holds_thoughts("Rest [thinking of him].")
        (True, False)
    """
    return any(
        _is_angled(tag) and is_thought_name(tag["name"]) for tag in compiled("bracketed tag").finditer(text)
    )


def _is_angled(tag: re.Match[str]) -> bool:
    return tag["open"][0] in "<&＜◁◀" and not (tag["more"] and not tag["slash"])


def _holds_tags(text: str) -> bool:
    """Say whether a text has tags of thoughts, answers or roles outside code, or others of which it does not speak."""
    text = compiled("any code").sub(" ", text)
    speaks = bool(search("speaks of markup", text))
    ends = {end.lower() for end in compiled("end tag").findall(text)} - _HTML
    if "<!--" in text or (ends and not speaks):
        return True
    for tag in compiled("bracketed tag").finditer(text):
        words = set(words_of(tag["name"]))
        known = is_thought_name(tag["name"]) or words <= _ANSWER
        if words <= _ROLES and tag["name"].isupper() and len(tag["name"]) > 3:
            return True
        if not _is_angled(tag):
            token = bool(tag["slash"]) or tag["name"].isupper()
            if token and (is_thought_name(tag["name"]) or (tag["slash"] and words & _ANSWER)):
                return True
        elif tag["name"].lower() not in _HTML and (known or words <= _ROLES or (tag["slash"] and not speaks)):
            return True
    return False


def _unwrapped(text: str, asked: str) -> str:
    """Take off a tag, a box, a code block or a JSON object that holds all of the text."""
    whole = text.strip()
    boxed = compiled("boxed").fullmatch(whole)
    if boxed and "\\boxed" not in boxed["said"]:
        return compiled("tex text").sub(r"\1", boxed["said"]).strip()
    fenced = compiled("fenced").fullmatch(whole)
    if fenced and fenced["fence"] not in fenced["said"]:
        kind = fenced["kind"].lower()
        if kind in _PROSE_KINDS or (not kind and _is_prose(fenced["said"])):
            return fenced["said"].strip("\n")
    holds_object = whole[:1] == "{" or (fenced and fenced["kind"].lower() == "json")
    if holds_object and not search("speaks of json", asked):
        text = _only_value(fenced["said"] if fenced else whole) or text
    return text if search("asks for markup", asked) else _untagged(text)


def _is_prose(text: str) -> bool:
    """Say whether a line ends as a sentence, and none looks like code."""
    ends = (line.rstrip()[-1:] for line in text.split("\n"))
    return not search("like code", text) and any(end in tuple(".!?。！？") for end in ends)


def _only_value(text: str) -> str | None:
    try:
        said = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    told = {key: value for key, value in said.items() if not is_thought_name(key)}
    answers = [value for key, value in told.items() if _names_answer(key) and isinstance(value, str)]
    return answers[0] if len(told) == len(answers) == 1 else None


def _untagged(text: str) -> str:
    """Take off ``<answer>`` and the like where one pair holds all, or one end of it is missing."""
    tags = [tag for tag in compiled("bracketed tag").finditer(text) if _names_answer(tag["name"])]
    if not tags:
        return text
    first, last = tags[0], tags[-1]
    same = [tag for tag in tags if tag["name"].lower() == first["name"].lower()]
    if len(same) > 2 or same[-1] is not last:
        return text
    opens = not first["slash"] and not text[: first.start()].strip()
    closes = bool(last["slash"]) and not text[last.end() :].strip()
    if len(same) == 2 and not (opens and closes):
        return text
    if len(same) == 1 and not (_is_angled(first) and (opens or closes)):
        return text
    return text[first.end() if opens else 0 : last.start() if closes else len(text)].strip()


def _names_answer(name: str) -> bool:
    return bool(words_of(name)) and set(words_of(name)) <= _ANSWER


def _without_label(text: str, asked: str) -> str:
    """Take off the name of who speaks, unless somebody else speaks, too; or an only heading "Answer"."""
    if (heading := compiled("answer heading").match(text)) and not search(
        "answer heading form", text, heading.end()
    ):
        return text[heading.end() :]
    label = compiled("answer label").match(text)
    if label is None:
        return text
    rest, name = text[label.end() :], label["name"] or ""
    # "Response: the tumour shrank." is a sentence.
    if not rest.strip() or (
        label.group().startswith(name) and not label.group().endswith("\n") and name and rest[0].islower()
    ):
        return text
    said = compiled("names of an answer").fullmatch(name)
    if said and label.group().rstrip(" ")[-1:] in ":：" and label.start("name") == 0 and rest[0].isdigit():
        return text
    if search("speakers", rest):  # somebody else speaks, too
        return text
    return text if name and not said and search("asks for a dialogue", asked) else rest
