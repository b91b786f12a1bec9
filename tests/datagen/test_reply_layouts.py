"""Tasks come back exactly from every layout that a teacher may give them: markup, headings, languages."""

import html
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import yaml

from datagen.parse import FIELDS, Rejected, parse_tasks
from datagen.records import SeedTask
from datagen.seeds import load_seeds

Layout = Callable[[Sequence[SeedTask]], str]
GERMAN = ("Typ", "Thema", "Perspektive", "Schwierigkeit", "Anweisung", "Eingabe")
CHINESE = ("类型", "主题", "视角", "难度", "指令", "输入")
KOREAN = ("유형", "주제", "관점", "난이도", "지시", "입력")
GREEK = ("Τύπος", "Θέμα", "Οπτική", "Δυσκολία", "Οδηγία", "Είσοδος")


def values(task: SeedTask) -> dict[str, Any]:
    return {field: getattr(task, field) for field in FIELDS}


def lines(task: SeedTask, label: str = "{}: {}", names: Sequence[str] = (), join: str = "\n") -> str:
    shown = names or [field.capitalize() for field in FIELDS]
    return join.join(
        label.format(name, value) for name, value in zip(shown, values(task).values(), strict=True)
    )


def headed(heading: str, end: str = "", closing: str = "", **style: str | Sequence[str]) -> Layout:
    """Put a numbered heading before each task."""

    def layout(tasks: Sequence[SeedTask]) -> str:
        blocks = [
            heading.format(number, title=task.topic) + "\n" + lines(task, **style) + end.format(number)  # type: ignore[arg-type]
            for number, task in enumerate(tasks, start=4)
        ]
        return "\n\n".join(blocks) + closing

    return layout


def each(
    write: Callable[[dict[str, Any]], str], before: str = "", between: str = "\n", after: str = ""
) -> Layout:
    return lambda tasks: before + between.join(write(values(task)) for task in tasks) + after


