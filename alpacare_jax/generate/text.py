"""From tokens to text as they come: whole characters only, and nothing that may yet become a stop string."""

import re
from collections.abc import Mapping, Sequence

from alpacare_jax.tokenizer import Tokenizer

UNFINISHED = "\ufffd"
FIRST_MARK, LAST_MARK = 0xD800, 0xDFFF
MARKS = re.compile("[\ud800-\udfff]")
CONTEXT_TOKENS = 8
"""Tokens of the prompt that are decoded with the first new ones where the text goes on from the prompt."""


class Decoder:
    """Decodes a growing list of tokens; the pieces it gives, joined, are the text of all of them.

    A character may be spread over several tokens: nothing is given until it is whole. Control tokens give
    nothing.

    Args:
        tokenizer: The tokenizer.
        context: Tokens that stand before; decoded with the new ones, so that a space between is not lost, but
            not given.

    Example:
        Where "é" is two tokens, feeding them one by one gives "" and then "é".
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._window = list(context[-CONTEXT_TOKENS:])
        self._given = tokenizer.decode(self._window) if self._window else ""
        self._fixed = len(self._window)

    def feed(self, token: int) -> str:
        """Take one token and return the characters that became whole with it."""
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        if text.endswith(UNFINISHED) or len(text) <= len(self._given):
            return ""
        return self._give(text)

    def finish(self) -> str:
        """Return the rest, incomplete characters as replacement characters."""
        text = self._tokenizer.decode(self._window)
        return self._give(text) if len(text) > len(self._given) else ""

    def _give(self, text: str) -> str:
        new = text[len(self._given) :]
        # Decode on from the latest tokens alone, so that a long reply is not decoded again and again. The piece
        # given last stays in front, because some decoders treat the first piece of a text in their own way.
        self._window = self._window[self._fixed :] if self._fixed < len(self._window) else self._window
        self._fixed = len(self._window)
        self._given = self._tokenizer.decode(self._window)
        return new


class StopFilter:
    """Lets text through up to the first stop string, holding back what may be the beginning of one.

    A stop string may spell control tokens, alone or among other text, although their text is not shown.

    Args:
        stops: The stop strings.
        control_tokens: The spelling of every control token, with its id.

    Example:
        With the stop "###", feeding "a#", "#", "b" gives "a", "", "##b"; feeding "###" gives "" and sets
        ``stopped``.
    """

    def __init__(self, stops: Sequence[str], control_tokens: Mapping[str, int] | None = None) -> None:
        known = control_tokens or {}
        self._stops = tuple(stops)
        # In these a control token is one character, and one that no decoded text holds: half a surrogate pair.
        self._controlled: tuple[str, ...] = ()
        self._marks: dict[int, str] = {}
        if any(text in stop for stop in stops for text in known if text):
            self._mark_control_tokens(known)
        self._held = ""
        self.stopped = False

    def _mark_control_tokens(self, known: Mapping[str, int]) -> None:
        self._marks = {id: chr(min(FIRST_MARK + at, LAST_MARK)) for at, id in enumerate(known.values())}
        longest_first = sorted(filter(None, known), key=len, reverse=True)
        spelled = re.compile("|".join(map(re.escape, longest_first)))
        self._controlled = tuple(
            spelled.sub(lambda found: self._marks[known[found[0]]], stop)
            for stop in self._stops
            if spelled.search(stop)
        )

    def feed(self, text: str, token: int | None = None) -> str:
        """Take text, and the token that ended it, and return what may be shown."""
        if self.stopped:
            return ""
        mark = "" if token is None else self._marks.get(token, "")
        held = self._held + text + mark
        plain = MARKS.sub("", held) if self._marks else held
        ends = [at for at in (plain.find(stop) for stop in self._stops) if at >= 0]
        ends += [
            len(MARKS.sub("", held[:at])) for at in (held.find(stop) for stop in self._controlled) if at >= 0
        ]
        if ends:
            self.stopped, self._held = True, ""
            return plain[: min(ends)]
        keep = max((_overlap(plain, stop) for stop in self._stops), default=0)
        marked = max((_overlap(held, stop) for stop in self._controlled), default=0)
        keep = max(keep, len(MARKS.sub("", held[len(held) - marked :])))
        shown = plain[: len(plain) - keep]
        self._held = held[_skip(held, len(shown)) :] if self._marks else plain[len(shown) :]
        return shown

    def finish(self) -> str:
        """Return what was held back, once no more text can come."""
        held, self._held = self._held, ""
        return MARKS.sub("", held)


def _skip(held: str, shown: int) -> int:
    """Return where the first ``shown`` characters of a text end, marks not counted."""
    at = 0
    while shown:
        shown -= not MARKS.match(held, at)
        at += 1
    return at


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of ``text`` that is a true beginning of ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
