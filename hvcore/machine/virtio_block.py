"""A block device for virtio (virtio 1.2, 5.2), backed by a file or by bytes."""

from __future__ import annotations

import os
from io import RawIOBase
from pathlib import Path
from struct import pack, unpack
from typing import TYPE_CHECKING

from hvcore.machine.device import DmaStatus
from hvcore.machine.virtio import VirtioDevice
from hvcore.machine.virtqueue import MAXIMUM_SIZE, Broken, Request, Segment

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor

SECTOR = 512
SIZE_MAX, SEG_MAX, READ_ONLY, BLK_SIZE, FLUSH, DISCARD, WRITE_ZEROES = 1, 2, 5, 6, 9, 13, 14
IN, OUT, FLUSH_REQUEST, GET_ID, DISCARD_REQUEST, WRITE_ZEROES_REQUEST = 0, 1, 4, 8, 11, 13
OK, ERROR, UNSUPPORTED = 0, 1, 2

_KIND = 2
_MASS_STORAGE = 0x01_80_00
_SEGMENT_BYTES = 1 << 20
_RANGE_SECTORS = 1 << 22
_RANGES = 16
_HEADER = 16
_UNMAP = 1


class Disk:
    """What a block device stores into: a bytearray, or a file that is open for reading and writing."""

    def __init__(self, backing: bytearray | bytes | str | Path, *, read_only: bool = False) -> None:
        self.read_only = read_only or isinstance(backing, bytes)
        self._bytes: bytearray | None = None
        self._file: RawIOBase | None = None
        if isinstance(backing, bytes | bytearray):
            self._bytes = bytearray(backing) if isinstance(backing, bytes) else backing
        else:
            # Without a buffer: what is written is in the file.
            self._file = Path(backing).open("rb" if read_only else "r+b", buffering=0)

    @property
    def sectors(self) -> int:
        """Whole sectors."""
        size = len(self._bytes) if self._bytes is not None else os.fstat(self._handle().fileno()).st_size
        return size // SECTOR

    def read(self, offset: int, size: int) -> bytes:
        """Bytes that exist."""
        if self._bytes is not None:
            return bytes(self._bytes[offset : offset + size])
        self._handle().seek(offset)
        return (self._handle().read(size) or b"").ljust(size, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes that exist."""
        if self._bytes is not None:
            self._bytes[offset : offset + len(data)] = data
            return
        self._handle().seek(offset)
        left = memoryview(data)
        while left:
            left = left[self._handle().write(left) or 0 :]

    def flush(self) -> None:
        """Bring what was written to where it survives."""
        if self._file is not None and not self.read_only:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; it has everything."""
        if self._file is not None and not self._file.closed:
            self.flush()
            self._file.close()

    def _handle(self) -> RawIOBase:
        assert self._file is not None
        return self._file


class VirtioBlock(VirtioDevice):
    """A disk on the PCI bus.

    Parameters
    ----------
    backing : bytearray, bytes, str or Path
        What it stores into: a bytearray is changed in place, `bytes` are read-only, anything else names a file.
        Bytes behind the last whole sector of 512 are not reached.
    identity : str
        Up to 20 ASCII characters that the driver may ask for.

    Raises
    ------
    ValueError
        The requester id is taken, or `identity` is too long.
    OSError
        The file cannot be opened.
    """

    def __init__(
        self,
        hypervisor: Hypervisor,
        backing: bytearray | bytes | str | Path,
        *,
        requester_id: int,
        read_only: bool = False,
        identity: str = "hvcore",
    ) -> None:
        if len(identity.encode("ascii", "replace")) > 20:
            raise ValueError(f"identity must have at most 20 characters, not {len(identity)}")
        self.disk = Disk(backing, read_only=read_only)
        self.identity = identity
        offered: tuple[int, ...] = (SIZE_MAX, SEG_MAX, BLK_SIZE, FLUSH)
        offered += (READ_ONLY,) if self.disk.read_only else (DISCARD, WRITE_ZEROES)
        try:
            super().__init__(
                hypervisor,
                requester_id=requester_id,
                kind=_KIND,
                class_code=_MASS_STORAGE,
                features=sum(1 << bit for bit in offered),
                queues=1,
            )
        except BaseException:
            self.disk.close()
            raise

    def close(self) -> None:
        """Bring the file to where it survives, and close it; Hypervisor.close does."""
        self.disk.close()

    def configuration_bytes(self) -> bytes:
        """struct virtio_blk_config up to the limits of WRITE_ZEROES."""
        geometry = bytes(4)
        topology = bytes(8)
        return (
            pack("<QII", self.disk.sectors, _SEGMENT_BYTES, MAXIMUM_SIZE - 2)
            + geometry
            + pack("<I", SECTOR)
            + topology
            + bytes(4)
            + pack("<III", _RANGE_SECTORS, _RANGES, 1)
            + pack("<IIB3x", _RANGE_SECTORS, _RANGES, 1)
        )

    def process(self, queue: int, request: Request) -> int:
        """One request. A chain without a header to read or a status byte to write is broken."""
        if sum(part.size for part in request.readable) < _HEADER or not sum(part.size for part in request.writable):
            raise Broken("a request without header or status")
        header, data_out = _split(request.readable, _HEADER)
        data_in, status_at = _split(request.writable, sum(part.size for part in request.writable) - 1)
        kind, _, sector = unpack("<IIQ", b"".join(self._load(part) for part in header))
        status, written = self._do(kind, sector, data_out, data_in)
        (place,) = [part for part in status_at if part.size]
        if self.write(place.iova, bytes([status])) is not DmaStatus.DONE:
            raise Broken("the status cannot be written")
        return written + 1

    def _do(self, kind: int, sector: int, data_out: list[Segment], data_in: list[Segment]) -> tuple[int, int]:
        """(status, bytes written into the request)."""
        if kind == IN:
            return self._read(sector, data_in)
        if kind == OUT:
            return self._write(sector, data_out), 0
        if kind == FLUSH_REQUEST:
            self.disk.flush()
            return OK, 0
        if kind == GET_ID:
            return self._identify(data_in)
        if kind in (DISCARD_REQUEST, WRITE_ZEROES_REQUEST):
            return self._clear(kind, data_out), 0
        return UNSUPPORTED, 0

    def _fits(self, sector: int, parts: list[Segment]) -> bool:
        size = sum(part.size for part in parts)
        legal = all(part.size <= _SEGMENT_BYTES for part in parts) and size % SECTOR == 0
        return legal and sector <= self.disk.sectors and size // SECTOR <= self.disk.sectors - sector

    def _read(self, sector: int, parts: list[Segment]) -> tuple[int, int]:
        if not self._fits(sector, parts):
            return ERROR, 0
        at = sector * SECTOR
        status = OK
        for part in parts:
            if self.write(part.iova, self.disk.read(at, part.size)) is not DmaStatus.DONE:
                status = ERROR
            at += part.size
        return status, at - sector * SECTOR

    def _write(self, sector: int, parts: list[Segment]) -> int:
        if self.disk.read_only or not self._fits(sector, parts):
            return ERROR
        at = sector * SECTOR
        for part in parts:
            data = self.read(part.iova, part.size)
            if self.status is not DmaStatus.DONE:
                return ERROR
            self.disk.write(at, data)
            at += part.size
        return OK

    def _identify(self, parts: list[Segment]) -> tuple[int, int]:
        text = self.identity.encode("ascii", "replace").ljust(20, b"\0")
        done = 0
        for part in parts:
            piece = text[done : done + part.size]
            if piece and self.write(part.iova, piece) is not DmaStatus.DONE:
                return ERROR, done
            done += len(piece)
        return OK, done

    def _clear(self, kind: int, parts: list[Segment]) -> int:
        """DISCARD and WRITE_ZEROES: ranges of {sector, sectors, flags}; both leave zeros."""
        size = sum(part.size for part in parts)
        if not self.has_feature(DISCARD if kind == DISCARD_REQUEST else WRITE_ZEROES):
            return UNSUPPORTED
        if size % 16 or not 0 < size <= 16 * _RANGES:
            return ERROR
        ranges = b"".join(self._load(part) for part in parts)
        wanted = [unpack("<QII", ranges[i : i + 16]) for i in range(0, size, 16)]
        for sector, sectors, flags in wanted:
            if flags & ~_UNMAP or (flags and kind == DISCARD_REQUEST):
                return UNSUPPORTED
            if sectors > _RANGE_SECTORS or sector > self.disk.sectors or sectors > self.disk.sectors - sector:
                return ERROR
        for sector, sectors, _ in wanted:
            for first in range(sector, sector + sectors, _SEGMENT_BYTES // SECTOR):
                count = min(_SEGMENT_BYTES // SECTOR, sector + sectors - first)
                self.disk.write(first * SECTOR, bytes(count * SECTOR))
        return OK

    def _load(self, part: Segment) -> bytes:
        data = self.read(part.iova, part.size)
        if self.status is not DmaStatus.DONE:
            raise Broken(f"the request at {part.iova:#x} cannot be read")
        return data


def _split(parts: tuple[Segment, ...], size: int) -> tuple[list[Segment], list[Segment]]:
    """The first `size` bytes of a list of segments, and the rest: where one ends is for the driver to choose."""
    head: list[Segment] = []
    tail: list[Segment] = []
    for part in parts:
        piece = min(size, part.size)
        if piece:
            head.append(Segment(part.iova, piece))
        if part.size > piece:
            tail.append(Segment(part.iova + piece, part.size - piece))
        size -= piece
    return head, tail
