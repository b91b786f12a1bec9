"""The root verb of an instruction and the noun it acts on, for the figure of the paper.

Self-instruct and AlpaCare parse each instruction and take the verb closest to the root with its first direct noun
object. No parser of English comes through a package index alone and is well kept, so this reads the one form that
instructions have: a command, often after a leading clause ("Given the history, ...") or a courtesy ("Could you
please ..."), whose object is the noun phrase behind the verb. Questions and statements have no root here and are
counted as such. Measured on the labelled instructions of the tests: see ``docs/publishing.md``.
"""

import dataclasses
import functools
import importlib.resources
import re
from typing import Any

import yaml

from datagen.labels import singular

_SENTENCE = re.compile(r"(?<=[.!?:])[\"”')]*\s+|\n+")
_NUMBERING = re.compile(
    r"^\W*(?:\d{1,3}[.):]\s*)?(?:(?:question|task|instruction|prompt|exercise)\s*\d*\s*:\s*)?", re.I
)
_TOKEN = re.compile(r"[A-Za-z0-9]+(?:['’.\-/][A-Za-z0-9]+)*|['’]s\b|[,;:.!?()\"“”‘’'\[\]–—&]|(?<=\s)-(?=\s)")
_ADJECTIVE = re.compile(r"(?:al|ic|ous|ive|ary|ible|able)$")
_END = ["", "", ""]
"""Appended to a sentence's tokens, so that looking ahead needs no bounds check."""
_QUOTES = frozenset("\"“”‘’'()[]")


@dataclasses.dataclass(frozen=True)
class Root:
    """How an instruction begins: ``kind`` is "command", "question" or "other"; verb and object, or ""."""

    kind: str
    verb: str = ""
    object: str = ""


@functools.cache
def _words() -> dict[str, Any]:
    text = importlib.resources.files("datagen.statistics").joinpath("root_words.yaml").read_text("utf-8")
    lists: dict[str, Any] = yaml.safe_load(text)
    polite = [phrase.split() for phrase in lists.pop("polite").split("|")]
    irregular = lists.pop("irregular")
    return {name: frozenset(words.split()) for name, words in lists.items()} | {
        "polite": sorted(polite, key=len, reverse=True),
        "irregular": irregular,
    }


def find_root(instruction: str) -> Root:
    """Find the root verb of an instruction and the noun of its direct object, in the singular.

    Example:
        >>> find_root("Given the history, list three possible causes of the fever.")
        Root(kind='command', verb='list', object='cause')
        >>> find_root("What is gout?").kind
        'question'
    """
    kinds = []
    for sentence in _SENTENCE.split(_NUMBERING.sub("", instruction.strip(), count=1)):
        found = _TOKEN.findall(sentence)
        if not found:
            continue
        tokens = [token.lower() for token in found] + _END
        start = _command(tokens)
        if start is not None:
            return Root("command", tokens[start], _object(tokens, start))
        asks = sentence.rstrip("\"”') ").endswith("?") or tokens[0] in _words()["questions"]
        kinds.append("question" if asks else "other")
    return Root("question" if "question" in kinds else "other")


def _command(tokens: list[str]) -> int | None:
    """Return where the verb of a command stands, or None where the sentence is no command."""
    at = _skip_courtesy(tokens, 0)
    places = [at]
    if tokens[at] in _words()["leading"] or tokens[at] == "if":
        commas = (place for place, token in enumerate(tokens) if token == "," and place > at)
        places += [_skip_courtesy(tokens, comma + 1) for comma in commas]
    return next((place for place in places if _is_command(tokens, place)), None)


def _skip_courtesy(tokens: list[str], at: int) -> int:
    words = _words()
    while tokens[at]:
        phrase = next((each for each in words["polite"] if tokens[at : at + len(each)] == each), None)
        if phrase:
            at += len(phrase)
        elif tokens[at] in words["courtesies"] or tokens[at] in _QUOTES:
            at += 1
        else:
            break
        at += tokens[at] == ","
    return at


