# Chapter of iommu.pyx: the units that there are names for.

_BASE = (6 | 3 << 34 | 1 << 39 | 18 << 48 | 3 << 54 | 0x22 << 24)
_SCALABLE_CAP = 1 << 56 | 1 << 60
_SCALABLE_ECAP = (1 << 26 | 1 << 31 | 1 << 34 | 19 << 35 | 1 << 40 | 1 << 43 | 1 << 45 | 1 << 46 | 1 << 47 | 1 << 48
                  | 1 << 49 | 1 << 53)

PRESETS = {
    # Everything that this model has: widths of 39, 48 and 57 bits, eight fault records, protected memory, posting.
    "full": (_BASE | 3 << 5 | 0xE << 8 | 56 << 16 | 1 << 22 | 7 << 40 | 1 << 59 | 3 << 62 | _SCALABLE_CAP,
             0xDF | 0xF << 8 | 15 << 20 | _SCALABLE_ECAP),
    # QEMU 10's intel-iommu on q35 with interrupt remapping: 39 and 48 bits, one fault record.
    "qemu-q35": (0x00D2008C222F0606, 0xF00F4A),
}
"""CAP and ECAP of the units that there are names for."""
