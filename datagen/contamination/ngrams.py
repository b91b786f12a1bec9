"""The n-grams that identify evaluation items, without those common to all exams.

Real exam questions share whole sentences: "his pulse is 80/min, respirations are 13/min, and oxygen saturation is
98%", "which of the following is the most appropriate next step in management". An n-gram made of such phrases tells of
no item. So one tells only if at least half of its runs of four tokens stand in fewer than three different texts,
where all numbers are alike; an item none of whose n-grams tells keeps them all.

Lengths are in words: in scripts without spaces between words an n-gram is as many characters as n words are worth
(:func:`datagen.dedup.ends`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate

from datagen.dedup import ends

RUN = 4
COMMON = 3


class Alphabet:
    """Writes tokens as one character each, so that runs of tokens are slices of a string.

    Example:
        >>> alphabet = Alphabet()
        >>> learnt = alphabet.learn(["which", "nerve", "which"])
        >>> learnt[0] == learnt[2], alphabet.encode(["which", "vein"])[1] == Alphabet.UNKNOWN
        (True, True)
    """

    UNKNOWN = "\0"
    CAPACITY = 0x10FFFE

    def __init__(self) -> None:
        self._characters: dict[str, str] = {}

    def __contains__(self, token: str) -> bool:
        """Say whether a token was learnt."""
        return token in self._characters

    def __len__(self) -> int:
        """Return how many tokens were learnt."""
        return len(self._characters)

    def learn(self, tokens: Sequence[str]) -> str:
        """Encode tokens, adding those that are new."""
        characters = self._characters
        for token in tokens:
            if token not in characters:
                # Beyond the capacity tokens share a character; the caller refuses so many.
                characters[token] = chr(min(len(characters) + 1, self.CAPACITY + 1))
        return "".join([characters[token] for token in tokens])

    def encode(self, tokens: Sequence[str]) -> str:
        """Encode tokens; those that were not learnt become :attr:`UNKNOWN`."""
        get = self._characters.get
        return "".join([get(token, self.UNKNOWN) for token in tokens])


class NgramIndex:
    """Finds, in an encoded text, n-grams that tell of an item.

    Args:
        n: Words in an n-gram.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._items: dict[str, int] = {}

    def build(self, items: Sequence[Sequence[Sequence[str]]], alphabet: Alphabet) -> None:
        """Enter the texts of all items.

        Args:
            items: For each item its texts, each a list of tokens.
            alphabet: Learns the tokens.
        """
        alike = Alphabet()
        common = _common_runs(items, alike)
        for number, texts in enumerate(items):
            telling: list[str] = []
            others: list[str] = []
            for tokens in texts:
                encoded, shapes = alphabet.learn(tokens), alike.learn(_numbers_alike(tokens))
                run_ends = ends(tokens, RUN)
                rare = list(accumulate((run not in common for run in _runs(shapes, run_ends)), initial=0))
                after = 0
                for at, end in enumerate(ends(tokens, self.n)):
                    while after < len(run_ends) and run_ends[after] <= end:
                        after += 1
                    tells = 2 * (rare[after] - rare[at]) >= after - at
                    (telling if tells else others).append(encoded[at:end])
            for gram in telling or others:
                self._items.setdefault(gram, number)

    def find(self, encoded: str, gram_ends: Sequence[int]) -> tuple[int, int, int] | None:
        """Find the first n-gram that tells of an item.

        Args:
            encoded: A text.
            gram_ends: Where its n-grams end, as :func:`datagen.dedup.ends` says.

        Returns:
            The item, and where the n-gram begins and ends, in tokens; None if no n-gram tells of an item.
        """
        at, items = 0, self._items
        for run in encoded.split(Alphabet.UNKNOWN):
            after = at + len(run)
            # A token is worth a word at most, so that shorter runs hold no n-gram.
            for place, end in enumerate(gram_ends[at:after], at) if len(run) >= self.n else ():
                if end > after:
                    break
                number = items.get(encoded[place:end])
                if number is not None:
                    return number, place, end
            at = after + 1
        return None


def _common_runs(items: Sequence[Sequence[Sequence[str]]], alike: Alphabet) -> set[str]:
    """Return the runs of four tokens that stand in many different texts; a text given twice counts once."""
    shapes = {alike.learn(_numbers_alike(tokens)): ends(tokens, RUN) for texts in items for tokens in texts}
    counts = Counter(run for shape, run_ends in shapes.items() for run in set(_runs(shape, run_ends)))
    return {run for run, count in counts.items() if count >= COMMON}


def _numbers_alike(tokens: Sequence[str]) -> list[str]:
    return ["0" if token[0].isdigit() else token for token in tokens]


def _runs(encoded: str, run_ends: Sequence[int]) -> Iterator[str]:
    return (encoded[at:end] for at, end in enumerate(run_ends))
