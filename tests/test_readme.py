"""What README.md shows is true: its Python program runs, its commands and links exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_program_runs(tmp_path: Path) -> None:
    (program,) = fenced("python")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hello\nal = 0x2a\ninstructions ")
    assert re.search(r"^instructions +11$", done.stdout, re.MULTILINE)


def test_the_two_commands() -> None:
    """The first block of each section is one line: what .ci/run executes."""
    for section in ("Install and run", "Test"):
        body = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
        block = re.search(r"^```sh\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
        assert block is not None and block.group(1).count("\n") == 1
        assert block.group(1).startswith("python3 -m venv .venv && .venv/bin/pip install ")


@pytest.mark.parametrize("page", sorted(path.relative_to(ROOT).as_posix() for path in (
    *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))))
def test_links_and_names(page: str) -> None:
    """Links of our pages lead somewhere, and files that they name exist."""
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / link).exists(), f"{page} links to {link}"
    for name in re.findall(r"`((?:tests|tools|docs|examples|hvcore)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{page} names {name}"
