"""What a processor's translation depends on, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

CR0_PE, CR0_WP, CR0_PG = 1 << 0, 1 << 16, 1 << 31
CR4_PSE, CR4_PAE, CR4_PGE, CR4_LA57 = 1 << 4, 1 << 5, 1 << 7, 1 << 12
EFER_LME, EFER_LMA, EFER_NXE = 1 << 8, 1 << 10, 1 << 11


@dataclass(frozen=True, slots=True)
class PagingState:
    """Registers that paging reads (SDM 3A 4.1). `for_levels` makes a common one."""

    cr3: int = 0
    cr0: int = CR0_PG | CR0_WP | CR0_PE
    cr4: int = CR4_PAE
    efer: int = EFER_LME | EFER_LMA | EFER_NXE
    rflags: int = 2
    """AC (bit 18) lifts SMAP for explicit accesses."""
    cpl: int = 0
    pkru: int = 0
    pkrs: int = 0
    """IA32_PKRS."""
    physical_address_bits: int = 52
    """MAXPHYADDR: entries with address bits above are faults."""

    def __post_init__(self) -> None:
        for name in ("cr0", "cr3", "cr4", "efer", "rflags", "pkru", "pkrs"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 <= value < 1 << 64:
                raise ValueError(f"{name} must be an int of 64 bits, not {value!r}")
        if self.cpl not in (0, 1, 2, 3):
            raise ValueError(f"cpl must be 0 to 3, not {self.cpl!r}")
        if not 32 <= self.physical_address_bits <= 52:
            raise ValueError(f"physical_address_bits must be 32 to 52, not {self.physical_address_bits!r}")

    @property
    def levels(self) -> int:
        """Levels of the tables: 0 without paging, 2 for 32-bit, 3 for PAE, 4 and 5."""
        if not self.cr0 & CR0_PG:
            return 0
        if not self.cr4 & CR4_PAE:
            return 2
        if not self.efer & EFER_LMA:
            return 3
        return 5 if self.cr4 & CR4_LA57 else 4

    @classmethod
    def for_levels(cls, levels: int, cr3: int = 0, **others: int) -> PagingState:
        """A supervisor with write protection and the execute right on, SMEP, SMAP and protection keys off.

        Raises
        ------
        ValueError
            `levels` is not 0, 2, 3, 4 or 5, or `others` make another number of levels.
        """
        if levels not in (0, 2, 3, 4, 5):
            raise ValueError(f"levels must be 0, 2, 3, 4 or 5, not {levels!r}")
        registers = {
            "cr0": CR0_PE | CR0_WP | (CR0_PG if levels else 0),
            "cr4": (CR4_PSE if levels == 2 else CR4_PAE) | (CR4_LA57 if levels == 5 else 0),
            "efer": EFER_NXE * (levels > 2) | (EFER_LME | EFER_LMA if levels > 3 else 0),
        }
        made = cls(cr3=cr3, **(registers | others))
        if made.levels != levels:
            raise ValueError(f"cr0, cr4, efer must make {levels} levels, not {made.levels}: as {registers} do")
        return made
