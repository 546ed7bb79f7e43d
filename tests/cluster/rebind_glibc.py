"""Let programs that were built against glibc 2.38 start with glibc 2.34: `rebind_glibc.py FILE …`.

That is possible where all they take from 2.38 are its new names for strtol, scanf and their
relatives (`__isoc23_strtol` for `strtol`). In place, no section moves: such a symbol's name is
pointed past its prefix and bound to the oldest version of the library, and the need for version
2.38 becomes a second need for that one. Any other symbol that is too new ends the program, with no
file changed. For 64-bit little-endian ELF on x86-64.
"""

import struct
import sys
from pathlib import Path

NEWEST = (2, 36)  # the glibc of Debian 12
OLDEST = b"GLIBC_2.2.5"  # what every x86-64 glibc has
PREFIX = b"__isoc23_"
DYNSYM, VERNEED, VERSYM = 11, 0x6FFFFFFE, 0x6FFFFFFF  # types of sections


def rebound(elf: bytearray) -> list[str]:
    """Rebind the symbols of a program in memory, and return their names.

    Raises ValueError naming the symbols that have no older counterpart.
    """
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    sections = {section[1]: section for section in _sections(elf)}
    symbols, versions, needs = sections[DYNSYM], sections[VERSYM], sections[VERNEED]
    strings = list(_sections(elf))[symbols[6]][4]

    needed = dict(_needed(elf, needs[4], strings))
    oldest = next(index for index, (name, _) in needed.items() if name == OLDEST)
    too_new = {index for index, (name, _) in needed.items() if _number(name) > NEWEST}

    renamed, without = [], []
    for i in range(symbols[5] // 24):
        symbol, version = symbols[4] + 24 * i, versions[4] + 2 * i
        if struct.unpack_from("<H", elf, version)[0] & 0x7FFF not in too_new:
            continue
        start = struct.unpack_from("<I", elf, symbol)[0]
        name = _string(elf, strings + start)
        if name.startswith(PREFIX):
            struct.pack_into("<I", elf, symbol, start + len(PREFIX))
            struct.pack_into("<H", elf, version, oldest)
            renamed.append(name.decode())
        else:
            without.append(name.decode())
    if without:
        raise ValueError(f"needs of a newer glibc: {', '.join(without)}")
    hash_and_name = needed[oldest][1]
    for index in too_new:
        at = needed[index][1]
        elf[at : at + 4] = elf[hash_and_name : hash_and_name + 4]
        elf[at + 8 : at + 12] = elf[hash_and_name + 8 : hash_and_name + 12]
    return renamed


def _sections(elf: bytearray):
    """Section headers: name, type, flags, address, offset, size, link, …"""
    (offset,) = struct.unpack_from("<Q", elf, 0x28)
    size, count = struct.unpack_from("<HH", elf, 0x3A)
    return (struct.unpack_from("<IIQQQQIIQQ", elf, offset + i * size) for i in range(count))


def _needed(elf: bytearray, offset: int, strings: int):
    """The versions needed of the libraries: index, (name, offset of the entry)."""
    while True:
        _, count, _, entry, after = struct.unpack_from("<HHIII", elf, offset)
        entry += offset
        for _ in range(count):
            _, _, index, name, step = struct.unpack_from("<IHHII", elf, entry)
            yield index, (_string(elf, strings + name), entry)
            entry += step
        if not after:
            return
        offset += after


def _string(elf: bytearray, offset: int) -> bytes:
    return bytes(elf[offset : elf.index(0, offset)])


def _number(version: bytes) -> tuple[int, ...]:
    """(2, 38) of GLIBC_2.38; () of another library's version."""
    if not version.startswith(b"GLIBC_2."):
        return ()
    return tuple(int(part) for part in version[6:].split(b"."))


def main() -> None:
    programs = {Path(name): bytearray(Path(name).read_bytes()) for name in sys.argv[1:]}
    for path, elf in programs.items():
        try:
            print(f"{path.name}: {', '.join(rebound(elf)) or 'nothing to rebind'}")
        except ValueError as error:
            sys.exit(f"error: {path}: {error}")
    for path, elf in programs.items():
        path.write_bytes(elf)


if __name__ == "__main__":
    main()
