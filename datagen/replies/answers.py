"""The bare answer in a model's reply, and what of a model's own markup is left in it.

:func:`bare_answer` takes off what is known to be no part of the answer; :func:`leftover` objects to what looks as if
it were none either, so that it is rejected rather than published.
"""

import json
import re

from datagen.replies.thinking import TAG, is_thought_name, without_thoughts
from datagen.replies.tokens import control_tokens, words_of

CONTROL_TOKENS, ANOTHER_TURN, THINKS_ALOUD = "control-tokens", "another-turn", "thinks-aloud"

_ANSWER = {
    "answer",
    "response",
    "final",
    "output",
    "result",
    "reply",
    "solution",
    "conclusion",
    "assistant",
    "content",
}
_HTML = frozenset(re.findall(r"\w+", """
    a abbr address article aside b blockquote body br button caption center cite code col colgroup dd del details dfn
    div dl dt em figcaption figure font footer form h1 h2 h3 h4 h5 h6 head header hr html i img input ins kbd label li
    link main mark math meta nav ol option p pre q s samp section select small span strike strong style sub summary sup
    svg table tbody td textarea tfoot th thead time title tr tt u ul var"""))  # fmt: skip
_END_TAG = re.compile(r"</ ?([^\W\d]\w{0,40})")
_SPEAKS_OF_MARKUP = re.compile(
    r"\b(?:xml|html|tags?|mark-?up|fhir|hl7|cda|template|placeholders?)\b|<\w", re.IGNORECASE
)
_SPEAKS_OF_JSON = re.compile(r"\bjson\b|[{}]", re.IGNORECASE)
_DIALOGUE = re.compile(
    r"\b(?:dialog|conversation|script|role-?play|transcript|interview|chat|user|exchange|simulat|skit|message)",
    re.IGNORECASE,
)
_BOXED = re.compile(
    r"(?:\$\$?|\\\[|\\\(|\*\*)?\s*\\boxed\s*\{(?P<said>.*)\}\s*(?:\$\$?|\\\]|\\\)|\*\*)?\.?", re.DOTALL
)
_TEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")
_FENCED = re.compile(
    r"(?P<fence>`{3,}|~{3,})[ \t]*(?P<kind>\w*)[ \t]*\n(?P<said>.*)\n[ \t]*(?P=fence)", re.DOTALL
)
_PROSE_KINDS = {"markdown", "md", "text", "txt", "plaintext", "plain", "answer", "response", "output"}
_CODE = re.compile(r"[{};=]")
_MACHINE = (
    r"(?:the )?(?:(?:ai|medical|helpful|virtual) )*(?:assistant|ai doctor|ai|chatbot|bot|chatgpt|gpt-?\d?"
    r"|language model)"
    r"(?:['’]s)?(?: (?:answer|response|reply))?|助手|asistente|assistente|assistent|ассистент"
)
_DOCTOR = (
    r"(?:the )?(?:doctor|dr\.?|physician|clinician|medical expert|expert|nurse|pharmacist)"
    r"(?:['’]s)?(?: (?:answer|response|reply))?"
)
_SAID = (
    r"(?:here(?:['’]s| is) )?(?:the |my |your )?(?:final |model |correct )?(?:answer|response|reply|output)"
    r"|答|回答|答案|réponse|antwort|respuesta|risposta|resposta|ответ|उत्तर|الجواب|الإجابة|답변|답"
)
_LABEL = re.compile(
    rf"[\s>*_#\[(<]{{0,8}}(?P<name>{_MACHINE}|{_DOCTOR}|{_SAID})[\])>*_ \t]{{0,4}}[:：][*_ \t]{{0,4}}\s*"
    r"|#{1,6}[ \t]*(?:response|assistant)[ \t]*\n\s*|\[?(?:assistant|model)\]?[ \t]*\n\s*|(?:bot|assistant|ai)> ",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^(?:#{1,6} [^\n]+|\*\*[^*\n]{1,80}\*\*:?)[ \t]*$", re.MULTILINE)
_ANSWER_HEADING = re.compile(rf"\s*(?:#{{1,6}} *)?\**(?:{_SAID})\**[ \t]*\n\s*", re.IGNORECASE)
_END_SAID = re.compile(
    r"\n[\s*_=-]{0,20}end\W*\Z"
    r"|[\[(<*-]{1,3}\s?(?:the )?end of (?:the |my )?(?:answer|response|reply|output|message|text)\W*\Z",
    re.IGNORECASE,
)
_SWITCH = re.compile(r"\A\s*/(?:no_?)?think\b\s*|\s/(?:no_?)?think\s*\Z", re.IGNORECASE)
_PARTNER = re.compile(
    r"^[\s>*_#\[]{0,8}(?:patient|user|human|caller|client|parent|mother|father|son|daughter|wife|husband|nurse|doctor"
    r"|dr|mr|mrs|ms|pharmacist|physician|student|teacher|question|q|input|intake|you|me)\b[^:：\n]{0,30}[:：]",
    re.IGNORECASE | re.MULTILINE,
)
_TURN = re.compile(
    r"^[ \t>*_]{0,4}(?:#{1,6}[ \t]*)?[*_]{0,2}[\[<]?(?:user|human|assistant)[\]>]?[*_ \t]{0,4}[:：]"
    r"|^#{1,6}[ \t]*[*_]{0,2}(?:instruction|human|user|assistant|prompt|input|response|system)[*_ \t]{0,4}(?:[:：]|$)"
    r"|^(?:assistant|user|model|system)[ \t]*$|^#{3,}\s{1,9}(?:instruction|input|type|task|question)\b.{0,3}[:：]",
    re.IGNORECASE | re.MULTILINE,
)
_GLUED_TURN = re.compile(r"[.!?:;)*](?:assistant|user|system)[ \t]*(?:\n|\Z)")
_ITEM = re.compile(r"^[ \t*_]{0,4}(?:instruction|question|q)[*_]{0,2}[:：]", re.IGNORECASE | re.MULTILINE)
_ITS_ANSWER = re.compile(
    r"^[ \t*_]{0,4}(?:response|output|answer|a)[*_]{0,2}[:：]", re.IGNORECASE | re.MULTILINE
)
_ASKS_FOR_ITEMS = re.compile(
    r"\bquestions\b|\bquiz|\bflash ?card|\bfaq|q\s?&\s?a|\bexam|\btest\b|\binstruction", re.IGNORECASE
)
_BEGINNING = 250
_ALOUD = re.compile(
    r"\b(?:the|this) user (?:is (?:asking|looking|seeking|requesting|describing)|wants|asks|asked|needs|says|said"
    r"|provided|gave|would like|seems|has (?:asked|provided|given|requested))\b"
    r"|\b(?:the|this) user['’]s (?:question|query|request|message|prompt|concern)"
    r"|\A\W{0,5}(?:(?:okay|ok|alright|hmm+|well|so|first|now)\b[,.:… ]{0,4}){0,3}(?:the|this) user\b"
    r"|\A\W{0,5}(?:(?:okay|ok|alright|hmm+|well|so|first|now)\b[,.:… ]{0,4}){0,3}we need to"
    r" (?:answer|respond|produce|output|write|provide|reply)\b"
    r"|用户(?:询问|想|问|要求|提到|的问题)|el usuario (?:pregunta|quiere)|l['’]utilisateur (?:demande|veut)"
    r"|der (?:nutzer|benutzer) (?:fragt|möchte|will)|пользователь (?:спрашивает|хочет)",
    re.IGNORECASE,
)  # fmt: skip


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
        shown = _SWITCH.sub("", without_thoughts(text))
        shown = shown[: end.start()].rstrip() if (end := _END_SAID.search(shown)) else shown
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
    if not _SPEAKS_OF_MARKUP.search(asked) and _holds_tags(answer):
        return CONTROL_TOKENS
    if _GLUED_TURN.search(answer) or (_TURN.search(answer) and not _DIALOGUE.search(asked)):
        return ANOTHER_TURN
    item = None if _ASKS_FOR_ITEMS.search(asked) else _ITEM.search(answer, 1)
    if item and _ITS_ANSWER.search(answer, item.end()):
        return ANOTHER_TURN
    return THINKS_ALOUD if _ALOUD.search(answer[:_BEGINNING]) and "user" not in asked.lower() else None


def holds_thoughts(text: str) -> bool:
    """Say whether a text holds a tag of thoughts, whole or alone.

    Example:
        >>> holds_thoughts("Rest. <thinking> Why?"), holds_thoughts("Rest [thinking of him].")
        (True, False)
    """
    return any(_is_angled(tag) and is_thought_name(tag["name"]) for tag in TAG.finditer(text))


def _is_angled(tag: re.Match[str]) -> bool:
    return tag["open"][0] in "<&＜◁◀" and not (tag["more"] and not tag["slash"])


def _holds_tags(text: str) -> bool:
    """Say whether a text holds tags that are none of HTML: of thoughts, of an answer, or any that ends something."""
    if "<!--" in text or any(end.lower() not in _HTML for end in _END_TAG.findall(text)):
        return True
    for tag in TAG.finditer(text):
        name = tag["name"].lower()
        if not _is_angled(tag):
            token = bool(tag["slash"]) or tag["name"].isupper()
            if token and (is_thought_name(name) or (tag["slash"] and set(words_of(name)) & _ANSWER)):
                return True
        elif name not in _HTML and (tag["slash"] or is_thought_name(name) or set(words_of(name)) <= _ANSWER):
            return True
    return False


def _unwrapped(text: str, asked: str) -> str:
    """Take off a tag, a box, a code block or a JSON object that holds all of the text."""
    whole = text.strip()
    boxed = _BOXED.fullmatch(whole)
    if boxed and "\\boxed" not in boxed["said"]:
        return _TEX_TEXT.sub(r"\1", boxed["said"]).strip()
    fenced = _FENCED.fullmatch(whole)
    if fenced and fenced["fence"] not in fenced["said"]:
        kind = fenced["kind"].lower()
        if kind in _PROSE_KINDS or (not kind and _is_prose(fenced["said"])):
            return fenced["said"].strip("\n")
    holds_object = whole[:1] == "{" or (fenced and fenced["kind"].lower() == "json")
    if holds_object and not _SPEAKS_OF_JSON.search(asked):
        text = _only_value(fenced["said"] if fenced else whole) or text
    return text if _SPEAKS_OF_MARKUP.search(asked) else _untagged(text)


def _is_prose(text: str) -> bool:
    """Say whether a line ends as a sentence, and none looks like code."""
    ends = (line.rstrip()[-1:] for line in text.split("\n"))
    return not _CODE.search(text) and any(end in tuple(".!?。！？") for end in ends)


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
    tags = [tag for tag in TAG.finditer(text) if _names_answer(tag["name"])]
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
    if (heading := _ANSWER_HEADING.match(text)) and not _HEADING.search(text, heading.end()):
        return text[heading.end() :]
    label = _LABEL.match(text)
    if label is None:
        return text
    rest = text[label.end() :]
    name = label["name"]
    again = name and re.search(
        rf"^[\s>*_#\[]{{0,8}}{re.escape(name)}\W{{0,4}}[:：]", rest, re.MULTILINE | re.IGNORECASE
    )
    if not rest.strip() or again or _PARTNER.search(rest):
        return text
    spoken = name and not re.fullmatch(_SAID, name, re.IGNORECASE)
    return text if spoken and _DIALOGUE.search(asked) else rest
