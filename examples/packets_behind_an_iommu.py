"""What an IOMMU costs a network card: packets into scattered buffers of a child, with IOTLBs of several sizes.

The card belongs to the child (HvCallAttachDevice), the unit to the hypervisor. Packets go round a ring of 256 buffers:
a write into a buffer, then one into its descriptor. The larger the pages are, the fewer entries the IOTLB needs.
"""

from struct import pack

import numpy as np

import hvcore as hv
from hvcore.iommu import geometry

CARD, BUFFERS, PACKETS, DESCRIPTORS = 0x0100, 256, 20_000, 0x1000


def receive(page_size: str, iotlb: str) -> tuple[float, float]:
    """IOTLB misses, and entries of page tables that were read, for each packet."""
    with hv.Hypervisor(memory="256 MiB", processors=1) as hypervisor:
        unit = hypervisor.machine.attach_unit(driver="hypervisor", caches=geometry(iotlb=iotlb))
        card = hv.Device(hypervisor, requester_id=CARD)
        child = hypervisor.root.create_partition(vps=1)
        child.map_memory(gpa=0, size="64 MiB", page_size=page_size)
        attach = pack("<QQIB3xQIHH", child.id, card.device_id, 0, 0, 1, 0, 0, 0)  # as its logical device 1
        given = hypervisor.root.hypercall(hv.Hypercall.ATTACH_DEVICE, attach)
        if given.status is not hv.Status.SUCCESS:
            raise hv.HypercallError(given.status, hv.Hypercall.ATTACH_DEVICE)

        pages = np.random.default_rng(1).permutation(np.arange(1024, 16384))[:BUFFERS].astype(np.uint64)
        turns = np.arange(PACKETS, dtype=np.uint64) % BUFFERS
        where = np.stack([pages[turns] * 4096, DESCRIPTORS + turns * 16], axis=1).ravel()
        found = card.translate(where, "w")
        _lookups, _hits, misses, *_ = unit.counters()["structures"]["iotlb"]
        return misses / PACKETS, int(found["nested_references"].sum()) / PACKETS


def main() -> None:
    """Print one line for each size of pages and of the IOTLB."""
    for page_size in ("4 KiB", "2 MiB"):
        for iotlb in ("16/16", "64/16", "512/16"):
            misses, entries = receive(page_size, iotlb)
            print(f"pages of {page_size}, IOTLB {iotlb}: {misses:.2f} misses, {entries:.2f} entries read a packet")


if __name__ == "__main__":
    main()
