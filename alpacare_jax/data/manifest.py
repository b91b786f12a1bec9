"""The manifest of a packed data set: what it was made from, how, and which files belong to it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alpacare_jax.data.examples import Example
from alpacare_jax.errors import DataError
from alpacare_jax.tokenizer import Tokenizer
from datagen.decoding import read_json_object
from datagen.files import write_json

KIND = "alpacare-packed"
FORMAT_VERSION = 1
FILE = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What packing did. ``fill`` is the packing efficiency: the share of positions that hold a token.

    ``left_out`` and ``truncated`` count examples longer than a sequence; ``prompt_too_long`` counts those among
    the left-out ones of which not one response token would have fitted.
    """

    records: int
    examples: int
    rows: int
    slots: int
    tokens: int
    supervised_tokens: int
    fill: float
    longest_example: int
    left_out: int = 0
    prompt_too_long: int = 0
    truncated: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of ``manifest.json``; the file is written last, so a folder without it is incomplete."""

    split: str
    row_length: int
    template: str = ""
    packing: str = ""
    tokenizer: dict[str, Any]
    statistics: Statistics
    left_out_ids: list[str] = dataclasses.field(default_factory=list)
    truncated_ids: list[str] = dataclasses.field(default_factory=list)
    source: dict[str, Any]
    shards: list[dict[str, Any]]
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def end_ids(self) -> list[int]:
        """The tokens at which training teaches answers to end; those of older chat data are not known."""
        older = [self.tokenizer["eos_id"]] if self.template == "alpaca" else []
        return [int(index) for index in self.tokenizer.get("end_ids", older)]

    @property
    def largest_id(self) -> int:
        """The largest token id in the rows; of older data, the largest of the tokenizer."""
        return int(self.tokenizer.get("largest_id", self.tokenizer["vocab_size"] - 1))

    def summary(self) -> list[tuple[str, str]]:
        """Return what packing did as lines of a table: a name and a value each."""
        found = self.statistics
        ends = zip(self.tokenizer["end_tokens"], self.end_ids, strict=True)
        sequences = f"{found.rows:,} of {self.row_length:,} tokens ({self.packing}, {self.template})"
        fingerprint, vocabulary = self.tokenizer["fingerprint"][:16], self.tokenizer["vocab_size"]
        return [
            ("records read", f"{found.records:,}"),
            ("examples packed", f"{found.examples:,}"),
            ("left out, too long", _with_ids(found.left_out, self.left_out_ids)),
            ("truncated, without end token", _with_ids(found.truncated, self.truncated_ids)),
            ("longest example", f"{found.longest_example:,} tokens"),
            ("sequences", sequences),
            ("tokens", f"{found.tokens:,}"),
            ("answers end with", ", ".join(f"{t} (id {i})" for t, i in ends) or "nothing, all are truncated"),
            (
                "supervised tokens",
                f"{found.supervised_tokens:,} ({found.supervised_tokens / found.tokens:.1%})",
            ),
            ("packing efficiency", f"{found.fill:.2%} of {found.slots:,} tokens"),
            ("shards", f"{len(self.shards)}, {sum(s['bytes'] for s in self.shards) / 2**20:.1f} MiB"),
            ("tokenizer", f"{fingerprint}, vocabulary {vocabulary:,}"),
        ]

    def write(self, folder: Path) -> None:
        """Write the manifest into a folder, synced to disk."""
        content = {"kind": KIND, "format_version": FORMAT_VERSION} | dataclasses.asdict(self)
        write_json(folder / FILE, content)


def _with_ids(count: int, ids: list[str]) -> str:
    return f"{count:,}" + (f" ({', '.join(ids[:5])}{', ...' if count > 5 else ''})" if count else "")


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a packed data set and the sizes of its shards.

    Raises:
        DataError: The folder is no packed data set, is incomplete, damaged, or of a newer format.
    """
    path = folder / FILE
    if not path.exists():
        raise DataError(
            "the packed data set is incomplete: it has no manifest"
            if folder.is_dir()
            else "no such data set",
            where=folder,
            expected=f"a folder with {FILE}, as `alpacare pack` writes it",
            remedy="run `alpacare pack` again",
        )
    content = read_kind(folder)
    version = content.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise DataError(
            "the packed data set is of another format",
            where=path,
            found=f"format_version {version}",
            expected=FORMAT_VERSION,
            remedy="run `alpacare pack` of this version again",
        )
    try:
        manifest = Manifest(statistics=Statistics(**content.pop("statistics")), **content)
    except (KeyError, TypeError) as error:
        raise DataError("the manifest is damaged", where=path, found=str(error)) from None
    for shard in manifest.shards:
        file = folder / shard["file"]
        found = file.stat().st_size if file.exists() else None
        if found != shard["bytes"]:
            raise DataError(
                "a shard of the packed data set is missing or cut",
                where=file,
                found="no file" if found is None else f"{found} bytes",
                expected=f"{shard['bytes']} bytes",
                remedy="run `alpacare pack` again, or copy the whole folder once more",
            )
    return manifest


def read_kind(folder: Path) -> dict[str, Any]:
    """Return the content of a packed data set's manifest, of whatever version and state.

    Raises:
        DataError: It is the manifest of something else.
    """
    content = read_json_object(folder / FILE)
    if (kind := content.pop("kind", None)) != KIND:
        raise DataError(
            "this is not the manifest of a packed data set", where=folder / FILE, found=kind, expected=KIND
        )
    return content


def describe_overrun(longest: int, positions: int) -> str | None:
    """Say that sequences go beyond the positions a model knows; None if they do not.

    Args:
        longest: Length of the longest sequence, in tokens.
        positions: The model's ``max_position_embeddings``.

    Example:
        >>> describe_overrun(4096, 2048)
        'sequences of up to 4,096 tokens go beyond the 2,048 positions of the model (max_position_embeddings)'
    """
    if longest <= positions:
        return None
    known = f"the {positions:,} positions of the model (max_position_embeddings)"
    return f"sequences of up to {longest:,} tokens go beyond {known}"


def describe_tokenizer(tokenizer: Tokenizer, examples: Sequence[Example]) -> dict[str, Any]:
    """Return what the manifest says about a tokenizer and the ids it gave.

    Args:
        tokenizer: The tokenizer.
        examples: What it encoded. At the last token of each that is whole, training teaches answers to end; the
            largest id is what a model's table must hold, whatever the tokenizer has beside.
    """
    end_ids = sorted({int(example.tokens[-1]) for example in examples if not example.truncated})
    return {
        "fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "largest_id": max(tokenizer.filler_id, *(int(example.tokens.max()) for example in examples)),
        "bos_id": tokenizer.bos_id if tokenizer.adds_bos else None,
        "eos_id": tokenizer.eos_id,
        "pad_id": tokenizer.filler_id,
        "end_ids": end_ids,
        "end_tokens": [str(tokenizer.backend.convert_ids_to_tokens(index)) for index in end_ids],
    }
