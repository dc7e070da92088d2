"""ruff and mypy run clean. Each test skips by name where its tool is not installed."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys

import pytest

import hvcore

from .sources import PACKAGE, ROOT, module_files, name, room_files


def need(tool: str) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed")


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    need("ruff")
    run("ruff", "check", "--no-cache", ".")


def test_mypy() -> None:
    need("mypy")
    run("mypy")


def test_native_code_is_tidy() -> None:
    """What ruff cannot read: lines of at most 120 columns, no tabs, no blanks at the end, one newline at the end."""
    untidy = []
    for path in [*room_files(), *module_files()]:
        text = path.read_text()
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            untidy.append(f"{name(path)}: its end")
        untidy += [f"{name(path)}:{number}" for number, line in enumerate(text.splitlines(), 1)
                   if len(line) > 120 or "\t" in line or line != line.rstrip()]
    assert not untidy


def test_no_paths_of_one_machine() -> None:
    """Committed text names no home directory and no place of one developer's machine."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout")
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    places = re.compile(r"(?<![\w.])/(?:" + "|".join(("home/\\w", "Users/\\w", "work" + "/", "opt" + "/venv")) + ")")
    for file in listed:
        try:
            text = (ROOT / file).read_text()
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        assert not (found := places.search(text)), f"{file}: {found.group()}"


def test_public_names_are_listed() -> None:
    """hvcore/__init__.py holds names, what loads them on first use, and nothing else; each of them is there."""
    text = (PACKAGE / "__init__.py").read_text()
    assert set(re.findall(r"^(?:class|def) (\w+)", text, re.MULTILINE)) <= {"__getattr__", "__dir__"}
    assert sorted(hvcore.__all__) == hvcore.__all__
    for public in hvcore.__all__:
        getattr(hvcore, public)
