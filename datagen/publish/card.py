"""The data set card: Markdown with the front matter that data set hubs read, written from the provenance."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

NOT_ADVICE = (
    "**This is not medical advice.** Tasks and answers were written by language models and were not checked by "
    "clinicians. They may be wrong or harmful; they must not be used to diagnose, treat or advise a person."
)
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
_LANGUAGES = {
    "en": "English", "es": "Spanish", "fr": "French", "de": "German", "it": "Italian", "pt": "Portuguese",
    "nl": "Dutch", "zh": "Chinese", "ja": "Japanese", "ko": "Korean", "ru": "Russian", "uk": "Ukrainian",
    "el": "Greek", "ar": "Arabic", "fa": "Persian", "he": "Hebrew", "hi": "Hindi",
    "bn": "Bengali", "ta": "Tamil", "th": "Thai",
}  # fmt: skip
_KINDS_OF_OVERLAP = {"ngram": "tokens in a row", "rouge-l": "ROUGE-L", "whole-text": "whole text"}
_TOLD_ELSEWHERE = (
    "identifiers",
    "evaluation_overlaps",
    "prompt_tokens",
    "completion_tokens",
    "budget_reached",
)
"""Counts of the funnel that another section of the card gives with more detail."""

_WORDS_OF_COUNTS = {"tasks_found": "pieces found in the replies (tasks and prose)"}
_WORDS_OF_STAGES = {"tasks": "writing tasks", "answers": "answering them"}


def render(provenance: Mapping[str, Any], *, name: str, files: Mapping[str, str]) -> str:
    """Write the data set card: YAML front matter as data set hubs read it, then Markdown.

    Args:
        provenance: As :func:`datagen.publish.provenance.gather` returns it.
        name: Name of the data set.
        files: JSON Lines file of each split.
    """
    license = provenance["license"]
    rows = sum(provenance["rows"].values())
    front = {
        "pretty_name": name,
        **_front_licence(license),
        **_front_language(provenance["settings"]),
        "task_categories": ["text-generation", "question-answering"],
        "tags": ["medical", "instruction-tuning", "synthetic"],
        "size_categories": [next((word for limit, word in _SIZES if rows < limit), "n>10M")],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": file} for split, file in files.items()],
            }
        ],
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {_plain(name)}",
        NOT_ADVICE,
        _about(provenance, files),
        _licence(license, provenance["settings"].get("seed tasks")),
        _making(provenance),
        _counts(provenance["funnel"]),
        _identifiers(provenance["identifiers"], provenance["settings"].get("privacy")),
        _contamination(provenance["contamination"]),
        _reading(files),
    ]
    return "\n\n".join(parts) + "\n"


def _about(provenance: Mapping[str, Any], files: Mapping[str, str]) -> str:
    rows = provenance["rows"]
    parts = ", ".join(f"{rows[split]:,} in `{file}` ({split})" for split, file in files.items())
    parts = f": {parts}" if len(files) > 1 else f", in `{files['train']}`"
    total = sum(rows.values())
    return (
        f"{total:,} medical instruction{'s' * (total != 1)} with answers, {_language(provenance['settings'])}, by the "
        f"method of [AlpaCare](https://arxiv.org/abs/2310.14558){parts}. Each row has `instruction`, `input` (empty "
        "where none is needed) and `output`, as MedInstruct-52k has them, and besides `id`, `type`, `topic`, `view`, "
        "`difficulty` and `source` (models, prompt version, requests and time of this very row)."
    )


def _front_language(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the language as hubs read it; none where the run took any."""
    language = str(settings.get("language", "en"))
    return {} if language == "any" else {"language": [language]}


def _language(settings: Mapping[str, Any]) -> str:
    language = str(settings.get("language", "en"))
    if language == "any":
        return "in whatever language the models wrote"
    return f"in {_LANGUAGES.get(language) or _code(language)}"


def _front_licence(license: str | None) -> dict[str, str]:
    """Return the licence as hubs read it: an identifier, or the name of another one."""
    if not license:
        return {}
    if re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        return {"license": license}
    return {"license": "other", "license_name": license}


def _licence(license: str | None, seeds: object) -> str:
    stated = (
        f"{_plain(license)}, as named by whoever published this data set."
        if license
        else "Not stated. Whoever published this data set named none."
    )
    count, _, digest = str(seeds or "").partition(", ")
    which = f" ({count}, SHA-256 of their content {_code(digest)}...)" if digest else ""
    return (
        f"## Licence\n\n{stated} The terms of the models that wrote it may restrict its use. The seed tasks that the "
        f"models were shown{which} are not part of it; their own licence applies to them, which is not known here."
    )


