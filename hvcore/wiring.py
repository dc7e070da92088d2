"""What interrupts a partition from outside its processors: its interrupt platform, and messages of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvcore._native.platform import ADDRESS, GSI_BASE, TIMER_PIN, InterruptPlatform
from hvcore.arguments import integer

if TYPE_CHECKING:
    from hvcore._native.engine import PartitionCore
    from hvcore.hypervisor import Hypervisor

IOAPIC_ID: Final = 0
"""The I/O APIC's id after power-up; a guest may write another one (MADT, I/O APIC structure)."""
IOAPIC_ADDRESS: Final[int] = ADDRESS
"""Where its page is."""
IOAPIC_GSI_BASE: Final[int] = GSI_BASE
"""The global system interrupt of pin 0; there are 24."""
ISA_OVERRIDES: Final[dict[int, int]] = {0: TIMER_PIN}
"""ISA interrupts whose global system interrupt has another number (MADT, interrupt source override): the 8254's.

Edge-triggered and active high, as all ISA interrupts are here."""


MSI_ADDRESSES: Final = (0xFEE0_0000, 0xFEEF_FFFF)
"""Writes of devices from here to there are interrupts."""


class Wiring:
    """The part of a Partition that devices see."""

    id: int
    core: PartitionCore
    hypervisor: Hypervisor

    @property
    def platform(self) -> InterruptPlatform | None:
        """Its I/O APIC, 8259 pair and 8254, if it has them. The root has."""
        return self.core.platform

    def attach_platform(self, platform: InterruptPlatform | None = None) -> InterruptPlatform:
        """Give it an I/O APIC at FEC00000h, an 8259 pair and an 8254 at their ports; an earlier platform is detached.

        Parameters
        ----------
        platform : one that belongs to no partition; by default a new one as after power-up.

        Raises
        ------
        TypeError
            `platform` is something else.
        ValueError
            `platform` belongs to a partition, or this partition does not exist any more.
        """
        self.require_living()
        platform = InterruptPlatform() if platform is None else platform
        if not isinstance(platform, InterruptPlatform):
            raise TypeError(f"platform must be an InterruptPlatform, not {type(platform).__name__}")
        with self.hypervisor.exclusive():
            self.core.attach_platform(platform, self.hypervisor.scheduler)
            self.hypervisor.interrupts.refresh_pins()
        return platform

    def detach_platform(self) -> None:
        """Take them away: their ports and the page are what they would be without. Without a platform, nothing."""
        with self.hypervisor.exclusive():
            self.core.attach_platform(None, self.hypervisor.scheduler)

    def require_living(self) -> None:
        """Raise ValueError when this partition does not exist any more."""
        if self.hypervisor.partitions.get(self.id) is not self:
            raise ValueError(f"{self!r} does not exist any more")

    def send_msi(self, address: int, data: int, *, requester: int = 0) -> int | None:
        """A device of this partition writes `data` to `address`, which is how it interrupts (SDM 3A 11.11).

        Parameters
        ----------
        address : FEE00000h to FEEFFFFFh.
        data : 32 bits.
        requester : the device's requester id, for interrupt remapping.

        Returns
        -------
        int or None
            How many local APICs accepted the interrupt; None: interrupt remapping refused it.

        Raises
        ------
        TypeError
            An argument is not an integer.
        ValueError
            An argument is out of range, or this partition does not exist any more.
        """
        address = integer(address, "address", *MSI_ADDRESSES)
        data = integer(data, "data", 0, 0xFFFF_FFFF)
        requester = integer(requester, "requester", 0, 0xFFFF)
        self.require_living()
        with self.hypervisor.exclusive():
            return self.core.send_msi(address, data, requester)
