"""What a partition takes from its memory pool for its objects (TLFS 5.7, hyperv-abi.md 6.2)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from hvcore._native.space import PagePool
from hvcore.enums import Status
from hvcore.hypercalls.abi import Refused

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor


class Charged:
    """The part of a Partition that pays: pages of its pool, by what they are for."""

    hypervisor: Hypervisor

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self._charges: dict[Hashable, list[int]] = {}

    def charge(self, key: Hashable, count: int) -> None:
        """Take `count` pages of the own pool for `key`, all or none. Refuses with INSUFFICIENT_MEMORY."""
        pages: list[int] = []
        for _ in range(count):
            page = self.pool.allocate()
            if page is None:
                for taken in pages:
                    self.pool.release(taken)
                raise Refused(Status.INSUFFICIENT_MEMORY)
            pages.append(page)
        self._charges[key] = pages

    def release(self, key: Hashable) -> None:
        """Give the pages of `key` back to the pool."""
        for page in self._charges.pop(key):
            self.pool.release(page)

    def is_charged(self, key: Hashable) -> bool:
        """`charge` was called for `key`, and `release` was not."""
        return key in self._charges

    def release_all(self) -> None:
        """Give all of them back."""
        for key in list(self._charges):
            self.release(key)

    def charge_with_frames(self, key: Hashable, pages: int, frame_count: int) -> list[int]:
        """Charge `pages` and take frames of the reserve, all or none."""
        frames = self.hypervisor.new_frames(frame_count)
        try:
            self.charge(key, pages)
        except Refused:
            self.hypervisor.free_frames(*frames)
            raise
        return frames