def _making(provenance: Mapping[str, Any]) -> str:
    requests, settings = provenance["requests"], provenance["settings"]
    table = _table(
        (
            "work",
            "asked of",
            "answered by",
            "requests",
            "failed",
            "tries",
            "tokens in",
            "tokens out",
            "cost, US$",
        ),
        [
            (
                _WORDS_OF_STAGES.get(stage, stage),
                _code(settings.get("teacher.model" if stage == "tasks" else "answerer.model", "not known")),
                _models(each["models"]),
                f"{each['requests']:,}",
                f"{each['failed']:,}",
                f"{each['tries']:,}",
                f"{each['prompt_tokens']:,}",
                f"{each['completion_tokens']:,}",
                _cost(each),
            )
            for stage, each in requests["stages"].items()
        ],
    )
    shaped = _table(
        ("setting", "value"),
        [(key, _value(value)) for key, value in settings.items() if value not in (None, "", [], {})],
    )
    spent = (
        f"All tries together cost {_amount(requests['counted_usd'])} US$" if requests["counted_usd"] else ""
    )
    if requests["unknown_usd"]:
        spent = spent or "No bill is known"
        spent += (
            f", and at most {_amount(requests['unknown_usd'])} US$ more, for tries whose bill is not known"
        )
    spent += ".\n\n" if spent else ""
    if "taken_over_usd" in requests:
        taken = _amount(requests["taken_over_usd"])
        spent += f"Replies for {taken} US$ in the table were paid in an earlier run and taken over.\n\n"
    if beyond := requests.get("beyond_target"):
        spent += (
            f"The table holds {beyond['requests']:,} task requests ({beyond['prompt_tokens']:,} tokens in, "
            f"{beyond['completion_tokens']:,} out) that were asked beyond the target and are not counted below.\n\n"
        )
    first, last = requests["first_request"] or "not known", requests["last_reply"] or "not known"
    return (
        f"## How it was made\n\nFirst request {first}, last reply {last}. Prompts: version "
        f"{_code(settings.get('prompts', 'not known'))}.\n\n{table}\n\n{spent}### Settings\n\n{shaped}"
    )


def _models(counts: Mapping[str, int]) -> str:
    """Name who answered, and how often each where there were several."""
    if len(counts) < 2:
        return "".join(map(_code, counts)) or "nobody"
    return ", ".join(f"{_code(model)} ({count:,})" for model, count in counts.items())


def _amount(usd: float) -> str:
    return f"{usd:,.2f}" if usd >= 1 else f"{usd:.4f}"


def _cost(stage: Mapping[str, Any]) -> str:
    if stage["cost_usd"] is None:
        return "not recorded"
    known = "" if stage["priced"] == stage["answered"] else f" (of {stage['priced']:,} requests)"
    return f"{_amount(stage['cost_usd'])}{known}"


def _counts(funnel: Mapping[str, Any]) -> str:
    rows = []
    for key, value in funnel.items():
        if key in _TOLD_ELSEWHERE:
            continue
        words = _WORDS_OF_COUNTS.get(key) or key.replace("_", " ")
        if isinstance(value, Mapping):
            rows += [(f"{words}: {_code(reason)}", _number(count)) for reason, count in value.items()]
        else:
            rows.append((words, _number(value)))
    table = _table(("what", "count"), rows)
    return (
        "## Counts\n\nEvery request, task and answer is counted once, and each level adds up to the one before.\n\n"
        + table
    )


def _identifiers(found: Mapping[str, Mapping[str, int]] | None, policy: object) -> str:
    head = "## Personal identifiers\n\n"
    if found is None:
        return head + (
            "Not looked for. The rows are not from patients' records, but models may invent or repeat names, dates "
            "and numbers."
        )
    intro = f"Looked for in every task and answer, by patterns that miss some; policy {_code(policy)}."
    if not found:
        return f"{head}{intro} None were found."
    rows = [(_code(kind), action, f"{n:,}") for kind, counts in found.items() for action, n in counts.items()]
    return f"{head}{intro}\n\n{_table(('kind', 'what was done', 'count'), rows)}"


def _contamination(report: Any) -> str:
    head = "## Overlap with evaluation sets\n\n"
    if not report:
        return head + (
            "Not checked: the run was given no evaluation files. Do not compare models trained on this data on a "
            "benchmark before you have checked."
        )
    files = report.get("files", [])
    columns = list(dict.fromkeys(key for file in files for key in file))
    table = _table(
        tuple("SHA-256" if column == "sha256" else column.replace("_", " ") for column in columns),
        [tuple(_of_file(column, file.get(column, "")) for column in columns) for file in files],
    )
    rules = [f"{report['ngram']} tokens in a row"] if "ngram" in report else []
    rules += [f"ROUGE-L above {report['rouge_l']}"] if "rouge_l" in report else []
    rules += ["or a short question as the whole text"]
    return head + (
        f"Every task and answer that overlaps with these files was left out: {', '.join(rules)}.\n\n{table}"
    )


def _of_file(column: str, value: object) -> str:
    """Return a cell of the table of evaluation files."""
    if column == "sha256":
        return _code(str(value)[:12])
    if column == "by_kind" and isinstance(value, Mapping):
        found = [f"{_KINDS_OF_OVERLAP.get(kind) or _code(kind)} {count:,}" for kind, count in value.items()]
        return ", ".join(found) or "none"
    return _number(value) if isinstance(value, int | float) else _value(value)


def _reading(files: Mapping[str, str]) -> str:
    return (
        "## Reading it\n\n```python\nimport json\nimport tensorflow_datasets as tfds  # needs no TensorFlow\n\n"
        f'rows = [json.loads(line) for line in open("{files["train"]}", encoding="utf-8")]\n'
        'source = tfds.builder_from_directory("tfds").as_data_source("train")\n'
        'print(source[0]["instruction"].decode())\n```\n\n'
        "`provenance.json` holds what this card says, for programs; `manifest.json` names every file with its size "
        "and SHA-256."
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _value(value: object) -> str:
    """Return a value for a reader: words for yes and no, the parts of a list one by one, everything else as code."""
    if isinstance(value, bool):
        return _number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{_code(str(key))}: {_value(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    return _code(value)


def _number(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else _code(value)


def _plain(text: str) -> str:
    """Return a text from outside as one line without markup."""
    return "".join(
        f"\\{letter}" if letter in "\\`*_{}[]<>#|~" else letter for letter in " ".join(text.split())
    )


def _code(value: object) -> str:
    """Return a value from outside as code that ends neither its span nor a table's cell."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`" if text else "none"
