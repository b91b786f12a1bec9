"""The errors a user can cause, in one small tree.

Every one of them ends the command with exit status 2 and one message that says what went wrong, where, what was
found, what was expected and what to do about it. ``alpacare_jax.errors`` extends this tree, so that one handler at
the top serves both packages.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A failure that the user can mend.

    Args:
        what: One sentence that names the failure.
        where: The place: ``file:line``, a record id, a tensor path, a config key.
        found: What was there.
        expected: What should have been there.
        remedy: What to do next.

    Examples:
        >>> print(UserError("the seed file has a broken line", where="seeds.jsonl:3", remedy="mend or delete it"))
        the seed file has a broken line
          where:    seeds.jsonl:3
          remedy:   mend or delete it
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        found: object = None,
        expected: object = None,
        remedy: str | None = None,
    ) -> None:
        self.what, self.where, self.found, self.expected, self.remedy = what, where, found, expected, remedy
        super().__init__(what)

    def __str__(self) -> str:
        parts = {"where": self.where, "found": self.found, "expected": self.expected, "remedy": self.remedy}
        lines = [f"  {name + ':':<10}{value}" for name, value in parts.items() if value is not None]
        return "\n".join([self.what, *lines])


class ConfigError(UserError):
    """A configuration key is unknown, has the wrong type or an impossible value."""


class DataError(UserError):
    """A data file or record is broken, empty, or not what it claims to be."""


class ServiceError(UserError):
    """A remote service refused, failed for good, or could not be reached."""


def nearest(found: object, known: Iterable[str], *, most: int = 1, cutoff: float = 0.5) -> list[str]:
    """Return the known names nearest to an unknown one, the nearest first; none where none is near.

    Examples:
        >>> nearest("warmup", ["learning_rate", "warmup_ratio"])
        ['warmup_ratio']
    """
    return difflib.get_close_matches(str(found).lower(), list(known), n=most, cutoff=cutoff)


def did_you_mean(found: object, known: Iterable[str], *, most: int = 1, prefix: str = "") -> str | None:
    """Return a remedy that names the known names nearest to an unknown one, or None where none is near.

    Args:
        found: The unknown name.
        known: The known ones.
        most: How many to name at most.
        prefix: What to write before each.

    Examples:
        >>> did_you_mean("offlod", ["none", "full", "offload"])
        'did you mean offload?'
    """
    near = [prefix + name for name in nearest(found, known, most=most)]
    return f"did you mean {' or '.join(near)}?" if near else None