def quoted(text: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n"))


def in_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def in_html(text: str) -> str:
    return html.escape(text, quote=False).replace("\n", "<br>\n")


def indented(text: str, depth: int) -> str:
    return "\n".join(" " * depth + line if line else "" for line in text.split("\n"))


LAYOUTS: dict[str, Layout] = {
    "heading in markdown": headed("#### {}", closing="\n\n---\n\nWould you like more of them?"),
    "share": headed("{}/12"),
    "title": headed("### {}: {title} and daily life", label="**{}:** {}"),
    "title and share": headed("{title} ({}/99)\n=========="),
    "picture": headed("### 🩺 Task {}", label="**{}:** {}", join="  \n"),
    "German": headed("**Aufgabe {}**", closing="\n\nIch hoffe, diese Aufgaben helfen!", names=GERMAN),
    "Chinese": headed("### 任务 {}", closing="\n\n希望这些任务对您有帮助！", label="{}：{}", names=CHINESE),
    "labels in an unknown language": headed("[과제 {}]", names=KOREAN),
    "labels in another": headed("Εργασία {}", label="- **{}:** {}", names=GREEK),
    "abbreviation": headed("Tâche n° {} :", label="{} : {}"),
    "ordinal": headed("{}. feladat"),
    "brackets": headed("[BEGIN TASK {}]", end="\n[END TASK {}]", closing="\n\n[END OF TASKS]"),
    "angle brackets": headed("<<<TASK {}>>>", end="\n<<<END>>>"),
    "box": headed("+-----------+\n|  TASK {}  |\n+-----------+"),
    "done": headed("🔢 Task {}", end="\n\n✅ Task {} complete"),
    "comment": headed("// Task {}"),
    "fences": headed("**Task {}:**\n```", end="\n```", closing="\n\nThey differ in view and level."),
    "one kind of line": each(lambda task: f"[[tasks]]\n{lines(SeedTask(**task))}", between="\n\n"),
    "titles": each(lambda task: f"## {task['topic']}\n\n{lines(SeedTask(**task))}", between="\n\n"),
    "block quotes": each(
        lambda task: quoted(f"### Task\n{lines(SeedTask(**task), '**{}:** {}')}"), between="\n\n"
    ),
    "HTML paragraphs": each(
        lambda task: (
            "<h3>Task</h3>\n"
            + "\n".join(f"<p><b>{name.capitalize()}:</b> {in_html(text)}</p>" for name, text in task.items())
        )
    ),
    "HTML list": each(
        lambda task: (
            "<li><ul>\n"
            + "\n".join(
                f"<li><em>{name.capitalize()}</em>: {in_html(text)}</li>" for name, text in task.items()
            )
            + "</ul></li>"
        ),
        before="<ol>",
        after="</ol>",
    ),
    "HTML table": each(
        lambda task: "<tr>" + "".join(f"<td>{in_html(text)}</td>" for text in task.values()) + "</tr>",
        before="<table>\n<tr>" + "".join(f"<th>{name.capitalize()}</th>" for name in FIELDS) + "</tr>\n",
        after="\n</table>",
    ),
    "XML": each(
        lambda task: (
            "<task>\n"
            + "\n".join(f"<{name}>\n{html.escape(text)}\n</{name}>" for name, text in task.items())
            + "\n</task>"
        ),
        before='<?xml version="1.0"?>\n<tasks>\n',
        after="\n</tasks>\n\nEach one is unique.",
    ),
    "XML attributes": each(
        lambda task: (
            "<task "
            + " ".join(f'{name}="{html.escape(text)}"' for name, text in list(task.items())[:4])
            + f">\n<instruction>{html.escape(task['instruction'])}</instruction>\n"
            f"<input>{html.escape(task['input'])}</input>\n</task>"
        )
    ),
    "YAML": lambda tasks: yaml.safe_dump(
        [values(task) for task in tasks], sort_keys=False, allow_unicode=True
    ),
    "YAML blocks": each(
        lambda task: (
            "  - "
            + "    ".join(
                f"{name}: {json.dumps(text, ensure_ascii=False)}\n" for name, text in list(task.items())[:5]
            )
            + f"    input: |-\n{indented(task['input'], 6)}"
        ),
        before="tasks:\n",
    ),
    "TOML": each(
        lambda task: (
            "[[task]]\n"
            + "\n".join(
                f"{name} = {json.dumps(text, ensure_ascii=False)}" for name, text in list(task.items())[:5]
            )
            + f'\ninput = """\n{task["input"]}\n"""'
        ),
        between="\n\n",
    ),
    "labels with a remark": headed(
        "**Task {}**",
        label="- {}: {}",
        names=(
            "Type of task",
            "Topic area",
            "Perspective",
            "Difficulty (1-5)",
            "Instruction",
            "Input (if any)",
        ),
    ),
    "labels in two languages": headed("{}.", names=[f"{name.capitalize()} / Wort" for name in FIELDS]),
    "labels that repeat the number": each(
        lambda task: lines(SeedTask(**task), names=[f"Task 4 {name.capitalize()}" for name in FIELDS]),
        between="\n\n",
    ),
    "glued separators": each(lambda task: f"1. {lines(SeedTask(**task))}", between="###", after="###"),
    "number and topic": headed("{}.0 {title}"),
    "table of columns": lambda tasks: "\n".join(
        [f"| Field |{'Task|' * len(tasks)}", f"|---|{'---|' * len(tasks)}"]
        + [
            f"| **{name.capitalize()}** |" + "".join(f" {in_cell(getattr(task, name))} |" for task in tasks)
            for name in FIELDS
        ]
    ),
    "table above": each(
        lambda task: (
            "| Type | Topic | View | Difficulty |\n|---|---|---|---|\n"
            + "".join(f"| {task[name]} " for name in FIELDS[:4])
            + f"|\n\n**Instruction:** {task['instruction']}\n\n**Input:** {task['input']}"
        ),
        between="\n\n",
    ),
    "JSON by order": each(
        lambda task: json.dumps(dict(zip("abcdef", task.values(), strict=True)), ensure_ascii=False),
        between=",\n",
    ),
    "JSON in parts": each(
        lambda task: json.dumps(
            {"id": 1, "meta": dict(list(task.items())[:4]), "task": dict(list(task.items())[4:])},
            ensure_ascii=False,
        )
    ),
    "content is the input": each(
        lambda task: (
            "<task "
            + " ".join(f'{name}="{html.escape(text)}"' for name, text in list(task.items())[:5])
            + f">{html.escape(task['input'])}</task>"
        )
    ),
    "one sign between the tasks": headed("Task {} 🩺", end="\n\n⸻"),
    "two kinds of bullets": lambda tasks: "\n\n".join(
        f"• Task {number}:\n"
        + lines(task, "  ◦ {}: {}").replace("\n", "\n    ").replace("    " + "  ◦", "  ◦")
        for number, task in enumerate(tasks, start=4)
    ),
    "JSON with comments": each(
        lambda task: f"// a task\n{json.dumps(task)[:-1]},\n}}",
        before="```json\n[\n",
        between=",\n",
        after="\n]\n```",
    ),
}


@pytest.mark.parametrize(("number", "layout"), list(enumerate(LAYOUTS.values())), ids=LAYOUTS)
def test_tasks_come_back_exactly(number: int, layout: Layout) -> None:
    """Each layout shows a third of the seed tasks, and the next one another third."""
    seeds = load_seeds()
    missed = []
    for start in range(7 * (number % 3), len(seeds), 21):
        tasks = seeds[start : start + 7]
        results = parse_tasks(layout(tasks))
        found = [result for result in results if isinstance(result, SeedTask)]
        missed += [task for task in tasks if task not in found]
        assert all(
            result.reason in ("prose", "stray-text") for result in results if isinstance(result, Rejected)
        )
    assert missed == []
