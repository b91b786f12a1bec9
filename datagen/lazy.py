"""Packages whose public names are imported when they are first used, so that importing the package is cheap."""

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _LazyPackage(ModuleType):
    public: dict[str, tuple[str, str]]

    def __getattr__(self, name: str) -> Any:
        if name not in self.public:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, there = self.public[name]
        self.__dict__[name] = value = getattr(importlib.import_module(module), there)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a submodule sets it as an attribute; where a public function has its name, the function stays.
        if not (name in self.public and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *self.public})


def import_lazily(package: str, file: str) -> None:
    """Give a package the public names that its stub, ``__init__.pyi``, imports; editors and type checkers read it too.

    Args:
        package: Its ``__name__``.
        file: Its ``__file__``.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    module = sys.modules[package]
    module.__dict__["public"] = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    module.__dict__["__all__"] = sorted(module.__dict__["public"])
    module.__class__ = _LazyPackage
