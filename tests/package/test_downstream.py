"""A downstream package cimports hvcore's .pxd files, from the installed wheel and from the tests' own environment
(usually an editable install), and counts instructions with what it finds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Environment

DOWNSTREAM = Path(__file__).with_name("downstream")
PROGRAM = """
import sys
from hvcore_census.count import count
code = bytes.fromhex("55 48 89 e5 31 c0 0f a2 f3 a4 c3 06 90")
print(count(code), hasattr(sys.modules["hvcore_census.count"], "decode_one"))
"""
ANSWER = "(7, 1) False"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DOWNSTREAM, tmp_path / "downstream"))


def test_against_the_wheel(installed: Environment, project: Path) -> None:
    installed.run("python", "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index",
                  project)
    assert installed.run("python", "-c", PROGRAM).strip() == ANSWER


def test_against_this_environment(build_tools: None, project: Path) -> None:
    def python(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=project, check=False, text=True, capture_output=True,
                              env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    python("setup.py", "build_ext", "--inplace")
    assert python("-c", PROGRAM).strip() == ANSWER
