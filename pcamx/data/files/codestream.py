"""The stream of one compressed DICOM film: what its own header says, then its samples.

A DICOM header may be wrong about the stream inside it, so size, precision and kind are taken from
the stream, and compared before anything is decoded. One decoder for each kind: libjpeg, for one,
makes up what a JPEG-LS film that was cut short lacks.

Shapes: H W the film.
"""

import importlib
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcamx.data.files.file_content import UnfitError
from pcamx.data.files.image_header import check_scans

INSTALL = "pip install 'pcamx[dicom]'"
JPEG, CODESTREAM, JP2 = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP"
_END_OF_JPEG = b"\xff\xd9"
_MODULE = {  # package and module that decode a kind
    "JPEG 2000": ("pylibjpeg-openjpeg", "openjpeg"),
    "JPEG-LS": ("pyjpegls", "jpeg_ls"),
    "JPEG lossless": ("pylibjpeg-libjpeg", "libjpeg"),
    "JPEG of 12 bits": ("pylibjpeg-libjpeg", "libjpeg"),
}
_KIND = {0xC0: "JPEG", 0xC1: "JPEG", 0xC2: "JPEG", 0xC3: "JPEG lossless", 0xF7: "JPEG-LS"}
"""By the marker that starts a frame; the others are hierarchical or arithmetic."""
_BARE = (0x01, *range(0xD0, 0xD9))  # markers without a length
_MOST_TILES = 4096  # openjpeg keeps some KiB for each, and for each precinct and code block
_LEAST_PRECINCT, _LEAST_BLOCK = 5, 8  # log2 of a side; of an area
_COD, _COC, _SOT, _SOD = 0x52, 0x53, 0x90, 0x93


class Stream(NamedTuple):
    """What a stream's header says."""

    kind: str
    width: int
    height: int
    samples: int
    """Per pixel."""
    bits: int
    """Per sample."""
    signed: bool
    data: bytes
    """The stream itself, out of any box around it."""


def read_header(data: bytes) -> Stream | None:
    """Read the header of a JPEG, JPEG-LS or JPEG 2000 stream; None of anything else.

    Raises UnfitError where the header is damaged or of a kind that is not decoded.
    """
    if data.startswith((CODESTREAM, JP2)):
        return _jpeg2000(data[max(data.find(CODESTREAM), 0) :])
    return _jpeg(data) if data.startswith(JPEG) else None


