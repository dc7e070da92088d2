"""One sdist, one wheel built from it, one fresh environment with that wheel: made once, used by every test here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a command that must succeed; neither PYTHONPATH nor the checkout's folder helps it to find hvcore."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=clean, check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@dataclass(frozen=True)
class Environment:
    """A virtual environment with hvcore from a wheel."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, program: str, *arguments: str | Path) -> str:
        return run(self.folder / "bin" / program, *arguments, cwd=self.folder)


@pytest.fixture(scope="session")
def build_tools() -> None:
    for tool in ("build", "Cython", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed")
    import setuptools

    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("setuptools is older than 77")


@pytest.fixture(scope="session")
def sdist(build_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made from this tree with whatever has been built in it."""
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (made,) = out.glob("*.tar.gz")
    return made


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist and nothing else, beside the remains of an older build."""
    place = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    (source,) = place.iterdir()
    stale = source / "build" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}" / "hvcore" / "ghost.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("raise SystemExit('left over from another build')\n")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place / "out", source, cwd=place)
    (made,) = (place / "out").glob("*.whl")
    return made


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment with the wheel. Its dependencies and the build tools come from the environment that runs
    the tests, by a path entry behind its own packages: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=True)
    environment = Environment(folder)
    environment.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools")     # 3.11 brings an old one
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "behind.pth").write_text("\n".join(dict.fromkeys(
        sysconfig.get_path(scheme) for scheme in ("purelib", "platlib"))) + "\n")
    environment.run("python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    return environment
