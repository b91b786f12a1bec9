"""The documentation says only what is so: its commands, options, files and links exist."""

import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

import alpacare_jax
import datagen
from alpacare_jax.cli import app
from alpacare_jax.cli.verbs import VERBS
from alpacare_jax.train import load_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
GROUP = typer.main.get_command(app)


def commands_in(text: str) -> list[list[str]]:
    """Find the commands of a page: lines of its fenced shell blocks, and code in running text."""
    lines: list[str] = []
    for block in re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines += block.replace("\\\n", " ").splitlines()
    lines += re.findall(
        r"`((?:alpacare|make|launch/)[^`\n]*)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    )
    found = []
    for line in lines:
        for part in re.split(r"\s(?:&&|;|\|)\s", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words and words[0] == "$":
                words.pop(0)
            if words:
                found.append(words)
    return found


def check_verb(words: list[str]) -> None:
    """See that ``VERB ARGS...`` names a verb and only options it has; follow what comes after ``--``."""
    if not words or words[0] in ("VERB", "--help", "--version"):
        return
    if words[0].startswith("-"):
        raise AssertionError(f"not an option of alpacare itself: {words[0]}")
    assert words[0] in VERBS, f"no such verb: {words[0]}"
    command, rest = GROUP.commands[words[0]], words[1:]  # type: ignore[attr-defined]
    if hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"no such target: {words[0]} {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    own, after = (rest[: rest.index("--")], rest[rest.index("--") + 1 :]) if "--" in rest else (rest, [])
    known = {"--help", "-h", "--debug"}
    for parameter in getattr(command, "params", []):
        known |= set(parameter.opts) | set(parameter.secondary_opts)
    for word in own:
        if word.startswith("--") and word.partition("=")[0] not in known:
            raise AssertionError(f"{words[0]} has no option {word}")
    config = own[own.index("--config") + 1] if words[0] == "train" and "--config" in own else ""
    if config.startswith("configs/"):
        # Every key that a page overrides is a key of that file, with a value of its type.
        load_config(ROOT / config, [word for word in own if re.match(r"[\w.]+=", word)])
    check_verb(after)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands_in(page.read_text()):
        program, rest = words[0], words[1:]
        if Path(program).name == "alpacare":
            check_verb(rest)
        elif program == "make":
            named = [word for word in rest if "=" not in word and not word.startswith("-")]
            assert set(named) <= targets, f"{words}: the Makefile has no such target"
        elif program.startswith(("launch/", "benchmarks/", ".ci/")):
            assert (ROOT / program).exists(), f"{words}: no such file"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_and_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)", text):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), f"broken link: {target}"
    for name in re.findall(r"\b((?:configs|launch|benchmarks|tests)/[\w./-]+\.(?:yaml|sh|py))", text):
        assert (ROOT / name).is_file(), f"no such file: {name}"


def test_the_first_page_links_every_other_page() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs/index.md").read_text()))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}


def test_the_readme_lists_every_verb_in_the_order_of_the_work() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert tuple(rows) == VERBS


def test_the_readme_names_the_test_command_that_the_checks_run() -> None:
    assert "\nmake test " in (ROOT / "README.md").read_text()
    assert "\nmake test\n" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_warning_stands_out(page: str) -> None:
    assert "**Output is not medical advice;" in (ROOT / page).read_text()


@pytest.mark.parametrize("package", [alpacare_jax, datagen], ids=["alpacare_jax", "datagen"])
def test_every_public_name_is_in_the_reference(package: ModuleType) -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    for name in package.__all__:
        value = getattr(package, name)
        place = value.__name__ if isinstance(value, ModuleType) else f"{value.__module__}.{value.__name__}"
        assert f"::: {place}\n" in page, f"{package.__name__}.{name} is {place}"
