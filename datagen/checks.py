"""What a check of a task or of an answer is, and how it objects."""

import dataclasses
from collections.abc import Callable
from typing import Any

from datagen.client import Reply
from datagen.records import SeedTask


@dataclasses.dataclass(frozen=True)
class Objection:
    """Why a task or an answer is rejected; ``details`` go into its row of ``rejected.jsonl`` under their own keys."""

    reason: str
    details: dict[str, Any] = dataclasses.field(default_factory=dict)


TaskCheck = Callable[[SeedTask], Objection | SeedTask | None]
AnswerCheck = Callable[[SeedTask, Reply], Objection | Reply | None]
