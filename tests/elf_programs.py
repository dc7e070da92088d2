"""ELF files for tests, put together by hand."""

from struct import Struct

HEADER = Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = Struct("<IIQQQQQQ")
ADDRESS = 0x40_0000
LOAD = 1


def header(
    *, ident=b"\x7fELF\x02\x01\x01", kind=2, machine=62, entry=ADDRESS, count=1, entry_size=56, offset=64
) -> bytes:
    """An ELF header; the program headers follow it."""
    return HEADER.pack(ident.ljust(16, b"\0"), kind, machine, 1, entry, offset, 0, 0, 64, entry_size, count, 0, 0, 0)


def file_of(*segments, **changes) -> bytes:
    """A file with the given (kind, address, bytes, memory size); all bytes come behind the headers."""
    at = 64 + 56 * len(segments)
    table, data = b"", b""
    for kind, address, content, memory in segments:
        table += PROGRAM_HEADER.pack(kind, 5, at + len(data), address, address, len(content), memory, 4096)
        data += content
    return header(count=len(segments), **changes) + table + data


def program(code: bytes, *, address=ADDRESS) -> bytes:
    """A program that begins with the first byte of `code`."""
    return file_of((LOAD, address, code, len(code)), entry=address)
