"""Writes what a fuzz target starts from: small synthetic inputs of every kind that the code knows.

Usage: seeds.py TARGET FOLDER
Real DICOM files of ../shared (or $ROENTGEN_SHARED) that are small are added for `radiograph` where they are there.
"""

import io
import json
import os
import pathlib
import struct
import sys
import tarfile
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUNDLE = ROOT / "models" / "cxr-vgg16"
UID = "1.2.840.10008.1.2"


def element(tag, vr, value, syntax):
    """One data element in implicit, explicit or big-endian form."""
    order = ">" if syntax == UID + ".2" else "<"
    if isinstance(value, str):
        value = value.encode()
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    head = struct.pack(order + "HH", *tag)
    if syntax == UID:
        return head + struct.pack("<I", len(value)) + value
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return head + vr.encode() + struct.pack(order + "HI", 0, len(value)) + value
    return head + vr.encode() + struct.pack(order + "H", len(value)) + value


def sequence(tag, inner, syntax):
    """A sequence of one item, both of undefined length."""
    order = ">" if syntax == UID + ".2" else "<"
    mark = lambda number: struct.pack(order + "HHI", 0xFFFE, number, 0)
    start = struct.pack(order + "HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    head = element(tag, "SQ", b"", syntax)[:-4] + b"\xff\xff\xff\xff"
    return head + start + inner + mark(0xE00D) + mark(0xE0DD)


def dicom(syntax, pixels=None, fragments=None, rows=16, columns=16, bits=8, stored=None, photometric="MONOCHROME2", more=()):
    """A Part 10 file of a small chest radiograph."""
    order = ">" if syntax == UID + ".2" else "<"
    number = lambda value: struct.pack(order + "H", value)
    stored = stored or bits
    inner = element((8, 0x100), "SH", "51185008", syntax)
    parts = [
        element((8, 0x16), "UI", "1.2.840.10008.5.1.4.1.1.1", syntax),
        element((8, 0x18), "UI", "1.2.3.4.5", syntax),
        element((8, 0x60), "CS", "CR", syntax),
        sequence((8, 0x2218), inner, syntax),
        element((0x10, 0x10), "PN", "Doe^Jane", syntax),
        element((0x18, 0x15), "CS", "CHEST", syntax),
        element((0x18, 0x5101), "CS", "PA", syntax),
        element((0x20, 0xD), "UI", "1.2.3.4", syntax),
        element((0x20, 0xE), "UI", "1.2.3.4.6", syntax),
        element((0x28, 2), "US", number(3 if photometric in ("RGB", "YBR_FULL") else 1), syntax),
        element((0x28, 4), "CS", photometric, syntax),
        *([element((0x28, 6), "US", number(0), syntax)] if photometric in ("RGB", "YBR_FULL") else []),
        element((0x28, 8), "IS", "1", syntax),
        element((0x28, 0x10), "US", number(rows), syntax),
        element((0x28, 0x11), "US", number(columns), syntax),
        element((0x28, 0x100), "US", number(bits), syntax),
        element((0x28, 0x101), "US", number(stored), syntax),
        element((0x28, 0x102), "US", number(stored - 1), syntax),
        element((0x28, 0x103), "US", number(0), syntax),
        *more,
    ]
    if fragments is not None:
        head = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
        items = b"".join(
            struct.pack("<HHI", 0xFFFE, 0xE000, len(one) + len(one) % 2) + one + b"\0" * (len(one) % 2)
            for one in [b"", *fragments]
        )
        parts.append(head + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
    elif pixels is not None:
        parts.append(element((0x7FE0, 0x10), "OW" if bits == 16 else "OB", pixels, syntax))
    meta = element((2, 1), "OB", b"\0\1", UID + ".1") + element((2, 0x10), "UI", syntax, UID + ".1")
    body = b"".join(parts)
    if syntax == UID + ".1.99":
        deflate = zlib.compressobj(wbits=-15)
        body = deflate.compress(body) + deflate.flush()
    return b"\0" * 128 + b"DICM" + element((2, 0), "UL", struct.pack("<I", len(meta)), UID + ".1") + meta + body


def png(width, height, depth, colour, scanlines, more=b""):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rest = chunk(b"IDAT", zlib.compress(scanlines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + rest


def radiograph():
    grey = bytes(range(256))
    wide = b"".join(struct.pack("<H", value * 16) for value in range(256))
    for name, end in (("implicit", ""), ("explicit", ".1"), ("big", ".2"), ("deflated", ".1.99")):
        yield name, dicom(UID + end, grey)
        yield name + "-16", dicom(UID + end, wide, bits=16, stored=12)
    explicit = UID + ".1"
    window = [element(tag, "DS", value, explicit) for tag, value in
              (((0x28, 0x1050), "100"), ((0x28, 0x1051), "50"), ((0x28, 0x1052), "-10"), ((0x28, 0x1053), "1.5"))]
    window.append(element((0x28, 0x1056), "LO", "SIGMOID", explicit))
    yield "window", dicom(explicit, grey, photometric="MONOCHROME1", more=window)
    table = element((0x28, 0x3002), "US", struct.pack("<HHH", 256, 0, 8), explicit)
    table += element((0x28, 0x3006), "OW", wide, explicit)
    yield "tables", dicom(explicit, grey, more=[sequence((0x28, tag), table, explicit) for tag in (0x3000, 0x3010)])
    yield "colour", dicom(explicit, bytes(768), photometric="RGB")
    yield "ybr", dicom(explicit, b"\x80" * 768, photometric="YBR_FULL")
    runs = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x7f" + bytes(range(128)) + b"\x7f" + bytes(range(128))
    yield "rle", dicom(UID + ".5", fragments=[runs])
    bare = dicom(explicit, grey)
    yield "bare", bare[bare.index(b"\x08\x00\x16\x00"):]
    data = ROOT / "tests" / "data" / "codecs"
    codes = {"dct-8": "50", "dct-12": "51", "lossless": "57", "j2k": "90", "jls": "80"}
    for path in sorted(data.iterdir()):
        stream = path.read_bytes()
        if path.suffix not in (".jpg", ".j2k", ".jls") or len(stream) > 20000:
            continue
        kind = path.suffix[1:] if path.suffix != ".jpg" else next(k for k in codes if path.name.startswith(k))
        bits = int(path.stem.replace("-", " ").split()[1 if "near" not in path.stem else 2]) if any(
            part.isdigit() for part in path.stem.split("-")) else 8
        size = extent(stream, path.suffix)
        yield path.name, dicom(f"{UID}.4.{codes[kind]}", fragments=[stream], rows=size[0], columns=size[1],
                               bits=8 if bits <= 8 else 16, stored=bits)
        if path.suffix == ".jpg":
            yield "bare-" + path.name, stream
    lines = b"".join(b"\0" + grey[:16] for _ in range(16))
    yield "png", png(16, 16, 8, 0, lines)
    yield "png-16", png(8, 16, 16, 0, lines)
    yield "png-colour", png(5, 16, 8, 2, b"".join(b"\0" + b"\x40" * 15 for _ in range(16)))
    yield "png-alpha", png(8, 16, 8, 4, lines)
    shared = pathlib.Path(os.environ.get("ROENTGEN_SHARED", ROOT.parent / "shared"))
    for path in sorted(shared.glob("dicom*/**/*")):
        if path.is_file() and path.stat().st_size < 60000:
            yield "shared-" + path.name, path.read_bytes()


def extent(stream, suffix):
    """Rows and columns of a codestream."""
    if suffix == ".j2k":
        at = stream.index(b"\xff\x51")
        return struct.unpack(">II", stream[at + 6:at + 14])[::-1]
    for at in range(len(stream) - 9):
        if stream[at] == 0xFF and stream[at + 1] in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7):
            return struct.unpack(">HH", stream[at + 5:at + 9])
    return (16, 16)


def config():
    text = (ROOT / "src" / "config" / "default.toml").read_text()
    yield "default", text.encode()
    lines = [line.removeprefix("# ") if " = " in line and line.startswith("# ") else line for line in text.splitlines()]
    yield "all", "\n".join(line for line in lines if not line.startswith("#")).encode()
    yield "tls", b'[mqtt]\nurl = "mqtts://broker:8883"\nclient_certificate = "/a.pem"\nclient_key = "credential:key"\n'
    yield "address", b'[mqtt]\nurl = "mqtt://[::1]:1883"\n[source.folder]\nincoming = "/srv/in"\n'


def report():
    finding = [{"label": label, "probability": 0.25} for label in ("covid", "lung_opacity", "normal", "viral_pneumonia")]
    origin = {"kind": "dicom", "content_sha256": "00", "study": "a", "series": "b", "instance": "c", "modality": "DX", "view": "PA"}
    whole = {
        "schema": "roentgen.report/1", "report_id": "1", "device": "box-1", "sequence": 7,
        "received_at": "2026-11-23T06:03:02Z", "clock": "synchronised", "origin": origin,
        "model": {"name": "m", "version": "1.0.0", "sha256": "00"}, "backend": "native", "findings": finding,
        "decision": {"status": "reported", "label": "normal"},
        "timing_ms": {"decode": 9.1, "preprocess": 2.0, "infer": 10.9, "total": 22.0}, "notice": "Screening aid.",
    }
    yield "reported", json.dumps(whole).encode()
    reason = {"code": "low_confidence", "message": "it is not sure", "value": 0.4, "limit": 0.5}
    whole["decision"] = {"status": "abstained", "reasons": [reason]}
    whole["evidence_map"] = {"rows": 1, "columns": 1, "logits": [1.5, -2, 3e9, 0]}
    whole["origin"] = {"kind": "raster", "content_sha256": "00"}
    yield "abstained", json.dumps(whole).encode()


def bundle():
    manifest, signature = (BUNDLE / "bundle.toml").read_bytes(), (BUNDLE / "bundle.sig").read_bytes()
    yield "signed", manifest + b"\0" + signature
    yield "unsigned", manifest
    yield "forged", manifest.replace(b"0.9", b"0.8", 1) + b"\0" + signature


def archive():
    def tar(kind, members):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=kind) as file:
            for name, how, content in members:
                info = tarfile.TarInfo(name)
                info.type = how
                info.size = len(content) if how == tarfile.REGTYPE else 0
                info.linkname = content.decode() if how in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
                file.addfile(info, io.BytesIO(content) if how == tarfile.REGTYPE else None)
        return out.getvalue()[:4096]

    file, folder = tarfile.REGTYPE, tarfile.DIRTYPE
    plain = [("m", folder, b""), ("m/bundle.toml", file, b"a = 1"), ("m/golden", folder, b""), ("m/golden/0", file, b"1")]
    for name, kind in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        yield name, tar(kind, plain)
        yield name + "-long", tar(kind, [("m/" + "n" * 90 + "/" + "o" * 40, file, b"1")])
    yield "up", tar(tarfile.USTAR_FORMAT, [("../bundle.tar", file, b"1")])
    yield "absolute", tar(tarfile.USTAR_FORMAT, [("/tmp/roentgen", file, b"1")])
    yield "link", tar(tarfile.USTAR_FORMAT, [("m", tarfile.SYMTYPE, b".."), ("m/bundle.tar", file, b"1")])
    yield "hard", tar(tarfile.USTAR_FORMAT, [("m", tarfile.LNKTYPE, b"../bundle.tar"), ("m", file, b"1")])
    yield "device", tar(tarfile.USTAR_FORMAT, [("m", tarfile.FIFOTYPE, b"")])


def command():
    manifest, signature = (BUNDLE / "bundle.toml").read_text(), (BUNDLE / "bundle.sig").read_text()
    yield "telemetry", b"telemetry\0"
    yield "reload", b'reload\0{"id": "1"}'
    yield "rollback", b'bundle/rollback\0{"id": "a.b:c"}'
    yield "file", b'bundle/install\0{"id": "2", "file": "m-1.0.0.tar"}'
    wanted = {"id": "3", "manifest": manifest, "signature": signature}
    yield "manifest", b"bundle/install\0" + json.dumps(wanted).encode()
    yield "unknown", b'shell\0{"id": "4", "run": "ls"}'


def wire():
    origin = {"kind": "dicom", "content_sha256": "0a" * 32, "study": "0b" * 16, "series": None, "instance": "0c" * 16,
              "modality": "DX", "view": "PA"}
    header = {"width": 4, "height": 4, "depth": 1, "origin": origin, "applied": ["window"]}
    packet = lambda answer, pixels=b"": json.dumps(answer).encode() + b"\0" + pixels
    yield "grey8", packet({"radiograph": header}, bytes(range(16)))
    yield "grey16", packet({"radiograph": header | {"depth": 2}}, bytes(range(32)))
    yield "short", packet({"radiograph": header}, bytes(15))
    yield "refused", packet({"refused": {"code": "damaged", "message": "It ends too early."}})
    yield "read", packet("read")
    yield "unread", packet({"unread": 5})


def association():
    def pdu(kind, body):
        return bytes([kind, 0]) + struct.pack(">I", len(body)) + body

    def value(context, control, data):
        return pdu(4, struct.pack(">IBB", len(data) + 2, context, control) + data)

    def command(*elements):
        parts = b""
        for number, content in elements:
            content += b"\0" * (len(content) % 2)
            parts += struct.pack("<HHI", 0, number, len(content)) + content
        return parts

    short = lambda number: struct.pack("<H", number)
    cr = b"1.2.840.10008.5.1.4.1.1.1"
    store = command((2, cr), (0x100, short(1)), (0x110, short(7)), (0x800, short(0)), (0x1000, b"1.2.3.4.5"))
    echo = command((2, b"1.2.840.10008.1.1"), (0x100, short(0x30)), (0x110, short(8)), (0x800, short(0x101)))
    data = dicom(UID + ".1", pixels=b"\x40" * 256)
    data = data[data.index(struct.pack("<HH", 8, 0x16)):]
    release = pdu(5, b"\0" * 4)
    yield "echo", b"\1" + value(1, 3, echo) + release
    yield "store", b"\1" + value(3, 3, store) + value(3, 0, data[:200]) + value(3, 2, data[200:]) + release
    yield "other", b"\1" + value(3, 3, store.replace(b"1.2.3.4.5", b"1.2.3.4.9")) + value(3, 2, data)
    yield "abort", b"\1" + value(3, 3, store) + pdu(7, b"\0" * 4)
    yield "web", b"\0GET / HTTP/1.1\r\n\r\n"


def network():
    # The target writes its own, with the code that packs bundles.
    return ()


def main():
    target, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    makers = [radiograph, config, report, bundle, archive, command, association, network, wire]
    for name, content in {maker.__name__: maker for maker in makers}[target]():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
