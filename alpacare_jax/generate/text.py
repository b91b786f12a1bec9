"""From tokens to text as they come: whole characters only, and nothing that may yet become a stop string."""

from collections.abc import Sequence

from alpacare_jax.tokenizer import Tokenizer

UNFINISHED = "\ufffd"
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
        """Return what is left, unfinished characters as replacement characters."""
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

    Args:
        stops: The stop strings.

    Example:
        With the stop "###", feeding "a#", "#", "b" gives "a", "", "##b"; feeding "###" gives "" and sets
        ``stopped``.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """Take text and return what may be shown."""
        if self.stopped:
            return ""
        held = self._held + text
        ends = [at for at in (held.find(stop) for stop in self._stops) if at >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return held[: min(ends)]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> str:
        """Return what was held back, once no more text can come."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of ``text`` that is a true beginning of ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
