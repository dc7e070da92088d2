"""Geometries of real processors and of other simulators, each number with where it comes from and how sure it is.

They are starting points, not truths: makers publish little of this, and what they do publish leaves out replacement
policies (here true LRU) and page-walk caches. `print(PRESETS["skylake-server"])` shows what is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

READ = "read"
PUBLISHED = "published"
UNVERIFIED = "unverified"
STAND_IN = "stand-in"
MARKS = {
    READ: "read in the source named",
    PUBLISHED: "as summaries of the source give it",
    UNVERIFIED: "from memory of a source that was not read again: check before you quote it",
    STAND_IN: "not what the processor has: the nearest that this model can be told",
}
"""How sure a number is."""


@dataclass(frozen=True)
class Fact:
    """Where the numbers of one parameter come from. `mark` is a key of MARKS."""

    parameter: str
    mark: str
    source: str


@dataclass(frozen=True)
class Preset:
    """Parameters of a TranslationModel, and how far to trust each of them."""

    title: str
    parameters: Mapping[str, Any]
    facts: tuple[Fact, ...]

    def __str__(self) -> str:
        lines = [self.title]
        for fact in self.facts:
            lines.append(f"  {fact.parameter} = {self.parameters[fact.parameter]!r}")
            lines.append(f"      {fact.mark}: {fact.source}")
        return "\n".join(lines)


INTEL_WALK_CACHES = {"pde": "32/4", "pdpte": "4/4", "pml4e": "2/2"}
INTEL_WALK_FACT = Fact("walk_caches", STAND_IN, "unpublished; the sizes that simulators use (Virtuoso, ChampSim)")
INTEL_MANUAL = "Intel 248966, optimization manual, cache and TLB tables; WikiChip"
ZEN_WALK_CACHES = {"pde": "64", "pdpte": "64", "pml4e": "64"}
ZEN_WALK_FACT = Fact(
    "walk_caches", STAND_IN, "Zen keeps PDEs in its second-level TLB, others in a page directory cache of 64 entries"
)
BOTH_SIZES = "that one structure holds every page size is ours"
TAGGED_FACT = Fact("tagged", READ, "the architecture: entries belong to a domain (VT-d) or to an ASID and VMID")
GEM5_SMMU = (
    "gem5 00dd0d7, src/dev/arm/SMMUv3.py, defaults: the sizes are read; its round robin has one counter for all sets "
    "of a structure, here each set is a FIFO"
)


def _preset(title: str, facts: tuple[Fact, ...], **parameters: Any) -> Preset:
    return Preset(title, MappingProxyType(parameters), facts)


PRESETS: Mapping[str, Preset] = MappingProxyType({
    "skylake-server": _preset(
        "Intel Skylake, server",
        (
            Fact("itlb", PUBLISHED, f"{INTEL_MANUAL}; large pages: 8 per thread"),
            Fact("dtlb", PUBLISHED, INTEL_MANUAL),
            Fact("stlb", PUBLISHED, f"{INTEL_MANUAL}; the latency is unverified (7-cpu.com)"),
            INTEL_WALK_FACT,
        ),
        itlb=("128/8 4K", "8 2M+1G"),
        dtlb=("64/4 4K", "32/4 2M", "4/4 1G"),
        stlb=("1536/12 4K+2M latency=9", "16/4 1G latency=9"),
        walk_caches=INTEL_WALK_CACHES,
    ),
    "ice-lake-client": _preset(
        "Intel Ice Lake, client",
        (
            Fact("itlb", UNVERIFIED, "4 KiB: 128/8; large pages: CPUID leaf 0x18 of an i7-1068NG7 (read)"),
            Fact("dtlb", READ, "CPUID leaf 0x18 of an i7-1068NG7 (urd00m/System-Projects): loads and stores apart"),
            Fact("stlb", STAND_IN, "1024/8 for 4K and 2M, 1024/8 for 4K and 1G (read, as above): 2048 for 4K"),
            INTEL_WALK_FACT,
        ),
        itlb=("128/8 4K", "8 2M+1G"),
        dtlb=("64/4 4K kinds=L", "32/4 2M kinds=L", "8 1G kinds=L", "16 4K+2M+1G kinds=SM"),
        stlb=("2048/16 4K+2M latency=9", "1024/8 1G latency=9"),
        walk_caches=INTEL_WALK_CACHES,
    ),
    "zen-1": _preset(
        "AMD Zen",
        (
            Fact("itlb", UNVERIFIED, "64 entries behind 8 that are not modelled"),
            Fact("dtlb", PUBLISHED, "WikiChip"),
            Fact("stlb", PUBLISHED, "WikiChip: data 1536/12 without 1 GiB pages, instructions 512/8"),
            ZEN_WALK_FACT,
        ),
        itlb="64 4K+2M+1G",
        dtlb="64 4K+2M+1G",
        stlb=("512/8 4K+2M kinds=I", "1536/12 4K+2M kinds=LSM"),
        walk_caches=ZEN_WALK_CACHES,
    ),
    "zen-2": _preset(
        "AMD Zen 2",
        (
            Fact("itlb", PUBLISHED, "WikiChip"),
            Fact("dtlb", PUBLISHED, "WikiChip; 1 GiB pages are broken into pieces of 2 MiB, which is not modelled"),
            Fact("stlb", STAND_IN, "WikiChip says 2048 entries in 12 ways, which is no whole number of sets: 16"),
            ZEN_WALK_FACT,
        ),
        itlb="64 4K+2M+1G",
        dtlb="64 4K+2M+1G",
        stlb=("512/8 4K+2M kinds=I", "2048/16 4K+2M kinds=LSM"),
        walk_caches=ZEN_WALK_CACHES,
    ),
    "zen-3": _preset(
        "AMD Zen 3",
        (
            Fact("itlb", UNVERIFIED, "AMD 56665, optimization guide"),
            Fact("dtlb", UNVERIFIED, "AMD 56665, optimization guide"),
            Fact("stlb", UNVERIFIED, "AMD 56665: data 2048, instructions 512; the ways are a guess"),
            ZEN_WALK_FACT,
        ),
        itlb="64 4K+2M+1G",
        dtlb="64 4K+2M+1G",
        stlb=("512/8 4K+2M kinds=I", "2048/16 4K+2M kinds=LSM"),
        walk_caches=ZEN_WALK_CACHES,
    ),
    "zen-4": _preset(
        "AMD Zen 4",
        (
            Fact("itlb", UNVERIFIED, "AMD 57647, optimization guide"),
            Fact("dtlb", UNVERIFIED, "AMD 57647, optimization guide: 72 entries"),
            Fact("stlb", UNVERIFIED, "AMD 57647: data 3072, instructions 512; the ways are a guess"),
            ZEN_WALK_FACT,
        ),
        itlb="64 4K+2M+1G",
        dtlb="72 4K+2M+1G",
        stlb=("512/8 4K+2M kinds=I", "3072/24 4K+2M kinds=LSM"),
        walk_caches=ZEN_WALK_CACHES,
    ),
    "champsim": _preset(
        "ChampSim's default",
        tuple(
            Fact(name, READ, "ChampSim 2ff2501, default configuration")
            for name in ("itlb", "dtlb", "stlb", "walk_caches", "levels")
        ),
        itlb="64/4 latency=1",
        dtlb="64/4 latency=1",
        stlb="1536/12 latency=8",
        walk_caches={"pde": "32/8", "pdpte": "8/4", "pml4e": "4/4", "pml5e": "2/2"},
        levels=5,
    ),
    "virtuoso": _preset(
        "Virtuoso's default",
        (
            *(
                Fact(name, READ, "Virtuoso 8188baf, configuration of its MMU")
                for name in ("itlb", "dtlb", "stlb", "walk_caches")
            ),
        ),
        itlb="64/4 4K+2M",
        dtlb=("64/4 4K", "64/4 2M"),
        stlb="2048/8 4K+2M latency=12",
        walk_caches={"pde": "32/4", "pdpte": "32/4", "pml4e": "32/4"},
    ),
    "virtuoso-iommu": _preset(
        "The IOMMU in Virtuoso's configurations",
        (
            Fact("dtlb", READ, f"Virtuoso 8188baf, io_mmu: 64 entries, 4 ways, configuration only; {BOTH_SIZES}"),
            TAGGED_FACT,
        ),
        dtlb="64/4 4K+2M name=iotlb",
        tagged=True,
    ),
    "vt-d-measured": _preset(
        "An Intel VT-d unit as a device measured it",
        (
            Fact(
                "dtlb",
                UNVERIFIED,
                "Neugebauer et al., Understanding PCIe performance for end host networking, SIGCOMM 2018: latency "
                f"steps up beyond 64 pages of 4 KiB. Intel publishes nothing; the ways are a guess; {BOTH_SIZES}",
            ),
            Fact("walk_caches", STAND_IN, "unpublished; the sizes that simulators use for processors"),
            TAGGED_FACT,
        ),
        dtlb="64 4K+2M+1G name=iotlb",
        walk_caches=INTEL_WALK_CACHES,
        tagged=True,
    ),
    "gem5-smmuv3": _preset(
        "gem5's model of Arm's SMMUv3, one interface",
        (
            *(Fact(name, STAND_IN, GEM5_SMMU) for name in ("dtlb", "stlb", "walk_caches")),
            TAGGED_FACT,
        ),
        dtlb="32 4K+2M+1G fifo latency=1 name=utlb",
        stlb="2048/4 4K+2M+1G fifo latency=3 name=iotlb",
        walk_caches={"pde": "348/4 fifo latency=4", "pdpte": "28/4 fifo latency=4", "pml4e": "4/4 fifo latency=4"},
        tagged=True,
    ),
})
"""By name: parameters for `TranslationModel.preset`. The last three are IOMMUs: for traces of device addresses."""


def find(name: str) -> Preset:
    """The preset of that name.

    Raises
    ------
    KeyError
        There is none.
    """
    if name not in PRESETS:
        raise KeyError(f"there is no preset {name!r}: one of {', '.join(PRESETS)}")
    return PRESETS[name]
