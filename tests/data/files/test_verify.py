"""What goes to the quarantine, and that the decoder of training agrees on the rest."""

import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import dicoms
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, TiffImagePlugin

from pcamx.data.canvas.decode import decode_batches
from pcamx.data.prepare.verify import Facts, verify
from pcamx.data.store import Film, Store

WIDTH, HEIGHT = 64, 48
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]
GREY = (2 * X + Y).clip(0, 255).astype(np.uint8)
COLOUR = np.stack([GREY, np.roll(GREY, 5, 1), 255 - GREY], -1)
L, RGB = Image.fromarray(GREY), Image.fromarray(COLOUR)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.copy().save(file, kind, **options)  # a copy, since a JPEG's options stay with an image
    return file.getvalue()


def turned(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = turn
    return exif


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(depth: int, colour: int, samples: np.ndarray) -> bytes:
    """A PNG of 16-bit samples in a colour type that Pillow does not write."""
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


PNG, JPEG = encoded(L, "PNG"), encoded(L, "JPEG", quality=95)
DEEP = GREY.astype(np.uint16) * 16
FAINT = L.rotate(180).point(lambda level: max(level, 1))
CLEAR = L.point(lambda level: 255 * (level > 60))

SOUND: dict[str, bytes] = {
    "grey.png": PNG,
    "colour.png": encoded(RGB, "PNG"),
    "alpha.png": encoded(Image.merge("LA", [L, FAINT]), "PNG"),
    "rgba.png": encoded(Image.merge("RGBA", [*RGB.split(), FAINT]), "PNG"),
    "all clear.png": encoded(Image.merge("LA", [L, L.point(lambda _: 0)]), "PNG"),
    "clear where black.png": encoded(L, "PNG", transparency=0),
    "palette.png": encoded(RGB.quantize(64), "PNG"),
    "one bit.png": encoded(L.convert("1"), "PNG"),
    "12 of 16 bit.png": encoded(Image.fromarray(DEEP), "PNG"),
    "8 of 16 bit.png": encoded(Image.fromarray(GREY.astype(np.uint16)), "PNG"),
    "16 bit turned.png": encoded(Image.fromarray(DEEP), "PNG", exif=turned(8)),
    "turned.png": encoded(L, "PNG", exif=turned(6)),
    "grey.jpg": JPEG,
    "turned.jpg": encoded(L, "JPEG", quality=95, exif=turned(5)),
    "flipped.jpg": encoded(RGB, "JPEG", quality=95, exif=turned(2)),
    "progressive.jpg": encoded(RGB, "JPEG", quality=95, progressive=True),
    "jpeg named.png": JPEG,
    "png named.jpg": PNG,
    "lzw.tif": encoded(L, "TIFF", compression="tiff_lzw"),
    "16 bit.tif": encoded(Image.fromarray(DEEP), "TIFF"),
    "grey.bmp": encoded(L, "BMP"),
    "palette.bmp": encoded(RGB.quantize(64), "BMP"),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_film_and_the_decoder_that_training_uses(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(SOUND[name])
    facts = verify(tmp_path / name)
    assert isinstance(facts, Facts)
    with Image.open(tmp_path / name) as image:
        upright = ImageOps.exif_transpose(image)
        deep = upright.mode.startswith("I")
        levels = np.asarray(upright if deep else upright.convert("L")).astype(np.float64)
    white = {"12 of 16 bit.png": 4095, "16 bit turned.png": 4095, "16 bit.tif": 4095}
    assert facts.white == white.get(name, 256 if name == "8 of 16 bit.png" else 255)
    levels *= 255 / facts.white
    assert (facts.height, facts.width) == levels.shape
    assert facts.mean == pytest.approx(levels.mean(), abs=1)
    assert facts.mean_square == pytest.approx((levels**2).mean(), rel=0.02)

    film = Film(name, 0, "p", "s", "", "train", *facts[:3], "")
    store = Store(tmp_path, tmp_path, (film,), 0, 1)
    (canvas,) = decode_batches(store.root, [film], [[0]], 64, device=torch.device("cpu"), threads=1)
    rows, columns = (64 - facts.height) // 2, (64 - facts.width) // 2
    shown = canvas[0, 0, rows : 64 - rows, columns : 64 - columns].numpy().astype(np.float64)
    # Luma of a colour JPEG differs by a few levels where Pillow's RGB is clipped.
    assert np.abs(shown - levels).mean() < 1 and np.abs(shown - levels).max() <= 14


def more() -> dict[str, object]:
    return {"save_all": True, "append_images": [L.rotate(90)]}


def multipage() -> bytes:
    return encoded(L, "TIFF", **more())


def link_to_nowhere() -> bytes:
    data = bytearray(encoded(L, "TIFF"))
    (entries,) = struct.unpack_from("<I", data, 4)
    link = entries + 2 + 12 * struct.unpack_from("<H", data, entries)[0]
    data[link : link + 4] = struct.pack("<I", 1 << 30)
    return bytes(data)


def tiff(tags: list[tuple[int, int, int, int]], body: bytes = b"") -> bytes:
    """One page: rows of tag, type, count and value, and what follows them."""
    rows = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(4) + body


def huge_tile(count: int = 1) -> bytes:
    """64 x 64 pixels in a tile of 4 gigapixels, deflated to some bytes."""
    packed = zlib.compress(bytes(1 << 16))
    at = 8 + 2 + 12 * 10 + 4
    short, long = 3, 4
    tags = [(256, short, 1, 64), (257, short, 1, 64), (258, short, 1, 8), (259, short, 1, 8)]
    tags += [(262, short, 1, 1), (277, short, 1, 1), (322, long, count, 1 << 16)]
    tags += [(323, long, count, 1 << 16), (324, long, 1, at), (325, long, 1, len(packed))]
    return tiff(tags, packed)


def many_scans() -> bytes:
    scan = JPEG.index(b"\xff\xda")
    return JPEG[:scan] + JPEG[scan:-2] * 101 + JPEG[-2:]


def min_is_white() -> bytes:
    data = bytearray(encoded(L, "TIFF"))
    tag = data.index(struct.pack("<HHI", 262, 3, 1))
    data[tag + 8 : tag + 10] = b"\0\0"
    return bytes(data)


def xmp_turned() -> bytes:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
        b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></x:xmpmeta>'
    )
    return encoded(L, "JPEG", xmp=xmp)


def bad_marker() -> bytes:
    data = bytearray(JPEG)
    data[data.index(b"\xff\xdb")] = 0
    return bytes(data)


def damaged_strip() -> bytes:
    """An LZW strip with bytes that are none of its codes, which DALI's decoder reads as garbage."""
    y, x = np.mgrid[:200, :300]
    film = Image.fromarray(((x * y) % 251).astype(np.uint8))
    data = bytearray(encoded(film, "TIFF", compression="tiff_lzw"))
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xff" * 64
    return bytes(data)


def exif(kind: int) -> bytes:
    """Big endian, an orientation of 3 of a type: 3 is SHORT, as EXIF has it, 4 LONG."""
    value = struct.pack(">HH", 3, 0) if kind == 3 else struct.pack(">I", 3)
    return b"MM\0*" + struct.pack(">IHHHI", 8, 1, 274, kind, 1) + value + bytes(4)


def turned(kind: int) -> bytes:
    return encoded(L, "JPEG", exif=b"Exif\0\0" + exif(kind))


def turned_by_two() -> bytes:
    data = turned(3)
    more = b"Exif\0\0" + exif(3).replace(struct.pack(">HH", 3, 0), struct.pack(">HH", 1, 0))
    at = data.index(b"\xff\xe1") + 4 + len(b"Exif\0\0" + exif(3))
    return data[:at] + b"\xff\xe1" + struct.pack(">H", len(more) + 2) + more + data[at:]


def turned_by_a_prefix() -> bytes:
    end = PNG.index(b"IDAT") - 4
    return PNG[:end] + chunk(b"eXIf", b"Exif\0\0" + exif(3)) + PNG[end:]


def twelve_bits() -> bytes:
    rows, at = bytes(8 * 12), 8 + 2 + 12 * 8 + 4
    tags = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1)]
    return tiff([*tags, (277, 3, 1, 1), (273, 4, 1, at), (279, 4, 1, len(rows))], rows)