def _is_command(tokens: list[str], at: int) -> bool:
    """Say whether a known verb, or a word right before a determiner, begins the clause at ``at``."""
    words = _words()
    verb, behind = tokens[at : at + 2]
    if behind in ("is", "are", "was", "were", ":"):
        return False  # "Treatment is ...", "Answer: ..."
    if verb in words["verbs"]:
        return True
    if not verb.isalpha() or verb.endswith(("ly", "ing", "ed")) or verb in words["subjects"]:
        return False
    closed = ("questions", "determiners", "prepositions", "pronouns", "conjunctions", "numbers", "leading")
    return behind in words["determiners"] and not any(verb in words[name] for name in closed)


def _object(tokens: list[str], verb: int) -> str:
    """Return the head noun of the noun phrase behind the verb, or "" where a clause or nothing follows."""
    words = _words()
    at = verb + 1
    if tokens[verb] in words["reaching"] and tokens[at] in words["particles"]:
        at += 1
    elif tokens[at] in words["conjunctions"] and tokens[at + 1] in words["verbs"]:
        at += 2  # "compare and contrast"
    while token := tokens[at]:
        if token in _QUOTES or token == "," or token.endswith("ly") or token in words["pronouns"]:
            at += 1
        elif token in ("in", "to", "with", "using"):
            behind = _behind_phrase(tokens, at)
            if behind is None:
                return ""
            at = behind
        else:
            break
    if tokens[verb] == "help" and tokens[at] in words["verbs"]:
        return ""  # "help me understand"
    return _head(tokens, at)[0]


def _behind_phrase(tokens: list[str], at: int) -> int | None:
    """Skip "in detail", "to a student", "with examples": return where the object may begin, or None."""
    words = _words()
    inside = at + 1
    noun, end = _head(tokens, inside)
    nouns = enumerate(tokens[inside : inside + 5], inside)
    adverbial = next((place for place, token in nouns if token in words["adverbial_nouns"]), None)
    if tokens[at] == "in":
        if adverbial is None:
            return None
        end = adverbial + 1
    elif not noun:
        return None
    end += tokens[end] == ","
    begins = tokens[end] in words["determiners"] or tokens[end - 1] == "," or adverbial is not None
    return end if tokens[end] and begins else None


def _head(tokens: list[str], at: int) -> tuple[str, int]:
    """Read one noun phrase: its last noun in the singular, and where the phrase ends."""
    words = _words()
    noun = ""
    while token := tokens[at]:
        behind = tokens[at + 1]
        if token in ("at", "up") and behind in ("least", "most", "to") and not noun:
            at += 2
            continue
        if token == "(" and noun:
            break
        if token in words["determiners"]:
            if noun:
                break
        elif token in words["conjunctions"] and _ADJECTIVE.search(noun) and _ADJECTIVE.search(behind):
            pass  # "viral and bacterial meningitis"
        elif token not in _QUOTES and token not in ("'s", "’s"):
            if not token[0].isalnum() or _ends_phrase(token, behind, noun):
                break
            if not token[0].isdigit() and token not in words["numbers"]:
                noun = token.removesuffix("'s").removesuffix("’s")
        at += 1
    return str(words["irregular"].get(noun) or singular(noun)), at


def _ends_phrase(token: str, behind: str, noun: str) -> bool:
    """Say whether a word belongs no more to the noun phrase whose last noun so far is ``noun``."""
    words = _words()
    if any(token in words[name] for name in ("clause_words", "conjunctions", "subjects")):
        return True
    if token in words["prepositions"]:
        # "the following text", "the given text" have it inside the phrase.
        return bool(noun) or token not in ("following", "like", "near", "outside", "inside")
    if not noun:
        return False
    if token in words["verbs_after_nouns"] or token in words["pronouns"]:
        return True
    if token == "best" or token.endswith("ly"):  # "the answer best explaining", "symptoms commonly seen"
        return behind.endswith(("ed", "ing")) or behind in words["verbs_after_nouns"]
    places = ("to", "above", "below")
    open_end = not behind[:1].isalnum() or behind in words["prepositions"] or behind in places
    participle = token.endswith("ed") or (token.endswith("ing") and token not in words["nouns_in_ing"])
    return participle and open_end
