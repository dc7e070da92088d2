"""What is shipped: the sdist has every source, the wheel has what users need and nothing else, and it works."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from .conftest import ROOT, Environment

NATIVE = ROOT / "hvcore/_native"


@pytest.fixture(scope="session")
def sdist_names(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}


@pytest.fixture(scope="session")
def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def sources(*suffixes: str) -> set[str]:
    """Files of the package in this tree, generated ones left out."""
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / "hvcore").rglob("*")
            if path.suffix in suffixes and "generated" not in path.parts and "__pycache__" not in path.parts}


def test_sdist_has_every_source(sdist_names: set[str]) -> None:
    wanted = sources(".py", ".pyx", ".pxd", ".pxi", ".pyi", ".txt", ".S", ".ld", ".elf", ".h")
    wanted |= {"pyproject.toml", "setup.py", "README.md", "LICENSE", "hvcore/py.typed", ".ci/run",
               "tests/package/downstream/hvcore_census/count.pyx"}
    assert not wanted - sdist_names


def test_sdist_has_nothing_that_was_built(sdist_names: set[str]) -> None:
    built = re.compile(r"\.(so|pyd|o|pyc|html)$|/generated/|^build/|^dist/|^hvcore/_native/.*\.c$|__pycache__")
    assert not sorted(name for name in sdist_names if built.search(name))


def test_wheel_has_what_users_need(wheel_names: set[str]) -> None:
    wanted = sources(".py", ".pxd", ".pyi", ".txt", ".elf", ".S", ".ld") | {"hvcore/py.typed"}
    assert not wanted - wheel_names
    compiled = {name.split(".")[0] for name in wheel_names if name.endswith(".so")}
    assert compiled == {f"hvcore/_native/{path.stem}" for path in NATIVE.glob("*.pyx")}


def test_wheel_has_nothing_else(wheel_names: set[str]) -> None:
    """No .pyx and no generated code: .pxd files are the contract for compilers, .pyi files that for people."""
    for name in wheel_names:
        path = PurePosixPath(name)
        assert path.parts[0] == "hvcore" or path.parts[0].endswith(".dist-info"), name
        assert path.suffix not in (".pyx", ".pxi", ".o", ".html"), name
        assert path.suffix != ".c" or "guests" in path.parts, name
    assert "hvcore/ghost.py" not in wheel_names, "the build folder of another build has leaked"


def test_wheel_is_of_sensible_size(wheel: Path) -> None:
    assert wheel.stat().st_size < 4 << 20


def test_it_imports(installed: Environment) -> None:
    where = installed.run("python", "-c", "import hvcore; print(hvcore.__file__)").strip()
    assert Path(where).is_relative_to(installed.folder)
    for module in sorted(path.stem for path in NATIVE.glob("*.pyx")):
        installed.run("python", "-c", f"import hvcore._native.{module}")


def test_it_runs(installed: Environment) -> None:
    assert "hvcore" in installed.run("hvcore", "info")
