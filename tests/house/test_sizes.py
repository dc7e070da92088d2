"""No file grows past what one reads at a sitting. An exception is listed with its reason, or the file is split."""

from __future__ import annotations

from pathlib import Path

import pytest

from .sources import NATIVE, ROOT, module_files, name, python_files, room_files

ROOM, MODULE, PYTHON, TEST = 300, 400, 300, 500
EXCEPTIONS = {
    "_native/sem/segment.pxd": (490, "segment loads, far transfers and IRET share every descriptor check"),
    "_native/sem/sse_convert.pxd": (320, "every conversion of SSE and SSE2"),
}
TEST_EXCEPTIONS = {
    "oracles/cases.py": (1200, "the generator of test cases is a table of templates"),
    "oracles/native.py": (560, "one child process, its protocol and its register layouts"),
}


def lines(path: Path) -> int:
    return path.read_text().count("\n")


def budget(path: Path, usual: int) -> int:
    return EXCEPTIONS.get(name(path), (usual, ""))[0]


@pytest.mark.parametrize("path", room_files(), ids=name)
def test_rooms(path: Path) -> None:
    assert lines(path) <= budget(path, ROOM)


@pytest.mark.parametrize("path", module_files(), ids=name)
def test_modules(path: Path) -> None:
    assert lines(path) <= budget(path, MODULE)


@pytest.mark.parametrize("path", [*python_files(), *sorted((NATIVE / "isa").glob("*.py"))], ids=name)
def test_python(path: Path) -> None:
    assert lines(path) <= budget(path, PYTHON)


def test_tests() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        relative = path.relative_to(ROOT / "tests").as_posix()
        assert lines(path) <= TEST_EXCEPTIONS.get(relative, (TEST, ""))[0], relative


def test_no_exception_outlives_its_file() -> None:
    for file, (_, reason) in EXCEPTIONS.items():
        path = ROOT / "hvcore" / file
        usual = PYTHON if path.suffix == ".py" else MODULE if path.parent == NATIVE else ROOM
        assert reason and lines(path) > usual, f"{file}: the exception is not needed any more"
