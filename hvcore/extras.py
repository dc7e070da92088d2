"""Packages that hvcore can do without: imported when something asks for them, with a clear word if they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def extra(module: str, name: str) -> Any:
    """The module, which the extra `name` of hvcore installs.

    Raises
    ------
    ModuleNotFoundError
        It is not installed; the message has the command that does.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        package = module.partition(".")[0]
        text = f'this needs {package}: pip install "hvcore[{name}]"'
        raise ModuleNotFoundError(text, name=package) from missing
