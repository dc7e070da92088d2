"""The eleven benchmark programs in a child partition: their checksums are what native processors compute."""

import shutil

import pytest

import hvcore
from hvcore import exits
from hvcore.boot.elf import load
from hvcore.boot.program import boot
from hvcore.guests import workloads

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to build the workloads with")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workloads")
    return {name: load(workloads.build(name, folder, reps=1).read_bytes()) for name in workloads.BY_NAME}


@pytest.mark.parametrize("page_size", ["4 KiB", "2 MiB"])
@pytest.mark.parametrize("name", workloads.BY_NAME)
def test_checksum(programs, name, page_size):
    with hvcore.Hypervisor(memory="528 MiB", processors=1) as hypervisor:
        child = hypervisor.root.create_partition()
        child.map_memory(gpa=0, size="512 MiB", page_size=page_size)
        vp = child.vps[0]
        boot(child, vp, programs[name], page_size=page_size)
        match vp.run():
            case exits.Halt():
                assert vp.rax == workloads.BY_NAME[name].checksum_one
            case other:
                pytest.fail(f"ended by {other!r}")
        counters = vp.counters()
        assert counters.halts == 1
        assert counters.unimplemented == counters.invalid == counters.exceptions == 0
        small = page_size == "4 KiB"
        assert counters.guest_references_per_miss == (4 if small else 3)
        assert counters.second_level_references_per_miss == (20 if small else 12)
