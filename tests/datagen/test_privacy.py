"""Identifiers are found by kind and place, near-misses are left alone, and a masked text is clean."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from datagen.privacy import KINDS, find, mask


def test_a_note_is_masked_by_kind() -> None:
    note = "Mrs. Anna Lindqvist (MRN 88213-7), seen 03/05/2021, lives at 12 Elm Street. BP 120/80, Hb 13.2."
    hits = find(note)
    assert all(note[hit.start : hit.end] == hit.text for hit in hits)
    assert (
        mask(note, hits) == "Mrs. [NAME] (MRN [RECORD]), seen [DATE], lives at [ADDRESS]. BP 120/80, Hb 13.2."
    )


def test_a_name_is_masked_wherever_it_stands_alone() -> None:
    text = "Dr. Osler saw her. Osler noted Osler nodes and Osler's nodes. oslerian habits."
    masked = mask(text, find(text))
    assert masked == "Dr. [NAME] saw her. [NAME] noted Osler nodes and Osler's nodes. oslerian habits."


@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=6), st.text(max_size=30))
def test_a_masked_text_masks_to_itself(kinds: list[str], between: str) -> None:
    text = between.join(f"Dr. [{kind}], MRN: [{kind}], born on [{kind}], call [{kind}]" for kind in kinds)
    once = mask(text, find(text))
    assert mask(once, find(once)) == once


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    hits = find(text)
    assert all(0 <= a.start < a.end <= b.start for a, b in pairwise(hits))
