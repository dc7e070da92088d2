"""What a TLB miss costs under two levels of page tables: one load per page, with second-level pages of two sizes.

A guest touches 4096 pages once each. A miss reads up to four entries of the guest's tables, each of which is itself
translated by the second level: with 4 KiB pages there, up to 24 references a miss.
"""

import hvcore as hv
from hvcore import exits

PAGES = 4096
#                     mov ecx, PAGES  mov esi, 0x200000     mov al, [rsi]  add rsi, 0x1000  dec ecx  jnz -13  hlt
CODE = bytes.fromhex("b9 00100000     be 00002000           8a06           4881c600100000   ffc9     75f3     f4")


def measure(nested_page_size: str) -> hv.Counters:
    """Counters of the walk over all pages, the guest's own tables in 4 KiB pages."""
    with hv.Hypervisor(memory="256 MiB", processors=1) as hypervisor:
        child = hypervisor.root.create_partition(vps=1)
        ram = child.map_memory(gpa=0, size="32 MiB", access="rwx", page_size=nested_page_size)
        ram[0x1000 : 0x1000 + len(CODE)] = CODE
        vp = child.vps[0]
        vp.reset(mode="long64", rip=0x1000, rsp=0x8000, page_size="4 KiB")
        before = vp.counters()
        stop = vp.run(max_instructions=10 * PAGES)
        if not isinstance(stop, exits.Halt):
            raise hv.GuestError(stop)
        return vp.counters() - before


def main() -> None:
    """Print one line for each size of the second level's pages."""
    for size in ("4 KiB", "2 MiB"):
        used = measure(size)
        references = used.guest_references + used.second_level_references
        print(f"second level of {size}: {used.tlb_misses} misses, {references / used.tlb_misses:.2f} references each")


if __name__ == "__main__":
    main()
