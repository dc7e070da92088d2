"""The command line: `hvcore run [PROGRAM]`, `decode FILE`, `translate IMAGE`, `sweep CONFIG.toml`, `info`.

Exit status: 0 all went well, 1 the guest ended badly or an address has no translation, 2 bad usage or a file that
cannot be loaded, 130 Ctrl-C. Every failure is one line on standard error.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, _SubParsersAction
from collections.abc import Sequence
from typing import NoReturn

from hvcore import __version__
from hvcore.cli.failure import Failure

DEFAULT_MEMORY = "512 MiB"
DEFAULT_PROCESSORS = 2
PAGE_SIZES = {"4K": 4 << 10, "2M": 2 << 20}

_BAD_USAGE = 2
_INTERRUPTED = 130
_BROKEN_PIPE = 141


class _Parser(ArgumentParser):
    """argparse, with complaints of one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(_BAD_USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point of the console script; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except Failure as failure:
        print(f"hvcore: {failure}", file=sys.stderr)
        return failure.status
    except KeyboardInterrupt:
        print("hvcore: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return status


def _parser() -> ArgumentParser:
    parser = _Parser(prog="hvcore", description="A Hyper-V that you can import: partitions, hypercalls, x64 guests.")
    parser.add_argument("--version", action="version", version=f"hvcore {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_decode(commands)
    _add_translate(commands)
    _add_info(commands)
    _add_sweep(commands)
    return parser


def _add_run(commands: _SubParsersAction[_Parser]) -> None:
    run = commands.add_parser(
        "run",
        help="run a program, or the embedded root guest",
        description="Without PROGRAM: boot the embedded root guest in the root partition; status 0 if it ends with "
        "RAX = 0. With PROGRAM, a static ELF64 program: run it in a child partition until it halts, or with --root as "
        "the root's system.",
    )
    run.add_argument("program", nargs="?", metavar="PROGRAM", help="a static ELF64 executable for x86-64")
    run.add_argument("--root", action="store_true", help="PROGRAM is the system of the root and has the machine")
    run.add_argument("--platform", action="store_true", help="give the child an I/O APIC, an 8259 pair and an 8254")
    run.add_argument(
        "--iommu", action="store_true", help="a VT-d unit in front of the root's devices; RSI = its DMAR table"
    )
    run.add_argument("--disk", metavar="FILE", help="a virtio disk of the root, bus 0, device 3")
    run.add_argument(
        "--memory",
        type=_memory,
        default=_memory(DEFAULT_MEMORY),
        metavar="SIZE",
        help=f'RAM of the guest, a multiple of 2 MiB, like "64 MiB" (default: {DEFAULT_MEMORY})',
    )
    run.add_argument("--guest-pages", choices=PAGE_SIZES, default="4K", help="page size of the guest's tables")
    run.add_argument("--nested-pages", choices=PAGE_SIZES, default="4K", help="page size of the second level")
    run.add_argument(
        "--vps",
        type=_count,
        metavar="N",
        help="virtual processors of the child; the program runs on the first (default: 1)",
    )
    run.add_argument(
        "--processors",
        type=_count,
        default=DEFAULT_PROCESSORS,
        metavar="N",
        help=f"logical processors (default: {DEFAULT_PROCESSORS})",
    )
    run.add_argument("--max-instructions", type=_count, metavar="N", help="stop after so many instructions")
    run.add_argument(
        "--interrupt-trace", metavar="FILE", help="write the last million interrupt events, for chrome://tracing"
    )
    run.add_argument("--json", action="store_true", help="one JSON object on standard output, and nothing else")
    run.add_argument("--quiet", action="store_true", help="without the table of counters")
    run.set_defaults(command=_run)


def _add_translate(commands: _SubParsersAction[_Parser]) -> None:
    translate = commands.add_parser(
        "translate",
        help="translate addresses through the page tables in a memory image",
        description="IMAGE is raw memory from physical address 0. Numbers may be hexadecimal, as 0x1000.",
    )
    translate.add_argument("image", metavar="IMAGE", help="a file of raw physical memory")
    translate.add_argument("address", nargs="+", metavar="ADDRESS", help='virtual addresses; "-" reads them from stdin')
    translate.add_argument("--cr3", type=_address, required=True, metavar="ADDRESS", help="the processor's CR3")
    translate.add_argument("--levels", type=int, choices=(0, 2, 3, 4, 5), default=4, help="of paging (default: 4)")
    translate.add_argument(
        "--nested-root", type=_address, metavar="ADDRESS", help="top table of a second level in the layout of EPT"
    )
    translate.add_argument("--nested-levels", type=int, choices=range(1, 6), default=4, help="of it (default: 4)")
    translate.add_argument("--access", default="r", help='what is to be done, of "r", "w" and "x" (default: r)')
    translate.add_argument("--user", action="store_true", help="in user mode; default: as supervisor")
    translate.add_argument("--range", metavar="SIZE", help='so many bytes from each address, as runs, like "64 KiB"')
    translate.add_argument("--json", action="store_true", help="a JSON list on standard output, and nothing else")
    translate.set_defaults(command=_translate)


def _add_decode(commands: _SubParsersAction[_Parser]) -> None:
    decode = commands.add_parser(
        "decode",
        help="list machine code: raw bytes, hex text, or the code of an ELF file",
        description="Decode FILE, or standard input if it is -. Of an ELF file the executable sections, of any other "
        "all bytes; bytes that are no instruction are listed as (bad), one at a time.",
    )
    decode.add_argument("file", metavar="FILE", help="a file, or - for standard input")
    decode.add_argument("--raw", action="store_true", help="decode all bytes even if it is an ELF file")
    decode.add_argument("--hex", action="store_true", help="the file is text: pairs of hexadecimal digits")
    decode.add_argument("--bits", type=int, choices=(16, 32, 64), help="the mode (default: the ELF file's, else 64)")
    decode.add_argument("--ip", type=_address, default=0, metavar="ADDRESS", help="of the first byte (default: 0)")
    decode.add_argument("--syntax", choices=("intel", "att", "nasm"), default="intel", help="default: intel")
    decode.add_argument("--vendor", choices=("intel", "amd"), default="intel", help="whose processor (default: intel)")
    decode.add_argument("--columns", metavar="NAME,...", help="columns of hv.decode instead of text")
    decode.add_argument("--json", action="store_true", help="a JSON array on standard output, an object an instruction")
    decode.set_defaults(command=_decode)


def _add_info(commands: _SubParsersAction[_Parser]) -> None:
    info = commands.add_parser("info", help="what this build executes, and the defaults of the machine")
    info.add_argument("--json", action="store_true", help="one JSON object on standard output, and nothing else")
    info.set_defaults(command=_info)


def _add_sweep(commands: _SubParsersAction[_Parser]) -> None:
    sweep = commands.add_parser(
        "sweep",
        help="run models of address translation over traces, at every point of a grid",
        description="Run what CONFIG.toml describes (docs/sweeps.md) on all logical processors, and print a table.",
    )
    sweep.add_argument("config", metavar="CONFIG.toml", help="traces, models, what varies, and plots")
    sweep.add_argument("--traces", metavar="FOLDER", help="where the traces are (default: the folder of CONFIG.toml)")
    sweep.add_argument("--store", metavar="FILE", help="keep results here as they come; the same sweep goes on from it")
    sweep.add_argument("--workers", type=_count, metavar="N", help="processes (default: one a logical processor)")
    sweep.add_argument("--csv", metavar="FILE", help="write the table as CSV")
    sweep.add_argument("--parquet", metavar="FILE", help="write the table as Parquet (needs pyarrow)")
    sweep.add_argument("--plots", metavar="FOLDER", help="draw the plots of the configuration (needs matplotlib)")
    progress = sweep.add_mutually_exclusive_group()
    progress.add_argument("--progress", action="store_true", default=None, help="show progress even in a pipe")
    progress.add_argument("--no-progress", action="store_false", dest="progress", help="never show progress")
    sweep.add_argument("--json", action="store_true", help="one JSON list on standard output, and nothing else")
    sweep.set_defaults(command=_sweep)


def _run(options: Namespace) -> int:
    from hvcore.cli.run import run

    return run(options)


def _translate(options: Namespace) -> int:
    from hvcore.cli.translate import translate

    return translate(options)


def _decode(options: Namespace) -> int:
    from hvcore.cli.decode import decode

    return decode(options)


def _info(options: Namespace) -> int:
    from hvcore.cli.info import info

    return info(options)


def _sweep(options: Namespace) -> int:
    from hvcore.cli.sweep import sweep

    return sweep(options)


def _address(text: str) -> int:
    """An address; 0x10 and 4_096 are fine."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise ArgumentTypeError(f"an address of 64 bits is needed, not {text!r}")
    return value


def _count(text: str) -> int:
    """A positive integer; 1_000_000 and 0x10 are fine too."""
    try:
        value = int(text, 0)
    except ValueError:
        value = 0
    if value < 1:
        raise ArgumentTypeError(f"a positive integer is needed, not {text!r}")
    return value


def _memory(text: str) -> int:
    """A size like "64 MiB", in whole large pages."""
    from hvcore.memory import LARGE_PAGE_SIZE, parse_size

    try:
        return parse_size(text, "the size", multiple_of=LARGE_PAGE_SIZE)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
