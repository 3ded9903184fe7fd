"""Draws grey pictures as PNG, each another one, for a container that has no Python. They are no radiographs.

Usage: images.py FOLDER COUNT
"""

import pathlib
import struct
import sys
import zlib


def png(seed, size=256):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + bytes((x * (seed + 3) // 7 + y * (seed % 11 + 1) // 5) & 255 for x in range(size)) for y in range(size)
    )
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main():
    folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    for seed in range(count):
        (folder / f"{seed:02}.png").write_bytes(png(seed))


if __name__ == "__main__":
    main()
