"""The registers of a virtio device in its BAR: common configuration, ISR, the device's own, notifications
(virtio 1.2, 4.1.4), a page each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvcore.machine.virtqueue import MAXIMUM_SIZE

if TYPE_CHECKING:
    from hvcore.machine.virtio import VirtioDevice
    from hvcore.machine.virtqueue import Virtqueue

_PAGE = 0x1000
_FIELDS = (
    ("device_feature_select", 0x00, 4),
    ("device_feature", 0x04, 4),
    ("driver_feature_select", 0x08, 4),
    ("driver_feature", 0x0C, 4),
    ("config_msix_vector", 0x10, 2),
    ("num_queues", 0x12, 2),
    ("device_status", 0x14, 1),
    ("config_generation", 0x15, 1),
    ("queue_select", 0x16, 2),
    ("queue_size", 0x18, 2),
    ("queue_msix_vector", 0x1A, 2),
    ("queue_enable", 0x1C, 2),
    ("queue_notify_off", 0x1E, 2),
    ("queue_desc", 0x20, 8),
    ("queue_driver", 0x28, 8),
    ("queue_device", 0x30, 8),
    ("queue_notify_data", 0x38, 2),
    ("queue_reset", 0x3A, 2),
)
_BY_BYTE = {offset + i: (name, offset, size) for name, offset, size in _FIELDS for i in range(size)}
_FEATURES_OK = 8
_QUEUE_ADDRESSES = {"queue_desc": "descriptors", "queue_driver": "available", "queue_device": "used"}
_ADDRESS_MASKS = {"queue_desc": ~15, "queue_driver": ~1, "queue_device": ~3}


class CommonConfiguration:
    """What BAR 0 of a virtio device serves."""

    def __init__(self, device: VirtioDevice) -> None:
        self._device = device
        self._device_select = 0
        self._driver_select = 0
        self._queue_select = 0

    def read(self, offset: int, size: int) -> int:
        """A read of 1, 2, 4 or 8 bytes."""
        page, offset = offset // _PAGE, offset % _PAGE
        if page == 0:
            return sum(self._common_byte(offset + i) << 8 * i for i in range(size))
        if page == 1:
            return self._device.take_isr() if offset == 0 else 0
        if page == 2:
            return int.from_bytes(self._device.configuration_bytes()[offset : offset + size], "little")
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A write of 1, 2, 4 or 8 bytes."""
        page, offset = offset // _PAGE, offset % _PAGE
        if page == 0:
            self._write_common(offset, size, value)
        elif page == 2:
            self._device.configuration_stored(offset, value.to_bytes(size, "little"))
        elif page == 3:
            self._device.notify(offset // 4)

    def _common_byte(self, offset: int) -> int:
        field = _BY_BYTE.get(offset)
        return 0 if field is None else self._value(field[0]) >> 8 * (offset - field[1]) & 0xFF

    def _queue(self) -> Virtqueue | None:
        queues = self._device.queues
        return queues[self._queue_select] if self._queue_select < len(queues) else None

    def _value(self, name: str) -> int:
        device, queue = self._device, self._queue()
        match name:
            case "device_feature_select":
                return self._device_select
            case "device_feature":
                return device.offered >> 32 * self._device_select & 0xFFFF_FFFF if self._device_select < 2 else 0
            case "driver_feature_select":
                return self._driver_select
            case "driver_feature":
                return device.negotiated >> 32 * self._driver_select & 0xFFFF_FFFF if self._driver_select < 2 else 0
            case "config_msix_vector":
                return device.configuration_vector
            case "num_queues":
                return len(device.queues)
            case "device_status":
                return device.status_bits
            case "config_generation":
                return device.generation
            case "queue_select":
                return self._queue_select
        if queue is None:
            return 0
        match name:
            case "queue_size":
                return queue.size
            case "queue_msix_vector":
                return queue.vector
            case "queue_enable":
                return int(queue.enabled)
            case "queue_notify_off" | "queue_notify_data":
                return self._queue_select
            case "queue_reset":
                return 0
        return int(getattr(queue, _QUEUE_ADDRESSES[name]))

    def _write_common(self, offset: int, size: int, value: int) -> None:
        """Each field that begins in the access; half of a 64-bit one, or all of it, is an access of its own."""
        done = 0
        while done < size:
            field = _BY_BYTE.get(offset + done)
            if field is None:
                return
            name, start, width = field
            piece = min(size - done, start + width - offset - done)
            shift = 8 * (offset + done - start)
            mask = (1 << 8 * piece) - 1 << shift
            part = (value >> 8 * done & (1 << 8 * piece) - 1) << shift
            self._set(name, self._value(name) & ~mask | part)
            done += piece

    def _set(self, name: str, value: int) -> None:
        device, queue = self._device, self._queue()
        match name:
            case "device_feature_select":
                self._device_select = value
            case "driver_feature_select":
                self._driver_select = value
            case "driver_feature":
                if self._driver_select < 2 and not device.status_bits & _FEATURES_OK:
                    shift = 32 * self._driver_select
                    device.negotiated = device.negotiated & ~(0xFFFF_FFFF << shift) | value << shift
            case "config_msix_vector":
                device.configuration_vector = self._vector(value)
            case "device_status":
                device.set_status(value)
                if value == 0:
                    self._device_select = self._driver_select = self._queue_select = 0
            case "queue_select":
                self._queue_select = value
            case _ if queue is not None:
                self._set_queue(queue, name, value)

    def _set_queue(self, queue: Virtqueue, name: str, value: int) -> None:
        """A queue that is enabled keeps its size and its addresses."""
        match name:
            case "queue_msix_vector":
                queue.vector = self._vector(value)
            case "queue_enable":
                queue.enabled |= value == 1
            case "queue_reset":
                if value == 1:
                    queue.reset()
            case "queue_size":
                if not queue.enabled and 0 < value <= MAXIMUM_SIZE and not value & value - 1:
                    queue.size = value
            case "queue_desc" | "queue_driver" | "queue_device":
                if not queue.enabled:
                    setattr(queue, _QUEUE_ADDRESSES[name], value & _ADDRESS_MASKS[name])

    def _vector(self, value: int) -> int:
        """A vector that the table has not reads back as none."""
        return value if value < self._device.msix.vectors else 0xFFFF
