"""Overlap of tasks and answers with evaluation sets, so that no test question is learnt by heart.

Three rules, on the tokens of the near-duplicate filter (``[a-z0-9]+``, lower case):

- **n-gram**: 13 tokens in a row that stand in an evaluation question, passage or choice as well. A run that stands in
  five or more items is the language of the exam ("which of the following is the most likely cause of this patient's
  symptoms") and tells nothing, unless an item has no other.
- **ROUGE-L**: F1 above the threshold between an evaluation text of 13 or more tokens and the instruction, the input,
  both together, the answer, or one paragraph of these.
- **whole text**, for evaluation questions of fewer than 13 tokens, of which the other two say nothing or too much:
  the question is the whole instruction or the whole input, token for token or with other words of asking alone ("what
  are the signs of gout" and "list signs of gout"). From 8 tokens on, standing anywhere token for token is enough. An
  item with an input of its own counts only together with it, and one that speaks of its choices ("which of these")
  only together with them, in any order.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datagen.dedup import RougeFilter, rouge_l, tokenize
from datagen.errors import ConfigError, DataError
from datagen.evaluation_files import EvaluationFile, Item, read_evaluation

NGRAM = 13
ROUGE_L = 0.7
BOILERPLATE = 5
ANYWHERE = 8
_UNKNOWN = "\0"
_LARGEST_VOCABULARY = 0x10FFFF
_ASKING_WORDS = """
    a about also an and any are as be been briefly by can compare could define describe detail did discuss
    do does enumerate examples explain five for four from get give had has have help how i identify if
    in into is it its kindly list main me mention my name need of on or outline please provide s several
    should some state such summarise summarize tell ten that the their them there these they this those
    three to two understand us was we were what when where which who why will with would write you your"""
_ASKING = frozenset(_ASKING_WORDS.split())
_CHOOSES = frozenset(("following", "these"))


@dataclasses.dataclass(frozen=True)
class Leak:
    """An overlap of a task or an answer with an evaluation item.

    Attributes:
        file: Name of the evaluation file.
        item: The item's own id, or its place in the file.
        kind: "ngram", "rouge-l" or "whole-text".
        field: Where the overlap stands: "instruction", "input", "task" (both together) or "answer".
        evidence: The n-gram, or the evaluation text that is too near.
        score: ROUGE-L F1; None for the other kinds.
    """

    file: str
    item: str
    kind: str
    field: str
    evidence: str
    score: float | None = None

    def details(self) -> dict[str, Any]:
        """Return the leak as rejection rows carry it."""
        found = {"evaluation_file": self.file, "evaluation_item": self.item, "overlap": self.kind}
        found |= {"overlap_in": self.field, "overlap_text": self.evidence}
        return found if self.score is None else found | {"rouge_l": round(self.score, 4)}


@dataclasses.dataclass(frozen=True)
class _Short:
    """A question too short for n-grams: its item, its tokens, and what must stand with it."""

    number: int
    tokens: tuple[str, ...]
    text: str
    companions: tuple[tuple[str, ...], ...]


class Benchmarks:
    """Evaluation sets, indexed, against which any number of tasks and answers can be checked.

    Args:
        files: Evaluation files; see :func:`datagen.evaluation_files.read_evaluation` for their formats.
        ngram: Tokens in a row that count as an overlap.
        rouge_l: F1 in [0, 1] above which a text counts as a paraphrase of an evaluation text.

    Raises:
        ConfigError: A limit is out of range, or a file is named twice.
        DataError: A file is missing, broken, or of an unknown format.
    """

    def __init__(self, files: Sequence[str | Path], ngram: int = NGRAM, rouge_l: float = ROUGE_L) -> None:
        if ngram < 5:
            raise ConfigError(
                "the n-grams are too short to tell anything", found=ngram, expected="at least 5"
            )
        self.ngram, self.rouge_l = ngram, rouge_l
        self.files: list[EvaluationFile] = [read_evaluation(spec) for spec in files]
        self._items: list[tuple[EvaluationFile, Item]] = [
            (file, item) for file in self.files for item in file.items
        ]
        self._characters: dict[str, str] = {}
        self._pool = RougeFilter(threshold=rouge_l)
        self._pool_items: list[int] = []
        self._shorts: dict[tuple[str, ...], list[_Short]] = {}
        self._short_starts: dict[str, list[_Short]] = {}
        self._ngrams: dict[str, int] = {}
        self._index()

    def check_task(self, instruction: str, given: str = "") -> Leak | None:
        """Return the first overlap of a task with an evaluation item, or None.

        Args:
            instruction: The instruction.
            given: Its input, "" where there is none.
        """
        fields = {"instruction": instruction}
        if given.strip():
            fields |= {"input": given, "task": f"{instruction}\n{given}"}
        return self._check(fields)

    def check_answer(self, answer: str) -> Leak | None:
        """Return the first overlap of an answer with an evaluation item, or None."""
        return self._check({"answer": answer})

    def described(self) -> list[dict[str, Any]]:
        """Return name, SHA-256, fields read and number of items of every file."""
        return [
            {"file": f.name, "sha256": f.sha256, "fields": list(f.fields), "items": len(f.items)}
            for f in self.files
        ]

    def _check(self, fields: dict[str, str]) -> Leak | None:
        if not self._items:
            return None
        tokens = {field: tokenize(text) for field, text in fields.items()}
        # Both together come first to the n-grams, which may run across the border.
        for field in reversed(fields):
            if leak := self._find_ngram(field, tokens[field]):
                return self._placed(leak, fields, tokens)
        for field in fields:
            if leak := self._find_short(field, tokens[field], tokens):
                return leak
        for field, text in fields.items():
            if leak := self._find_paraphrase(field, text):
                return leak
        return None

    def _placed(self, leak: Leak, fields: dict[str, str], tokens: dict[str, list[str]]) -> Leak:
        """Name the smallest field that holds the whole n-gram."""
        for field in fields:
            if f" {leak.evidence} " in f" {' '.join(tokens[field])} ":
                return dataclasses.replace(leak, field=field)
        return leak

    def _index(self) -> None:
        counts: Counter[str] = Counter()
        own: list[set[str]] = []
        for number, (_, item) in enumerate(self._items):
            grams: set[str] = set()
            for text in self._texts(number, item):
                encoded = self._encode(tokenize(text), grow=True)
                grams |= {encoded[at : at + self.ngram] for at in range(len(encoded) - self.ngram + 1)}
            counts.update(grams)
            own.append(grams)
        if len(self._characters) >= _LARGEST_VOCABULARY:
            raise DataError("the evaluation files hold more than a million different words")
        for number, grams in enumerate(own):
            telling = [gram for gram in grams if counts[gram] < BOILERPLATE]
            for gram in telling or grams:
                self._ngrams.setdefault(gram, number)

    def _texts(self, number: int, item: Item) -> Iterator[str]:
        """Yield the texts whose n-grams give the item away; enter the long ones into the ROUGE-L pool."""
        for text in (item.question, item.input, *item.passages):
            self._enter(number, text)
            yield text
        if item.input:
            self._enter(number, f"{item.question}\n{item.input}")
        yield from item.choices
        self._enter_short(number, item)

    def _enter(self, number: int, text: str) -> None:
        if len(tokenize(text)) >= self.ngram and self._pool_add(text):
            self._pool_items.append(number)

    def _pool_add(self, text: str) -> bool:
        # What is nearer than the threshold to a text of the pool is entered all the same: both must be found.
        self._pool._add(text, *self._pool._encode(text))
        return True

    def _enter_short(self, number: int, item: Item) -> None:
        tokens = tuple(tokenize(item.question))
        if not tokens or len(tokens) >= self.ngram:
            return
        companions = [item.input] if item.input else []
        if _CHOOSES & set(tokens):
            companions += item.choices
        short = _Short(number, tokens, item.question, tuple(tuple(tokenize(each)) for each in companions))
        self._shorts.setdefault(_content(tokens), []).append(short)
        if len(tokens) >= ANYWHERE:
            start = self._encode(tokens, grow=True)[:ANYWHERE]
            self._short_starts.setdefault(start, []).append(short)

    def _encode(self, tokens: Iterable[str], *, grow: bool = False) -> str:
        """Write tokens as one character each, so that n-grams are slices of a string."""
        if grow:
            for token in tokens:
                if token not in self._characters:
                    self._characters[token] = chr(min(len(self._characters) + 1, _LARGEST_VOCABULARY))
        characters = self._characters
        return "".join([characters.get(token, _UNKNOWN) for token in tokens])

    def _find_ngram(self, field: str, tokens: list[str]) -> Leak | None:
        encoded, at = self._encode(tokens), 0
        for run in encoded.split(_UNKNOWN):
            for place in range(len(run) - self.ngram + 1):
                number = self._ngrams.get(run[place : place + self.ngram])
                if number is not None:
                    gram = " ".join(tokens[at + place : at + place + self.ngram])
                    return self._leak(number, "ngram", field, gram)
            at += len(run) + 1
        return None

    def _find_short(self, field: str, tokens: list[str], all_tokens: dict[str, list[str]]) -> Leak | None:
        everything = [token for each in all_tokens.values() for token in each]
        if field != "answer":
            for short in self._shorts.get(_content(tokens), ()):
                same = tuple(tokens) == short.tokens or rouge_l(" ".join(tokens), short.text) > self.rouge_l
                if same and all(_stands_in(each, everything) for each in short.companions):
                    return self._leak(short.number, "whole-text", field, short.text)
        if self._short_starts:
            encoded = self._encode(tokens)
            for place in range(len(encoded) - ANYWHERE + 1):
                for short in self._short_starts.get(encoded[place : place + ANYWHERE], ()):
                    whole = tuple(tokens[place : place + len(short.tokens)]) == short.tokens
                    if whole and all(_stands_in(each, everything) for each in short.companions):
                        return self._leak(short.number, "whole-text", field, short.text)
        return None

    def _find_paraphrase(self, field: str, text: str) -> Leak | None:
        paragraphs = text.split("\n")
        for part in [text, *(paragraphs if len(paragraphs) > 1 else ())]:
            near = self._pool.nearest(part)
            if near is not None:
                return self._leak(self._pool_items[near.index], "rouge-l", field, near.text, near.score)
        return None

    def _leak(self, number: int, kind: str, field: str, evidence: str, score: float | None = None) -> Leak:
        file, item = self._items[number]
        return Leak(file.name, item.id or item.where.rpartition("/")[2], kind, field, evidence, score)


def _content(tokens: Iterable[str]) -> tuple[str, ...]:
    """Return the tokens that are no words of asking, or all of them if there are no others."""
    tokens = tuple(tokens)
    return tuple(token for token in tokens if token not in _ASKING) or tokens


def _stands_in(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Say whether some tokens stand in others, in a row."""
    return f" {' '.join(part)} " in f" {' '.join(whole)} "
