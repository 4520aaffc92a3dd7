"""`python -m bench.bombs`: what readers of films and marks take for small files that ask for much.

Each file is written and then read by a process of its own, which says its seconds and the most
memory that it held, the imports included.
"""

import argparse
import json
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bench.lib import command
from pcamx.data.files.file_content import UnfitError
from pcamx.data.files.film import read_film
from pcamx.data.marks import read_marks
from pcamx.errors import PcamxError

SIDE = 8000
_LIMIT = 120  # seconds, then it counts as not ended


_ITEM = b"\xfe\xff\0\xe0\0\0\0\0"
_LONG = ("SQ", "OB", "OW")


def _element(number: int, kind: str, value: bytes, implicit: bool, endless: bool = False) -> bytes:
    """One attribute of group 0x28, or PixelData."""
    tag = b"\xe0\x7f\x10\0" if kind in ("OB", "OW") else struct.pack("<HH", 0x28, number)
    length = struct.pack("<L", 0xFFFFFFFF if endless else len(value))
    if implicit:
        return tag + length + value
    if kind in _LONG:
        return tag + kind.encode() + b"\0\0" + length + value
    return tag + kind.encode() + struct.pack("<H", len(value)) + value


def _dicom(*more: bytes, syntax: bytes, pixels: bytes) -> bytes:
    """A film of 16 x 16 pixels with ``more`` attributes."""
    implicit, uid = syntax == b"1.2.840.10008.1.2\0", b"\x02\0\x10\0UI"
    meta = uid + struct.pack("<H", len(syntax)) + syntax
    head = b"\x02\0\0\0UL\x04\0" + struct.pack("<L", len(meta)) + meta
    head += _element(4, "CS", b"MONOCHROME2 ", implicit)
    for number, value in ((0x10, 16), (0x11, 16), (0x100, 16), (0x101, 16), (0x102, 15)):
        head += _element(number, "US", struct.pack("<H", value), implicit)
    return bytes(128) + b"DICM" + head + b"".join(more) + pixels


def _windows() -> bytes:
    many = _element(0x1050, "DS", b"1\\" * 10_000_000, True)
    pixels = _element(0, "OW", bytes(512), True)
    return _dicom(many, syntax=b"1.2.840.10008.1.2\0", pixels=pixels)


def _items() -> bytes:
    many = _element(0x3010, "SQ", _ITEM * 8_000_000, False)
    pixels = _element(0, "OW", bytes(512), False)
    return _dicom(many, syntax=b"1.2.840.10008.1.2.1\0", pixels=pixels)


def _fragments() -> bytes:
    many = _ITEM * 8_000_000 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    pixels = _element(0, "OB", many, False, endless=True)
    return _dicom(syntax=b"1.2.840.10008.1.2.4.80\0\0", pixels=pixels)


def _png(samples: int, depth: int) -> bytes:
    """A PNG of SIDE x SIDE, row by row, of grey or RGBA."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))
        )

    packer, width = zlib.compressobj(9), SIDE * samples * depth // 8
    rows = packer.compress(b"\0" + b"\0\0\0\xff" * (width // 4))
    rows += b"".join(packer.compress(b"\0" + b"\5" * width) for _ in range(SIDE - 1))
    head = struct.pack(">LLBBBBB", SIDE, SIDE, depth, 6 if samples == 4 else 0, 0, 0, 0)
    body = chunk(b"IDAT", rows + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def _tiff(path: Path) -> None:
    Image.new("RGBA", (SIDE, SIDE), (5, 5, 5, 255)).save(path, compression="tiff_deflate")


def _coco(segmentations: list[list[list[int]]]) -> bytes:
    images = [{"id": 1, "file_name": "film.png", "width": SIDE, "height": SIDE}]
    drawn = [{"id": i, "image_id": 1, "segmentation": s} for i, s in enumerate(segmentations)]
    return json.dumps({"images": images, "annotations": drawn}).encode()


def _zigzag(vertices: int) -> list[int]:
    xy_n2 = np.arange(vertices)[:, None] * (7919, 1) % SIDE
    xy_n2[:, 1] = np.arange(vertices) % 2 * SIDE
    found: list[int] = xy_n2.ravel().tolist()
    return found


def _yolo() -> bytes:
    return ("0 " + " ".join(f"{one / SIDE:.3f}" for one in _zigzag(500_000))).encode()


_FULL = [[0, 0, SIDE, 0, SIDE, SIDE, 0, SIDE]]
_FILMS: dict[str, Callable[[], bytes]] = {
    "10 M values of WindowCenter.dcm": _windows,
    "8 M items of VOILUTSequence.dcm": _items,
    "8 M fragments.dcm": _fragments,
    "RGBA of 64 MP.png": lambda: _png(4, 8),
    "16 bits of 64 MP, a film.png": lambda: _png(1, 16),
}
_MARKS: dict[str, Callable[[], bytes]] = {
    "20,000 polygons of a full film.json": lambda: _coco([_FULL] * 20_000),
    "one zigzag.json": lambda: _coco([[_zigzag(500_000)]]),
    "one zigzag.txt": _yolo,
    "20 M objects.json": lambda: b'{"images":[' + b"{}," * 19_999_999 + b'{}],"annotations":[]}',
    "20 M lists.json": lambda: b'{"images":[],"annotations":[' + b"[]," * 19_999_999 + b"[]]}",
}
_TIFF, _MASK = "RGBA of 64 MP.tiff", "mask in RGBA of 64 MP"


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench.bombs", description=__doc__)
    made.add_argument("--folder", type=Path, default=Path("runs/bombs"), metavar="FOLDER")
    made.add_argument("--alone", help=argparse.SUPPRESS)
    return made


def run(options: argparse.Namespace) -> None:
    """Print seconds and megabytes of each file."""
    if options.alone is not None:
        _read(options.folder, options.alone)
        return
    for name in (*_FILMS, _TIFF, _MASK, *_MARKS):
        _write(_place(options.folder, name), name)
        words = ["-m", "bench.bombs", "--folder", str(options.folder), "--alone", name]
        try:
            subprocess.run([sys.executable, *words], timeout=_LIMIT, check=False)
        except subprocess.TimeoutExpired:
            print(f"{name}: not ended after {_LIMIT} s", flush=True)


def _place(folder: Path, name: str) -> Path:
    """The file, in a folder of its own; marks and masks are called like the film."""
    own = folder / name
    return own / ("film.png" if name == _MASK else f"film{Path(name).suffix}")


def _write(file: Path, name: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if name == _TIFF:
        _tiff(file)
    elif name == _MASK:
        file.write_bytes(_png(4, 8))
    else:
        file.write_bytes((_FILMS | _MARKS)[name]())


def _read(folder: Path, name: str) -> None:
    file, before = _place(folder, name), time.perf_counter()
    try:
        if name in _FILMS or name == _TIFF:
            said = "read: {} x {}".format(*read_film(file).grey_HW.shape)
        else:
            source = file.parent if name == _MASK else file
            marks = read_marks(source, {"film.png": (SIDE, SIDE)})
            pixels = [int(np.count_nonzero(make())) for make in marks.masks.values() if make]
            said = "; ".join([f"read: {pixels}", *marks.notes()])
    except (UnfitError, PcamxError, MemoryError) as error:
        said = f"{type(error).__name__}: {error}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{name}: {peak} MB, {time.perf_counter() - before:.1f} s: {said[:200]}", flush=True)


if __name__ == "__main__":
    sys.exit(command.main(_parser(), run))
