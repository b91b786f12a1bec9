from pathlib import Path

import pytest

from datagen.statistics.roots import find_root

LABELLED = Path(__file__).with_name("labelled_roots.tsv")


def labelled() -> list[tuple[str, str, str]]:
    lines = LABELLED.read_text("utf-8").splitlines()
    return [tuple("" if cell == "-" else cell for cell in line.split("\t")) for line in lines]  # type: ignore


def test_verb_and_object_are_found_in_at_least_95_of_100_labelled_instructions() -> None:
    rows = labelled()
    assert len(rows) >= 130
    found = [(find_root(text), verb, noun) for text, verb, noun in rows]
    verbs = sum(root.verb == verb for root, verb, _ in found)
    both = sum((root.verb, root.object) == (verb, noun) for root, verb, noun in found)
    assert verbs >= 0.98 * len(rows)
    assert both >= 0.95 * len(rows)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("", "other"), ("???", "other"), ("  \n ", "other"), ("Fever.", "other"), ("12 345", "other")],
)
def test_what_has_no_root_is_said_to_have_none(text: str, kind: str) -> None:
    assert find_root(text).kind == kind


def test_a_question_with_a_command_behind_it_is_a_command() -> None:
    root = find_root("What is angina? Describe two typical symptoms.")
    assert (root.kind, root.verb, root.object) == ("command", "describe", "symptom")


def test_no_text_is_too_strange() -> None:
    for text in (
        "List",
        "List ,",
        "Explain to",
        "Compare and",
        "Explain in",
        "List (",
        "Given the, ,",
        "Write 's",
        "a" * 9999,
    ):
        find_root(text)


def test_most_of_the_real_seed_tasks_are_commands(real_data: Path) -> None:
    from datagen.seeds import load_seeds

    roots = [find_root(task.instruction) for task in load_seeds(real_data / "med_seed.json")]
    assert sum(root.kind == "command" for root in roots) >= 0.9 * len(roots)
