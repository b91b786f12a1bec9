"""Rows of any instruction data set, kept clear of evaluation items and of personal identifiers."""

import dataclasses
from typing import Any

from datagen.contamination import Benchmarks, Leak
from datagen.privacy import Detector, find, mask
from datagen.records import normal_input
from datagen.safety import IDENTIFIER, OVERLAP, identifiers

TEXT_FIELDS = ("instruction", "input", "output", "response")


@dataclasses.dataclass
class Cleaner:
    """Judges rows one by one, as a synthesis run judges its tasks and answers.

    Attributes:
        benchmarks: Evaluation sets that must not leak, or None.
        privacy: What becomes of identifiers: "off", "report", "drop" or "mask".
        detector: Finds identifiers beside the patterns, or None.
        places: Kind and place of every identifier seen so far, with the place of its row.

    Example:
        >>> cleaner = Cleaner(privacy="mask")
        >>> cleaner.clean({"instruction": "Write to Mrs. Lind.", "id": 1}, "in.jsonl:1")
        ({'instruction': 'Write to Mrs. [NAME].', 'id': 1}, None)
    """

    benchmarks: Benchmarks | None = None
    privacy: str = "off"
    detector: Detector | None = None
    places: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def clean(self, row: dict[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return the row, masked if that is the policy, and why it must go, or None.

        Args:
            row: A row with any of the fields instruction, input, output and response.
            where: Its place, such as ``in.jsonl:12``.
        """
        texts = {field: row[field] for field in TEXT_FIELDS if isinstance(row.get(field), str)}
        if leak := self._leak(texts):
            return row, {"reason": OVERLAP} | leak.details()
        found = list(identifiers(texts, self.detector)) if self.privacy != "off" else []
        if not found:
            return row, None
        action = {"report": "reported", "drop": "dropped", "mask": "masked"}[self.privacy]
        self.places += ({"row": where, "action": action} | place for place in found)
        if self.privacy == "drop":
            return row, {"reason": IDENTIFIER, "identifiers": found}
        if self.privacy == "mask":
            row = row | {field: mask(text, find(text, self.detector)) for field, text in texts.items()}
        return row, None

    def _leak(self, texts: dict[str, str]) -> Leak | None:
        if self.benchmarks is None:
            return None
        answer = texts.get("output") or texts.get("response") or ""
        task = self.benchmarks.check_task(texts.get("instruction", ""), normal_input(texts.get("input", "")))
        return task or self.benchmarks.check_answer(answer)
