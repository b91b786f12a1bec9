"""Count lines of code by module of both packages, without blank lines, comments and docstrings.

python -m benchmarks.lines [--markdown]
"""

import argparse
import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(source: str) -> set[int]:
    """Return the numbers of the lines of a Python file that hold code.

    >>> sorted(code_lines('x = 1  # one\\n\\ndef f():\\n    "Says nothing."\\n    return 2\\n'))
    [1, 3, 5]
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--markdown", action="store_true", help="as a table for docs/architecture.md")
    markdown = parser.parse_args().markdown
    code, files, longest = Counter[str](), Counter[str](), Counter[str]()
    for package in ("alpacare_jax", "datagen"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).parts
            room = ".".join(parts[:2]) if len(parts) > 2 else package
            source = path.read_text()
            code[room] += len(code_lines(source))
            files[room] += 1
            longest[room] = max(longest[room], len(source.splitlines()))
    rows = [(room, files[room], lines, longest[room]) for room, lines in code.most_common()]
    rows.append(("both packages", files.total(), code.total(), max(longest.values())))
    if markdown:
        print("| module | files | lines of code | longest file, all lines |\n|---|---|---|---|")
        print(
            "\n".join(f"| `{room}` | {number} | {lines:,} | {most} |" for room, number, lines, most in rows)
        )
        return
    print(f"{'module':24} files   code  longest")
    print("\n".join(f"{room:24} {number:5} {lines:6,} {most:8}" for room, number, lines, most in rows))


if __name__ == "__main__":
    main()