WITHIN = TiffImagePlugin.ImageFileDirectory_v2()
WITHIN[330], WITHIN.tagtype[330] = 8, 4  # SubIFDs, where viewers look for what is larger
WIDE = np.stack([DEEP, DEEP, DEEP], -1)
UNFIT: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "text": (lambda: b"not a picture" * 20, "not an image"),
    "PNG cut short": (lambda: PNG[: len(PNG) // 2], "damaged"),
    "PNG without its end": (lambda: PNG[:-12], "damaged"),
    "PNG with a wrong checksum": (lambda: PNG[:-20] + b"\0\0\0\0" + PNG[-16:], "damaged"),
    "JPEG cut short": (lambda: JPEG[: len(JPEG) * 2 // 3], "damaged: .*truncated"),
    "JPEG without its last bytes": (lambda: JPEG[:-2], "damaged"),
    "JPEG with a broken marker": (bad_marker, "damaged|not an image"),
    "CMYK JPEG": (lambda: encoded(RGB.convert("CMYK"), "JPEG"), "mode CMYK"),
    "16-bit RGB PNG": (lambda: png(16, 2, WIDE), "16 bits a channel in colour"),
    "16-bit alpha PNG": (lambda: png(16, 4, WIDE[..., :2]), "16 bits a channel in colour"),
    "white under alpha": (lambda: encoded(Image.merge("LA", [L, CLEAR]), "PNG"), "transparent"),
    "colour under alpha": (
        lambda: encoded(Image.merge("RGBA", [*RGB.split(), CLEAR]), "PNG"),
        "in part transparent, and not black underneath; save it without alpha",
    ),
    "a colour that is clear": (lambda: encoded(RGB, "PNG", transparency=(30, 20, 225)), "transp"),
    "a grey that is clear": (lambda: encoded(L, "PNG", transparency=99), "transparent"),
    "a deep grey that is clear": (
        lambda: encoded(Image.fromarray(DEEP), "PNG", transparency=1600),
        "transparent",
    ),
    "turned in XMP": (xmp_turned, "metadata other than EXIF"),
    "an orientation that is no short": (lambda: turned(4), "metadata that breaks EXIF's rules"),
    "two orientations": (turned_by_two, "turned by metadata"),
    "EXIF of a PNG with JPEG's prefix": (turned_by_a_prefix, "turned by metadata"),
    "TIFF with a damaged strip": (damaged_strip, "damaged: "),
    "12-bit TIFF": (twelve_bits, "12 bits a sample is not read; save it with 8 or 16"),
    "turned TIFF": (lambda: encoded(L, "TIFF", tiffinfo={274: 6}), "turned TIFF"),
    "palette TIFF": (lambda: encoded(L.convert("P"), "TIFF"), "TIFF of mode P"),
    "one-bit TIFF": (lambda: encoded(L.convert("1"), "TIFF"), "TIFF of mode 1"),
    "float TIFF": (lambda: encoded(L.convert("F"), "TIFF"), "TIFF of mode F"),
    "negative TIFF": (min_is_white, "photometric kind 0"),
    "TIFF of signed samples": (lambda: encoded(L, "TIFF", tiffinfo={339: 2}), "of signed"),
    "thumbnail": (lambda: encoded(L, "TIFF", tiffinfo={254: 1}), "a thumbnail or a mask"),
    "old thumbnail": (lambda: encoded(L, "TIFF", tiffinfo={255: 2}), "a thumbnail or a mask"),
    "mask of a film": (lambda: encoded(L, "TIFF", tiffinfo={254: 4}), "a thumbnail or a mask"),
    "TIFF with a larger one within": (lambda: encoded(L, "TIFF", tiffinfo=WITHIN), "several image"),
    "several pages": (multipage, "several images in one file"),
    "a link to a page that is not there": (link_to_nowhere, "several images in one file"),
    "a tile far larger than the image": (huge_tile, "tiles of 65536 x 65536 pixels"),
    "a tile size of several values": (lambda: huge_tile(count=2), "damaged|several|tiles"),
    "MPO": (lambda: encoded(L, "MPO", **more()), "several images in one file"),
    "animated PNG": (lambda: encoded(L, "PNG", **more()), "several images in one file"),
    "JPEG of 101 scans": (many_scans, "more than 100 scans"),
    "GIF": (lambda: encoded(L, "GIF"), "format GIF is not read; save it as PNG"),
    "WebP": (lambda: encoded(L, "WEBP"), "format WEBP is not read"),
    "DICOM": (lambda: bytes(128) + b"DICM" + bytes(99), "a DICOM without pixels, or cut short"),
    "narrow": (lambda: encoded(L.crop((0, 0, 7, 48)), "PNG"), "smaller than 8 pixels"),
    "too large": (lambda: encoded(Image.new("1", (8001, 8000)), "PNG"), "larger than 64 megapixel"),
    "bomb": (
        lambda: png(16, 0, np.zeros((1, 1))).replace(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 0, 0, 0, 0)),
            chunk(b"IHDR", struct.pack(">IIBBBBB", 10**6, 10**6, 16, 0, 0, 0, 0)),
        ),
        "larger than 64 megapixel",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_unfit_film_and_why(tmp_path: Path, name: str) -> None:
    make, reason = UNFIT[name]
    file = tmp_path / "film.png"
    file.write_bytes(make())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = verify(file)
    assert isinstance(found, str)
    assert re.search(reason, found), found
    assert "\n" not in found and str(tmp_path) not in found


def test_missing_folder_and_pipe(tmp_path: Path) -> None:
    assert verify(tmp_path / "none.png") == "missing"
    assert verify(tmp_path) == "not a file"
    os.mkfifo(tmp_path / "pipe.png")
    assert verify(tmp_path / "pipe.png") == "not a file"


def test_pages_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow goes to each, and for each over all that it has been to; there may be millions."""

    def never(_: object) -> None:
        raise AssertionError("pages were counted")

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "n_frames", property(never))
    (tmp_path / "a.tif").write_bytes(multipage())
    assert verify(tmp_path / "a.tif") == "several images in one file; save them one by one"


def test_levels_by_hand(tmp_path: Path) -> None:
    """Half black, half 1000 of white 1023: mean 127.5 * 1000/1023, mean square likewise."""
    levels = np.zeros((8, 8), np.uint16)
    levels[:4] = 1000
    Image.fromarray(levels).save(tmp_path / "a.png")
    facts = verify(tmp_path / "a.png")
    assert isinstance(facts, Facts) and facts[:3] == (8, 8, 1023)
    assert facts.mean == pytest.approx(500 * 255 / 1023, rel=1e-12)
    assert facts.mean_square == pytest.approx(500_000 * (255 / 1023) ** 2, rel=1e-12)


def test_padding_is_in_no_statistic(tmp_path: Path) -> None:
    """Three quarters padding of 4095, the rest 100 and 1023, whose mean is 561.5."""
    levels = np.full((16, 8), 4095, np.uint16)
    levels[:4, :4], levels[:4, 4:] = 100, 1023
    film = dicoms.dataset(levels)
    film.add_new("PixelPaddingValue", "US", 4095)
    facts = verify(dicoms.save(film, tmp_path / "a.dcm"))
    assert isinstance(facts, Facts) and facts[:3] == (8, 16, 1023)
    assert facts.mean == pytest.approx(561.5 * 255 / 1023, rel=1e-12)
    squares = (100**2 + 1023**2) / 2
    assert facts.mean_square == pytest.approx(squares * (255 / 1023) ** 2, rel=1e-12)


def test_an_orientation_as_exif_has_it_is_followed(tmp_path: Path) -> None:
    """A check of the check above."""
    (tmp_path / "film.jpg").write_bytes(turned(3))
    assert isinstance(verify(tmp_path / "film.jpg"), Facts)