def _jpeg2000(data: bytes) -> Stream:
    """SIZ, the second marker (ISO/IEC 15444-1, A.5.1)."""
    if len(data) < 45 or not data.startswith(CODESTREAM):
        raise UnfitError("damaged DICOM: its JPEG 2000 is cut short")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, samples = (
        struct.unpack_from(">8LH", data, 8)
    )
    depth, step_x, step_y = data[42:45]
    if step_x != 1 or step_y != 1 or right <= left or bottom <= top:
        raise UnfitError("damaged DICOM: its JPEG 2000 has no pixel for each of its samples")
    if not tile_width or not tile_height:
        raise UnfitError("damaged DICOM: its JPEG 2000 has tiles without pixels")
    across = -(-(right - tile_left) // tile_width)
    if across * -(-(bottom - tile_top) // tile_height) > _MOST_TILES:
        raise UnfitError(f"its JPEG 2000 has more than {_MOST_TILES} tiles")
    if any(_is_tiny(*style) for style in _coding_styles(data)):
        raise UnfitError("its JPEG 2000 is cut into parts of a few pixels each")
    size = (right - left, bottom - top)
    return Stream("JPEG 2000", *size, samples, (depth & 0x7F) + 1, depth > 0x7F, data)


def _coding_styles(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Whether precincts are given, and SPcod, in each header of a JPEG 2000 (A.6.1, A.6.2)."""
    at = end = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = struct.unpack_from(">xBH", data, at)
        segment = data[at + 4 : at + 2 + length]
        if marker == _SOD:  # on to the next part of a tile
            at = max(end, at + 2)
            continue
        if marker == _SOT:
            part = struct.unpack_from(">L", segment, 2)[0]
            end = at + part if part else len(data)
        if marker == _COD:
            yield segment[0] & 1, segment[5:]
        if marker == _COC:
            yield segment[1] & 1, segment[2:]
        at += 2 + max(length, 2)


def _is_tiny(precincts_given: int, parameters: bytes) -> bool:
    """Whether precincts or code blocks are so small that keeping track of them fills the memory."""
    levels, across, down = parameters[:3]
    precincts = parameters[5 : 6 + levels] if precincts_given else b""
    sides = [side for both in precincts for side in (both & 15, both >> 4)]
    return across + down + 4 < _LEAST_BLOCK or min(sides, default=15) < _LEAST_PRECINCT


def _jpeg(data: bytes) -> Stream:
    """The first start of a frame (ISO/IEC 10918-1, B.2.2; 14495-1, C.2.2)."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _BARE:
            at += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) or marker in (0xDE, 0xF7):
            bits, height, width, samples = struct.unpack_from(">BHHB", data, at + 4)
            if marker not in _KIND:
                raise UnfitError("a hierarchical or arithmetic JPEG, which is not read")
            kind = _KIND[marker]
            kind = "JPEG of 12 bits" if kind == "JPEG" and bits > 8 else kind
            return Stream(kind, width, height, samples, bits, False, data)
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    raise UnfitError("damaged DICOM: its JPEG has no header")


def decode(stream: Stream) -> NDArray[Any]:
    """Decode a stream of one sample a pixel to [H, W], of 8 or 16 bits as its precision asks.

    Raises UnfitError where its decoder is not installed or it is cut short, and what the decoder
    raises of a damaged one.
    """
    if stream.kind == "JPEG":
        check_scans(stream.data)
        with Image.open(BytesIO(stream.data), formats=("JPEG",)) as image:
            return np.asarray(image)
    package, name = _MODULE[stream.kind]
    try:
        module = importlib.import_module(name)
    except ImportError:
        raise UnfitError(
            f"compressed as {stream.kind}, its decoder is not installed: "
            f"pip install {package}; {INSTALL} holds all"
        ) from None
    if name == "openjpeg":
        return np.asarray(module.decode(stream.data))
    if name == "libjpeg":
        if not stream.data.rstrip(b"\0\xff").endswith(_END_OF_JPEG):
            raise UnfitError("damaged DICOM: its JPEG is cut short")
        return np.asarray(module.decode(stream.data))
    samples, _ = module.decode_pixel_data(stream.data)
    word = np.uint8 if stream.bits <= 8 else np.uint16
    return np.frombuffer(samples, word).reshape(stream.height, stream.width)


def unpack_rle(data: bytes, pixels: int) -> NDArray[Any]:
    """Unpack one frame of RLE Lossless (PS3.5, annex G) to words [pixels] of 8 or 16 bits.

    Own code, since it must stop at the film's size, whatever the runs add up to. Raises UnfitError.
    """
    if len(data) < 64:
        raise UnfitError("damaged DICOM: its RLE is cut short")
    count, *starts = struct.unpack_from("<16L", data)
    if count not in (1, 2):
        raise UnfitError(f"its RLE has {count} segments; a film of 8 or 16 bits has 1 or 2")
    ends = [*starts[1:count], len(data)]
    planes = [
        _unpack_segment(data[start:end], pixels)
        for start, end in zip(starts[:count], ends, strict=True)
    ]
    if count == 1:
        return planes[0]
    return planes[0].astype(np.uint16) << 8 | planes[1]  # the most significant comes first


def _unpack_segment(data: bytes, size: int) -> NDArray[np.uint8]:
    found, at = bytearray(), 0
    while len(found) < size and at < len(data) - 1:
        head = data[at]
        if head < 128:
            found += data[at + 1 : at + 2 + head]
            at += 2 + head
        else:
            if head > 128:
                found += data[at + 1 : at + 2] * (257 - head)
            at += 1 + (head > 128)
    if len(found) < size:
        raise UnfitError("damaged DICOM: its RLE is cut short")
    return np.frombuffer(bytes(found[:size]), np.uint8)
