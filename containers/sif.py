"""The image file: a folder as squashfs inside Apptainer's SIF, with the same bits every time.

`apptainer build` writes times and a random identifier into both. Here the times are constant, the
identifier is made of the content, and the program that compresses is a locked one.
"""

import hashlib
import struct
import subprocess
import uuid
from pathlib import Path

TIME = 1_767_225_600  # 2026-01-01: of every file in an image, and of the image
N_DESCRIPTORS, DESCRIPTORS_AT, DESCRIPTOR_SIZE, DATA_AT = 48, 4096, 585, 32768
LAUNCH = b"#!/usr/bin/env run-singularity\n"
# The content's kind, in SIF's numbers.
FILE_SYSTEM, SQUASHFS, PRIMARY, AMD64 = 0x4004, 1, 2, b"02"


def normalize(root: Path) -> None:
    """Permissions that depend on neither the packer nor this user's umask: 755 or 644."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o111
            path.chmod(0o755 if executable else 0o644)


def write(root: Path, file: Path, mksquashfs: list[str | Path]) -> None:
    """Write a folder as an image: an empty header, the squashfs behind it, then the header."""
    options = ["-noappend", "-reproducible", "-all-root", "-no-xattrs", "-no-progress", "-quiet"]
    options += ["-mkfs-time", str(TIME), "-all-time", str(TIME), "-offset", str(DATA_AT)]
    options += ["-comp", "zstd", "-Xcompression-level", "6", "-b", "256K"]
    subprocess.run([*mksquashfs, root, file, *options], check=True)
    with file.open("r+b") as image:
        image.seek(DATA_AT)
        content = hashlib.file_digest(image, "sha256")
        image.seek(0)
        image.write(header(file.stat().st_size - DATA_AT, content.digest()))
    file.chmod(0o755)


def header(size: int, content: bytes) -> bytes:
    """All that stands before the data: SIF's global header and the descriptor of its one object.

    size: of the data, in bytes. content: its sha256.
    """
    table_end = DESCRIPTORS_AT + N_DESCRIPTORS * DESCRIPTOR_SIZE
    padded = DATA_AT - table_end + size  # the object counts from the end of the table
    identifier = uuid.uuid5(uuid.NAMESPACE_OID, content.hex()).bytes
    whole = struct.pack(
        "<32s10s3s3s16s", LAUNCH, b"SIF_MAGIC\0", b"01\0", AMD64 + b"\0", identifier
    )
    free = N_DESCRIPTORS - 1
    counts = (free, N_DESCRIPTORS, DESCRIPTORS_AT, table_end - DESCRIPTORS_AT, table_end, padded)
    whole += struct.pack("<8q", TIME, TIME, *counts)

    group = 0xF0000000 | 1
    place = struct.pack("<i?III", FILE_SYSTEM, True, 1, group, 0)
    place += struct.pack("<7q", DATA_AT, size, padded, TIME, TIME, 0, 0)
    kind = struct.pack("<128sii3s", b"rootfs", SQUASHFS, PRIMARY, AMD64 + b"\0")
    return (whole.ljust(DESCRIPTORS_AT, b"\0") + place + kind).ljust(DATA_AT, b"\0")
