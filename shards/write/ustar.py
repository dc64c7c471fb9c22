"""Makes one member of a tar: header, content, padding.

The header is a template of the standard library's `tarfile`, with name, size and checksum filled in. The
bytes are the same (a test compares them), in a tenth of the time. The header holds no time, user or machine,
so the same content gives the same bytes.
"""

from __future__ import annotations

import tarfile

BLOCK = 512
NAME_BYTES = 100
_SIZE, _SUM = slice(124, 136), slice(148, 156)


def _template() -> bytes:
    member = tarfile.TarInfo("")
    member.mode = 0o444
    return member.tobuf(tarfile.USTAR_FORMAT)


_HEADER = _template()
# The checksum is computed with its own eight bytes as spaces (POSIX ustar).
# This sum is that of the template without a name and a size: each member adds the bytes of its own.
_BARE_SUM = sum(_HEADER[: _SUM.start]) + 8 * 0x20 + sum(_HEADER[_SUM.stop :]) - sum(_HEADER[_SIZE])


def member(name: str, data: bytes) -> bytes:
    """Returns a file as a member of a tar: a header of 512 bytes, the data, zeros up to a whole block.

    ValueError unless the name is ASCII of at most 100 letters.
    """
    plain = name.encode("ascii")
    if len(plain) > NAME_BYTES:
        raise ValueError(f"{name} is longer than the {NAME_BYTES} letters of a plain tar header")
    size = b"%011o\0" % len(data)
    header = bytearray(_HEADER)
    header[: len(plain)] = plain
    header[_SIZE] = size
    header[_SUM] = b"%06o\0 " % (_BARE_SUM + sum(plain) + sum(size))
    return b"".join((header, data, bytes(-len(data) % BLOCK)))


def padded(size: int) -> int:
    """The size rounded up to whole blocks, in bytes."""
    return -(-size // BLOCK) * BLOCK
