"""Makes the codestreams in this folder with encoders that are not ours: libjpeg-turbo, CharLS and OpenJPEG, through
PyPI's imagecodecs and Pillow. The picture is the one of `picture()` in tests/codecs.rs; nothing here shows a patient.

    pip install imagecodecs numpy pillow && python tests/data/codecs/make.py
"""

import io
import pathlib

import imagecodecs
import numpy
import PIL.Image

HERE = pathlib.Path(__file__).parent
ROWS, COLUMNS = 45, 52


def picture(bits):
    """Slopes, flat fields and noise, in tiles of 8 × 8."""
    y, x = numpy.mgrid[0:ROWS, 0:COLUMNS].astype(numpy.int64)
    tile = (x // 8 + y // 8) % 3
    slope = (x * x + 3 * y * y + x * y) * (1 << bits) // 16384
    noise = ((x * 73) ^ (y * 151)) % 7
    value = numpy.where(tile == 0, 1 << (bits - 1), slope + numpy.where(tile == 1, noise, 0))
    return (value % (1 << bits)).astype(numpy.uint8 if bits == 8 else numpy.uint16)


def write(name, data):
    (HERE / name).write_bytes(bytes(data))


for predictor in range(1, 8):
    data = imagecodecs.jpeg8_encode(picture(12), lossless=True, predictor=predictor, bitspersample=12)
    write(f"lossless-12-p{predictor}.jpg", data)
for bits in (8, 10, 16):
    write(f"lossless-{bits}-p1.jpg", imagecodecs.jpeg8_encode(picture(bits), lossless=True, predictor=1, bitspersample=bits))
for bits in (8, 12):
    write(f"dct-{bits}.jpg", imagecodecs.jpeg8_encode(picture(bits), level=97, bitspersample=bits))
for bits in (8, 16):
    write(f"lossless-{bits}.jls", imagecodecs.jpegls_encode(picture(bits)))
    write(f"near-3-{bits}.jls", imagecodecs.jpegls_encode(picture(bits), level=3))
for bits in (8, 10, 12, 16):
    write(f"lossless-{bits}.j2k", imagecodecs.jpeg2k_encode(picture(bits), codecformat="j2k", reversible=True, bitspersample=bits))
restarts = io.BytesIO()
PIL.Image.fromarray(picture(8)).save(restarts, "JPEG", quality=97, restart_marker_blocks=5)
write("dct-8-restarts.jpg", restarts.getvalue())
signed = picture(12).astype(numpy.int16) - 2048
write("signed-16.j2k", imagecodecs.jpeg2k_encode(signed, codecformat="j2k", reversible=True))
