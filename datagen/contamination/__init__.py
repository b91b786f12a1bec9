"""Overlap of tasks and answers with evaluation sets, to keep test questions out of the training data.

Three rules, on the tokens of the near-duplicate filter (:mod:`datagen.dedup.words`). Lengths are in words: in scripts
without spaces two characters (Chinese, Japanese) or three (Thai, Khmer and others) are worth one, so that 13 words are
26 Chinese characters.

- **ngram**: 13 words in a row that stand in an evaluation question, passage or choice as well, and are not the
  language of every exam (:mod:`datagen.contamination.ngrams`).
- **rouge-l**: F1 above the threshold between an evaluation text of 13 or more words and the instruction, the input,
  both together, the answer, or the stretch of one of these that lines up with the evaluation text: where both share
  runs of five words.
- **whole-text**, for evaluation questions of fewer than 13 words, of which the other two say nothing or too much: the
  question is the whole instruction or the whole input, token for token, or with other words of asking alone ("list
  the early signs of gout" and "what are the early signs of gout"). From 8 words on, standing anywhere token for token
  is enough. An item with an input of its own counts only together with it, and one that speaks of its choices ("which
  of these") only together with them, in any order; so does every question of fewer than 5 words in another script,
  whose words for that are not known here.

A question that several items ask of different inputs or passages ("answer from the patient's description") tells of no
item: only its input or passage does.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rapidfuzz.distance import LCSseq

from datagen.contamination.evaluation_files import EvaluationFile, Item, read_evaluation
from datagen.contamination.ngrams import Alphabet, NgramIndex
from datagen.dedup import RougeFilter, ends, f_measure, rouge_l_of, tokenize, word_count
from datagen.errors import ConfigError, DataError
from datagen.phrases import words_of_list

NGRAM = 13
ROUGE_L = 0.7
ANYWHERE = 8
SEED = 5
COMMON_SEED = 10
_ASKING = words_of_list("asking words")
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
    """A question that n-grams cannot stand for: its item, its tokens, and what must stand with it."""

    number: int
    tokens: tuple[str, ...]
    text: str
    companions: tuple[tuple[str, ...], ...]


class Benchmarks:
    """Evaluation sets, indexed, against which any number of tasks and answers can be checked.

    Args:
        files: Evaluation files; see :func:`datagen.contamination.evaluation_files.read_evaluation` for their formats.
        ngram: Words in a row that count as an overlap.
        rouge_l: F1 in [0, 1] above which a text counts as a paraphrase of an evaluation text.

    Raises:
        ConfigError: A limit is out of range.
        DataError: A file is missing, broken, or of an unknown format.
    """

    def __init__(self, files: Sequence[str | Path], ngram: int = NGRAM, rouge_l: float = ROUGE_L) -> None:
        if ngram < SEED:
            raise ConfigError("the n-gram length is too small", found=ngram, expected=f"at least {SEED}")
        self.ngram, self.rouge_l = ngram, rouge_l
        self.files = _told_apart([read_evaluation(spec) for spec in files])
        for file in self.files:
            _refuse_wordless(file)
        self._items = [(file, item) for file in self.files for item in file.items]
        self._joined = any(item.input for _, item in self._items)
        self._alphabet = Alphabet()
        self._ngrams = NgramIndex(ngram)
        # Texts of at least n words: in the pool, as characters, their items; where their short runs stand.
        self._pool = RougeFilter(threshold=rouge_l)
        self._encoded: list[str] = []
        self._seed_ends: list[Sequence[int]] = []
        self._owners: list[int] = []
        self._seeds: dict[str, list[tuple[int, int]]] = {}
        # Questions of fewer words, by the tokens that are no words of asking, and by their first eight words.
        self._shorts: defaultdict[tuple[str, ...], list[_Short]] = defaultdict(list)
        self._starts: defaultdict[str, list[_Short]] = defaultdict(list)
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
        return self._check({field: tokenize(text) for field, text in fields.items()})

    def check_answer(self, answer: str) -> Leak | None:
        """Return the first overlap of an answer with an evaluation item, or None."""
        return self._check({"answer": tokenize(answer)})

    def described(self) -> list[dict[str, Any]]:
        """Return name, SHA-256, fields read and number of items of every file."""
        return [
            {"file": f.name, "sha256": f.sha256, "fields": list(f.fields), "items": len(f.items)}
            for f in self.files
        ]

    def _index(self) -> None:
        general = _general_questions(item for _, item in self._items)
        texts = [
            [
                tokenize(text)
                for text in (item.question, item.input, *item.passages, *item.choices)
                if text not in general
            ]
            for _, item in self._items
        ]
        self._ngrams.build(texts, self._alphabet)
        if len(self._alphabet) > Alphabet.CAPACITY:
            raise DataError("the evaluation files hold more than a million different words")
        self._stranger = "x" * (
            1 + max((len(token) for each in texts for text in each for token in text), default=0)
        )
        for number, (_, item) in enumerate(self._items):
            self._enter(number, item, item.question in general)
        self._plant()

    def _enter(self, number: int, item: Item, general: bool) -> None:
        """Enter the long texts of an item into the ROUGE-L pool, a short or general question into lists of its own."""
        both = f"{item.question}\n{item.input}" if item.input else ""
        telling = () if general else (item.question, both)
        for text in (*telling, item.input, *item.passages):
            tokens = tokenize(text)
            if word_count(tokens) >= self.ngram:
                self._pool.add(text)
                self._encoded.append(self._alphabet.learn(tokens))
                self._seed_ends.append(ends(tokens, SEED))
                self._owners.append(number)
        tokens = tokenize(item.question)
        words = word_count(tokens)
        if tokens and (general or words < self.ngram):
            parts = [item.input] if item.input else []
            parts += item.passages if general else ()
            parts += item.choices if general or _may_choose(tokens, words) else ()
            companions = tuple(tuple(tokenize(part)) for part in parts)
            short = _Short(number, tuple(tokens), item.question, companions)
            self._shorts[_content(tokens)].append(short)
            if words >= ANYWHERE:
                self._starts[self._alphabet.learn(tokens)[: ends(tokens, ANYWHERE)[0]]].append(short)

    def _plant(self) -> None:
        """Note where every run of five words stands, but for those of many texts."""
        seeds: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for text, encoded in enumerate(self._encoded):
            for at, end in enumerate(self._seed_ends[text]):
                seeds[encoded[at:end]].append((text, at))
        self._seeds = {seed: places for seed, places in seeds.items() if len(places) < COMMON_SEED}

    def _check(self, fields: Mapping[str, list[str]]) -> Leak | None:
        if not self._items:
            return None
        encoded = {field: self._alphabet.encode(tokens) for field, tokens in fields.items()}
        return (
            self._find_ngram(fields, encoded)
            or self._find_short(fields, encoded)
            or self._find_paraphrase(fields)
            or self._find_stretch(fields, encoded)
        )

    def _find_ngram(self, fields: Mapping[str, list[str]], encoded: Mapping[str, str]) -> Leak | None:
        """Look in both fields together last: an n-gram that is in none alone runs across their border."""
        for field, text in encoded.items():
            if found := self._ngrams.find(text, ends(fields[field], self.ngram)):
                number, start, end = found
                return self._leak(number, "ngram", field, " ".join(fields[field][start:end]))
        return None

    def _find_short(self, fields: Mapping[str, list[str]], encoded: Mapping[str, str]) -> Leak | None:
        everything = list(fields.values())[-1]
        for field, tokens in fields.items():
            found = list(self._shorts.get(_content(tokens), ())) if field != "answer" else []
            found = [short for short in found if self._asks_the_same(tokens, short)]
            text = encoded[field]
            for place, end in enumerate(ends(tokens, ANYWHERE)) if self._starts else ():
                for short in self._starts.get(text[place:end], ()):
                    if tuple(tokens[place : place + len(short.tokens)]) == short.tokens:
                        found.append(short)
            for short in found:
                if all(_stands_in(each, everything) for each in short.companions):
                    return self._leak(short.number, "whole-text", field, short.text)
        return None

    def _asks_the_same(self, tokens: Sequence[str], short: _Short) -> bool:
        """Say whether a text is a short question; with one or two words of content it must be so to the letter."""
        if tuple(tokens) == short.tokens:
            return True
        return len(_content(tokens)) > 2 and rouge_l_of(tokens, short.tokens) > self.rouge_l

    def _find_paraphrase(self, fields: Mapping[str, list[str]]) -> Leak | None:
        for field, tokens in fields.items():
            if field == "task" and not self._joined:
                continue
            # What no evaluation text holds is one word to the pool, which so keeps its size.
            known = [token if token in self._alphabet else self._stranger for token in tokens]
            near = self._pool.nearest_of(known)
            if near is not None:
                owner = self._owners[near.index]
                return self._leak(owner, "rouge-l", field, near.text, near.score)
        return None

    def _find_stretch(self, fields: Mapping[str, list[str]], encoded: Mapping[str, str]) -> Leak | None:
        """Compare the stretches of a text that share runs of five words with an evaluation text."""
        for field, text in encoded.items():
            starts: defaultdict[int, list[int]] = defaultdict(list)
            for place, end in enumerate(ends(fields[field], SEED)):
                for number, at in self._seeds.get(text[place:end], ()):
                    starts[number].append(place - at)
            for number, begins in starts.items():
                own = self._encoded[number]
                begin = max(0, sorted(begins)[len(begins) // 2])
                stretch = text[begin : begin + len(own)]
                score = f_measure(LCSseq.similarity(own, stretch), len(own), len(stretch))
                if score > self.rouge_l:
                    owner = self._owners[number]
                    return self._leak(owner, "rouge-l", field, self._pool.texts[number], score)
        return None

    def _leak(self, number: int, kind: str, field: str, evidence: str, score: float | None = None) -> Leak:
        file, item = self._items[number]
        return Leak(file.name, item.id or item.where.rpartition("/")[2], kind, field, evidence, score)


def _told_apart(files: Sequence[EvaluationFile]) -> list[EvaluationFile]:
    """Put their folder before the names of files that have the same name."""
    names = Counter(file.name for file in files)
    return [
        dataclasses.replace(file, name="/".join(Path(file.path).absolute().parts[-2:]))
        if names[file.name] > 1
        else file
        for file in files
    ]


def _refuse_wordless(file: EvaluationFile) -> None:
    """Refuse a file that nothing could overlap with, such as a list of formulas: it would always pass."""
    silent = sum(not tokenize(item.question) for item in file.items)
    if 2 * silent > len(file.items):
        raise DataError(
            "most questions of the evaluation file contain no words to compare",
            where=file.path,
            found=f"{silent:,} of {len(file.items):,} without a word or a number",
            expected="texts in any language",
            remedy="leave the file out, or name the field that holds the question: FILE:FIELD",
        )


def _general_questions(items: Iterable[Item]) -> set[str]:
    """Return the questions that are asked of several inputs or passages, and so tell of no item by themselves.

    Such as "answer as a doctor from the patient's description", which iCliniq asks a thousand times. Short ones are
    general with several sets of choices, too ("which of the following is true").
    """
    settings: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for item in items:
        choices = item.choices if word_count(tokenize(item.question)) < NGRAM else ()
        settings[item.question].add((item.input, *item.passages, *choices))
    return {question for question, several in settings.items() if len(several) > 1}


def _may_choose(tokens: Sequence[str], words: int) -> bool:
    """Say whether a short question may be about its choices; of other scripts the words for that are not known."""
    return bool(_CHOOSES & set(tokens)) or (words < SEED and not all(map(str.isascii, tokens)))


def _content(tokens: Iterable[str]) -> tuple[str, ...]:
    """Return the tokens that are no words of asking, or all of them if there are no others."""
    tokens = tuple(tokens)
    return tuple(token for token in tokens if token not in _ASKING) or tokens


def _stands_in(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Say whether some tokens stand in others, in a row."""
    return f" {' '.join(part)} " in f" {' '.join(whole)} "
