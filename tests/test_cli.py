"""The command line, as a process: what it prints, its statuses, one line for every failure."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from elf_programs import program

import hvcore as package
from hvcore.guests import workloads

TABLE_LINES = ("instructions", "TLB look-ups", "TLB misses", "walk references, guest level", "hypercalls", "exits")


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(package.__file__).parents[1])}


def hvcore(*arguments, **variables):
    command = [sys.executable, "-m", "hvcore", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT | variables)


@pytest.fixture
def code(tmp_path):
    """Writes machine code as a static program; returns its path."""

    def write(machine_code, **changes):
        path = tmp_path / "guest.elf"
        path.write_bytes(program(machine_code, **changes))
        return path

    return write


HELLO = b"\x66\xba\xf8\x03" + b"".join(b"\xb0" + bytes((byte,)) + b"\xee" for byte in b"hi\n") + b"\xb8\x2a\0\0\0\xf4"
"""mov dx, 3f8h; mov al, x; out dx, al; ...; mov eax, 42; hlt."""
HANG = b"\xeb\xfe"
SHUTDOWN = b"\x0f\x0b"


def test_default_run_boots_the_root_guest():
    done = hvcore("run")
    assert done.returncode == 0, done.stderr
    assert "hvcore: all done\n" in done.stdout
    assert done.stderr == ""
    console, _, table = done.stdout.partition("hvcore: all done\n")
    assert "FAILED" not in console
    for label in TABLE_LINES:
        assert f"\n{label} " in "\n" + table
    for name in ("CREATE_PARTITION", "MAP_GPA_PAGES", "POST_MESSAGE", "SIGNAL_EVENT"):
        assert f"  {name} " in table


def test_json_of_the_root_guest_is_the_same_every_time():
    first, second = hvcore("run", "--json"), hvcore("run", "--json", PYTHONHASHSEED="77")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == second.stdout
    report = json.loads(first.stdout)
    assert sorted(report) == ["console", "counters", "exit", "registers"]
    assert report["exit"]["reason"] == "Halt"
    assert report["registers"]["rax"] == "0x0"
    assert "\nhvcore: all done\n" in report["console"]
    assert report["counters"]["hypercalls.CREATE_PARTITION"] >= 1
    assert first.stdout == json.dumps(report, indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("pages", ["4K", "2M"])
def test_root_guest_with_every_page_size(pages):
    for nested in ("4K", "2M"):
        done = hvcore("run", "--memory", "64 MiB", "--guest-pages", pages, "--nested-pages", nested, "--quiet")
        assert (done.returncode, done.stderr) == (0, "")
        assert "\nhvcore: all done\n" in done.stdout


def test_program(code):
    done = hvcore("run", code(HELLO))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("hi\nRAX = 0x2a\ninstructions ")


def test_program_quiet(code):
    assert hvcore("run", "--quiet", code(HELLO)).stdout == "hi\nRAX = 0x2a\n"


def test_program_json(code):
    path = code(HELLO)
    first, second = hvcore("run", path, "--json"), hvcore("run", path, "--json")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == second.stdout
    report = json.loads(first.stdout)
    assert (report["console"], report["registers"]["rax"]) == ("hi\n", "0x2a")
    assert report["exit"] == {"reason": "Halt", "rip": report["registers"]["rip"]}
    assert report["counters"]["exits.io_port"] == 3
    assert str(path.parent) not in first.stdout


@pytest.mark.parametrize("guest", ["4K", "2M"])
@pytest.mark.parametrize("nested", ["4K", "2M"])
def test_page_sizes_change_the_walks_only(code, guest, nested):
    path = code(HELLO)
    report = json.loads(hvcore("run", path, "--json", "--guest-pages", guest, "--nested-pages", nested).stdout)
    levels, nested_levels = 3 + (guest == "4K"), 3 + (nested == "4K")
    misses = report["counters"]["tlb_misses"]
    assert report["counters"]["guest_references"] == misses * levels
    assert report["counters"]["second_level_references"] == misses * (levels + 1) * nested_levels
    assert report["console"] == "hi\n"


def test_port_reads_float_and_the_uart_answers(code):
    # mov dx, 3fdh; in al, dx; mov ebx, eax; in al, 80h; mov ah, bl; movzx eax, ax; hlt
    path = code(b"\x66\xba\xfd\x03\xec\x89\xc3\xe4\x80\x88\xdc\x0f\xb7\xc0\xf4")
    assert hvcore("run", "--quiet", path).stdout == "RAX = 0x60ff\n"


def test_the_program_knows_its_memory(code):
    path = code(b"\x48\x89\xf8\xf4")
    assert hvcore("run", "--quiet", "--memory", "64MiB", path).stdout == "RAX = 0x4000000\n"


def test_budget(code):
    done = hvcore("run", code(HANG), "--max-instructions", "1000", "--json")
    assert done.returncode == 1
    assert done.stderr.startswith("hvcore: the guest did not end by HLT: Budget(rip=0x400000)")
    assert done.stderr.count("\n") == 1
    report = json.loads(done.stdout)
    assert report["exit"] == {"reason": "Budget", "rip": "0x400000"}
    assert report["counters"]["instructions"] == 1000


def test_budget_counts_across_exits(code):
    endless = b"\x66\xba\x80\x00" + b"\xee\xeb\xfd"
    done = hvcore("run", code(endless), "--max-instructions", "101", "--json")
    assert json.loads(done.stdout)["counters"]["instructions"] == 101


def test_budget_of_the_root_guest():
    done = hvcore("run", "--max-instructions", "0x100", "--quiet")
    assert done.returncode == 1
    assert "Budget" in done.stderr


def test_triple_fault(code):
    done = hvcore("run", code(SHUTDOWN))
    assert done.returncode == 1
    assert done.stderr == "hvcore: the guest did not end by HLT: TripleFault(rip=0x400000)\n"
    assert "exits" in done.stdout


def test_processors_and_vps(code):
    done = hvcore("run", code(HELLO), "--vps", "4", "--processors", "4", "--quiet")
    assert (done.returncode, done.stdout) == (0, "hi\nRAX = 0x2a\n")


def elf_errors():
    good = program(HELLO)
    yield "empty", b"", "the file is empty"
    yield "text", b"hello", "not an ELF file"
    yield "cut", good[:70], "truncated"
    yield "32-bit", good[:4] + b"\x01" + good[5:], "64-bit"
    yield "big-endian", good[:5] + b"\x02" + good[6:], "little-endian"
    yield "arm", good[:18] + b"\xb7" + good[19:], "machine 183"
    yield "pie", good[:16] + b"\x03" + good[17:], "-static"
    yield "interpreter", good[:64] + b"\x03" + good[65:], "-static"
    yield "high", program(HELLO, address=0x1_0000_0000), "outside memory"


@pytest.mark.parametrize(("data", "words"), [pytest.param(*row[1:], id=row[0]) for row in elf_errors()])
def test_programs_that_cannot_be_loaded(tmp_path, data, words):
    path = tmp_path / "bad.elf"
    path.write_bytes(data)
    done = hvcore("run", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.startswith(f"hvcore: {path}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "/no/such/program"], "/no/such/program: No such file or directory"),
        (["run", "/"], "/: Is a directory"),
        (["run", "--memory", "3 MiB"], "multiple of 0x200000"),
        (["run", "--memory", "much"], 'a size like "64 MiB"'),
        (["run", "--memory", "2 MiB"], "outside memory"),
        (["run", "--memory", "999999 TiB"], "must be"),
        (["run", "--vps", "2"], "--vps is for a PROGRAM in a child"),
        (["run", "--platform"], "--platform is for a PROGRAM in a child"),
        (["run", "--root"], "--root needs a PROGRAM"),
        (["run", "x.elf", "--iommu"], "--iommu needs --root"),
        (["run", "x.elf", "--disk", "x"], "--disk needs --root"),
        (["run", "--disk", "/nonexistent/disk"], "/nonexistent/disk: No such file"),
        (["run", "--vps", "0"], "positive integer"),
        (["run", "--processors", "100000"], "processors must be 1 to 2048"),
        (["run", "--max-instructions", "-1"], "positive integer"),
        (["run", "--guest-pages", "1G"], "invalid choice"),
        (["run", "--nonsense"], "unrecognized arguments"),
        (["fly"], "invalid choice"),
        ([], "required"),
    ],
)
def test_bad_usage(arguments, words):
    done = hvcore(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.startswith("hvcore")
    assert done.stderr.count("\n") == 1


MASK = bytes.fromhex("b05a e621 30c0 e421 0fb6c0 f4")
"""mov al, 5ah; out 21h, al; xor al, al; in al, 21h; movzx eax, al; hlt."""


@pytest.mark.parametrize("options, mask", [(["--platform"], 0x5A), ([], 0xFF), (["--root"], 0x5A)])
def test_who_has_the_interrupt_hardware(code, options, mask):
    done = hvcore("run", code(MASK), "--quiet", *options)
    assert (done.stdout, done.stderr) == (f"RAX = {mask:#x}\n", "")


FIND = bytes.fromhex("b800180080 66baf80c ef 66bafc0c ed 48c1e020 8b0e 4809c8 f4")
"""Read the id of bus 0, device 3 through ports CF8h and CFCh into the upper half of RAX, [rsi] into the lower."""


def test_a_program_as_the_root_with_an_iommu_and_a_disk(code, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    done = hvcore("run", code(FIND), "--root", "--iommu", "--disk", disk, "--quiet")
    assert (done.stdout, done.stderr) == ("RAX = 0x10421af452414d44\n", "")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_interrupt(code, form):
    process = subprocess.Popen(
        [sys.executable, "-m", "hvcore", "run", str(code(b"\x66\xba\xf8\x03\xb0\x0a\xee" + HANG)), *form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    time.sleep(1.5)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - begin < 1
    assert (process.returncode, err) == (130, "hvcore: interrupted\n")
    if form:
        assert json.loads(out)["exit"] == {"reason": "Interrupted"}
    else:
        assert "\ninstructions " in out


def test_broken_pipe():
    command = f"{sys.executable} -m hvcore info | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stderr == ""


def test_info():
    done = hvcore("info")
    assert (done.returncode, done.stderr) == (0, "")
    assert "sse2" in done.stdout
    facts = json.loads(hvcore("info", "--json").stdout)
    assert 0 < facts["instructions"]["executed"] <= facts["instructions"]["forms"]
    assert facts["defaults"]["memory"] == "512 MiB"
    assert "CREATE_PARTITION" in facts["hypercalls"]


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["info", "--help"], ["--version"]])
def test_help(arguments):
    done = hvcore(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hvcore" in done.stdout


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to build a workload with")
def test_a_workload(tmp_path):
    path = workloads.build("crc32", tmp_path, reps=1)
    assert hvcore("run", "--quiet", path).stdout == f"RAX = {workloads.BY_NAME['crc32'].checksum_one:#x}\n"


def test_import_is_quick():
    script = "import numpy, time; begin = time.perf_counter(); import hvcore; print(time.perf_counter() - begin)"
    times = [float(subprocess.check_output([sys.executable, "-c", script], env=ENVIRONMENT)) for _ in range(3)]
    assert min(times) < 0.06


def test_every_public_name_exists():
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert package.decode_one(b"\x48\x89\xe5").mnemonic == "mov"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018
