"""Packages whose public names are imported when they are first used, so that importing the package is cheap."""

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


class _LazyPackage(ModuleType):
    public: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self.public:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, _, there = self.public[name].partition(":")
        value = getattr(importlib.import_module(f"{self.__name__}.{module}"), there or name)
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a room sets it as an attribute; where a public function has its name, the function stays.
        if not (name in self.public and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *self.public})


def import_lazily(package: str, public: Mapping[str, str]) -> None:
    """Give a package public names.

    Args:
        package: Its ``__name__``.
        public: Public name -> module within the package, with the name there after a colon where it differs.
    """
    module = sys.modules[package]
    module.__dict__["public"] = public
    module.__class__ = _LazyPackage
