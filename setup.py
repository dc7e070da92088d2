"""Build of the native modules: generate the glue from the instruction table, then cythonize and compile in parallel.

HVCORE_SANITIZE=1 builds with AddressSanitizer (see docs/development.md).
"""
import os
import platform
import shutil
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
NATIVE = "hvcore._native"

COMPILE = ["-O2", "-g0", "-fno-ipa-icf", "-ffp-contract=off", "-fno-strict-aliasing", "-Wno-unused-function"]
LINK: list[str] = []
AVX512 = ["-O3", "-DHVCORE_AVX512", *(f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "vbmi")), "-mbmi2"]
HANDLERS = ["-fno-inline-functions-called-once", "-fno-inline-small-functions"]
if os.environ.get("HVCORE_SANITIZE"):
    COMPILE = ["-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer", "-foptimize-sibling-calls",
               "-ffp-contract=off", "-fno-strict-aliasing"]
    LINK = ["-fsanitize=address"]
    HANDLERS.append("--param=asan-stack=0")      # red zones around locals end in a call where a jump must be


# hvcore itself cannot be imported before it is built; what generates its tables stands on its own.
sys.path.insert(0, str(ROOT / "hvcore/_native"))
from cpu import registers  # noqa: E402
from isa import generate  # noqa: E402

del sys.path[0]
generate.main()
registers.main()


def module(name: str) -> Extension:
    # Handlers are tail calls of inlined rooms: whatever is left out of line costs every instruction that runs.
    # Slow twins stay out of line even where one handler alone calls them: in line they would give it a frame.
    # Whatever belongs into a handler is declared inline.
    # The translator is the walker compiled for each format: that folds in line only, one function a format.
    inlined = name.startswith(("engine_", "models")) or name in ("translator", "iommu")
    inline = [("CYTHON_INLINE", "inline __attribute__((always_inline))")] if inlined else []
    if name == "translator":
        inline.append(("HVCORE_UNROLL", "1"))
    twins = HANDLERS if name.startswith("engine_") or name == "translator" else []
    vectors = AVX512 if name == "sweep_avx512" else []
    return Extension(f"{NATIVE}.{name}", [f"hvcore/_native/{name}.pyx"], extra_compile_args=COMPILE + twins + vectors,
                     include_dirs=["hvcore/_native"], extra_link_args=LINK, define_macros=inline,
                     depends=HEADERS if name.startswith("sweep") else [], optional=bool(vectors))


class FreshBuild(build_py):
    """A build folder is used once: a module that is gone from the tree must not live on in the next wheel."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


HEADERS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "hvcore/_native/batch").glob("*.h"))
MODULES = [path.stem for path in sorted((ROOT / "hvcore/_native").glob("*.pyx"))]
if platform.machine() not in ("x86_64", "AMD64"):
    MODULES.remove("sweep_avx512")
extensions = [module(name) for name in MODULES]
jobs = os.cpu_count() or 1
setup(
    ext_modules=cythonize(
        extensions,
        nthreads=jobs,
        compiler_directives={
            "language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True,
            "initializedcheck": False, "auto_pickle": False, "embedsignature": True,
        },
    ),
    cmdclass={"build_py": FreshBuild},
    options={"build_ext": {"parallel": jobs}},
)
