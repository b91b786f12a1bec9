"""Cases of one kind for ``pytest.mark.parametrize``: some stand for all in ``make test``, the rest are slow."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(kept: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """Return the cases, each in its place, and mark those slow that are not kept.

    Raises:
        ValueError: A case to keep is not among the cases.
    """
    kept, cases = list(kept), list(cases)
    if missing := [case for case in kept if case not in cases]:
        raise ValueError(f"no such cases: {missing}")
    return [
        case
        if case in kept
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]
