"""DICOM films whose header is incomplete, odd or wrong about the pixels: read right, or refused by
name. What is expected is worked out by hand."""

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import dicoms
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmwrite, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from pcamx.data.files import codestream
from pcamx.data.files.dicom import read_dicom
from pcamx.data.files.file_content import UnfitError
from pcamx.data.files.film import read_film

RAMP = dicoms.ramp()
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def content(film: Dataset, **encoding: Any) -> bytes:
    file = BytesIO()
    dcmwrite(file, film, **({"enforce_file_format": True} | encoding))
    return file.getvalue()


def shown(film: Dataset) -> Any:
    return read_dicom(content(film)).grey_HW


def refusal(film: Dataset | bytes) -> str:
    with pytest.raises(UnfitError) as caught:
        read_dicom(film if isinstance(film, bytes) else content(film))
    return str(caught.value)


def packed(stream: bytes | list[bytes], syntax: str, bits: int = 12, **attributes: Any) -> Dataset:
    """A film of RAMP's size around a stream."""
    film = dicoms.dataset(RAMP, bits=bits, **attributes)
    film.file_meta.TransferSyntaxUID = syntax
    film.PixelData = encapsulate([stream] if isinstance(stream, bytes) else stream)
    film["PixelData"].VR, film["PixelData"].is_undefined_length = "OB", True
    return film


# Attributes without a value


@pytest.mark.parametrize(
    "name",
    [
        *("HighBit", "PixelRepresentation", "SamplesPerPixel", "NumberOfFrames"),
        *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence"),
        *("WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
        *("PixelPaddingValue", "PixelPaddingRangeLimit", "SOPInstanceUID", "Modality"),
    ],
)
@pytest.mark.parametrize("implicit", [False, True])
def test_an_attribute_without_a_value_is_absent(name: str, implicit: bool) -> None:
    film = dicoms.dataset(RAMP)
    if implicit:
        film.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    setattr(film, name, [] if name.endswith("Sequence") else None)
    read = read_dicom(content(film))
    assert np.array_equal(read.grey_HW, RAMP) and read.padded == 0
    assert ("SOPInstanceUID" in read.uids) == (name != "SOPInstanceUID")


def test_half_of_a_rescale_and_half_of_a_window() -> None:
    assert np.array_equal(shown(dicoms.dataset(RAMP, RescaleSlope=2)), RAMP * 2)
    assert np.array_equal(shown(dicoms.dataset(RAMP, RescaleIntercept=3)), RAMP)
    assert np.array_equal(shown(dicoms.dataset(RAMP, WindowCenter=300)), RAMP)


def test_the_first_window_that_has_both_numbers() -> None:
    film = dicoms.dataset(RAMP, WindowCenter=["", 1000, 3000], WindowWidth=[500, 600, 7])
    assert np.array_equal(
        shown(film), shown(dicoms.dataset(RAMP, WindowCenter=1000, WindowWidth=600))
    )


def test_the_first_lut_that_holds_entries() -> None:
    empty = Dataset()
    empty.add_new("LUTDescriptor", "US", None)
    empty.add_new("LUTData", "OW", None)
    full = dicoms.table(np.arange(4096, dtype=np.uint16), 0, 12)
    film = dicoms.dataset(RAMP, VOILUTSequence=[empty, full])
    assert np.abs(shown(film) - RAMP * (65535 / 4095)).max() <= 0.5


@pytest.mark.parametrize("name", ["Rows", "Columns", "BitsAllocated", "PhotometricInterpretation"])
def test_what_cannot_be_done_without_is_named(name: str) -> None:
    for value in (None, ""):
        film = dicoms.dataset(RAMP)
        film["PixelData"].VR = "OW"
        setattr(film, name, value or None)
        if value == "":
            delattr(film, name)
        assert refusal(film) == f"a DICOM without {name}"


@pytest.mark.parametrize("name", ["WindowCenter", "RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("value", [b"2,5 ", b"nan ", b"inf ", b"much"])
def test_what_is_no_number_is_named(name: str, value: bytes) -> None:
    film = content(dicoms.dataset(RAMP, **WINDOW | {name: "7654"}))
    assert refusal(film.replace(b"7654", value)) == f"its {name} is no number"


# Where in a word the value lies


@pytest.mark.parametrize("signed", [False, True])
def test_high_bit_by_hand(signed: bool) -> None:
    """12 bits in the upper part of 16; what is below is an overlay, or nothing."""
    below = np.random.default_rng(0).integers(0, 16, RAMP.shape).astype(np.uint16)
    for junk in (0, below):
        film = dicoms.dataset((RAMP << 4) | junk, HighBit=15, PixelRepresentation=int(signed))
        values = np.where(RAMP > 2047, RAMP.astype(int) - 4096, RAMP) if signed else RAMP
        film.WindowCenter, film.WindowWidth = (0, 4096) if signed else (2048, 4096)
        share = (values - (-0.5 if signed else 2047.5)) / 4095 + 0.5
        assert np.abs(shown(film) - share * 65535).max() <= 0.5


@pytest.mark.parametrize("stored", [9, 10, 11])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_that_the_header_does_not_count_are_named(stored: int, signed: bool) -> None:
    """Cut off, the film would wrap around; an overlay above the values is still left out."""
    words = RAMP.astype(int) - 2048 if signed else RAMP
    film = dicoms.dataset(words.astype(np.int16 if signed else np.uint16), bits=stored)
    assert refusal(film) == f"its pixels use 12 bits, its BitsStored says {stored}"
    film = packed(dicoms.stream("jpeg2000", RAMP, 12), uid.JPEG2000Lossless, BitsStored=stored)
    film.HighBit = stored - 1
    assert refusal(film) == f"its pixels use 12 bits, its BitsStored says {stored}"
    overlay = RAMP.copy()
    overlay[5:9, 5:20] |= 0x9000
    assert np.array_equal(read_dicom(content(dicoms.dataset(overlay))).grey_HW, RAMP)


def test_a_stream_of_more_bits_than_are_allocated_is_of_values() -> None:
    film = packed(dicoms.stream("jpeg2000", RAMP, 12), uid.JPEG2000Lossless)
    film.BitsAllocated, film.BitsStored, film.HighBit = 8, 8, 7
    assert np.array_equal(read_dicom(content(film)).grey_HW, RAMP)


def test_a_high_bit_that_is_wrong_is_named() -> None:
    assert refusal(dicoms.dataset(RAMP, HighBit=15)) == (
        "its HighBit is 15, its pixels lie in the lower 12 bits"
    )
    for words in ({"HighBit": 7}, {"HighBit": 16}, {"BitsStored": 17}, {"BitsStored": 0}):
        assert "HighBit" in refusal(dicoms.dataset(RAMP, **words))
    stream = dicoms.stream("jpegls", RAMP, 14)
    assert refusal(packed(stream, uid.JPEGLSLossless, HighBit=14)) == (
        "its HighBit 14 is not in its pixels, which have 14 bits"
    )


@pytest.mark.parametrize("kind", ["jpeg2000", "jpegls", "lossless jpeg", "rle"])
def test_an_overlay_in_a_compressed_word(kind: str) -> None:
    marked = RAMP.copy()
    marked[5:9, 3:30] |= 0x1000
    marked[15:19, 3:30] |= 0x8000
    film = packed(dicoms.stream(kind, marked, 16), dicoms.SYNTAX[kind])
    assert np.array_equal(shown(film), RAMP)


@pytest.mark.parametrize("kind", ["jpeg2000", "jpegls", "lossless jpeg", "rle", "baseline"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_an_8_bit_stream_in_16_bits_allocated(kind: str, bits: int) -> None:
    eight = (RAMP >> 4).astype(np.uint8)
    if kind == "baseline":
        file = BytesIO()
        Image.fromarray(eight).save(file, "JPEG", quality=100)
        found = shown(packed(file.getvalue(), uid.JPEGBaseline8Bit, bits))
        assert found.dtype == np.uint8 and np.abs(found.astype(int) - eight).max() <= 2
        return
    film = packed(dicoms.stream(kind, eight, 8), dicoms.SYNTAX[kind], bits)
    assert np.array_equal(shown(film), eight) and shown(film).dtype == np.uint8
    film.PhotometricInterpretation = "MONOCHROME1"
    assert np.array_equal(shown(film), 255 - eight)


def test_the_sign_is_the_streams_where_it_has_one() -> None:
    values = RAMP.astype(np.int16) - 2048
    stream = dicoms.stream("jpeg2000", values, 12)
    for header in (0, 1):
        film = packed(stream, uid.JPEG2000Lossless, PixelRepresentation=header)
        assert np.abs(shown(film) - RAMP * (65535 / 4095)).max() <= 0.5
    stream = dicoms.stream("jpegls", values, 12)  # two's complement, of 12 bits
    film = packed(stream, uid.JPEGLSLossless, PixelRepresentation=1)
    assert np.abs(shown(film) - RAMP * (65535 / 4095)).max() <= 0.5


def test_8_bits_of_a_big_endian_file_lie_in_words() -> None:
    eight = np.arange(99, dtype=np.uint8).reshape(9, 11)
    film = dicoms.dataset(eight, bits=8)
    film.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    plain = eight.tobytes() + b"\0"
    film.PixelData = np.frombuffer(plain, "<u2").astype(">u2").tobytes()
    film["PixelData"].VR = "OW"
    assert np.array_equal(read_dicom(content(film, little_endian=False)).grey_HW, eight)
    film.PixelData = plain
    film["PixelData"].VR = "OB"
    assert np.array_equal(read_dicom(content(film, little_endian=False)).grey_HW, eight)


# Tables


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_a_lut_is_white_at_its_own_maximum(kind: str) -> None:
    """Of 16 bits by its descriptor, of 3000 levels by its entries; 8 bits hold no 4095 either."""
    for top, bits in ((3000, 16), (4095, 8), (4095, 16), (255, 12)):
        entries = np.linspace(0, top, 4096).round().astype(np.uint16)
        film = dicoms.dataset(RAMP, VOILUTSequence=[dicoms.table(entries, 0, bits)])
        film.PhotometricInterpretation = kind
        share = entries[RAMP] / top
        expected = 65535 * (1 - share if kind == "MONOCHROME1" else share)
        assert np.abs(shown(film) - expected).max() <= 0.51


def test_a_lut_of_65536_entries_and_one_of_bytes() -> None:
    wide = dicoms.ramp(256, 256, 65535)
    for bits, word, top in ((16, "<u2", 65535), (8, "u1", 255)):
        entries = (np.arange(65536) * top // 65535).astype(word)
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [0, 0, bits])
        item.add_new("LUTData", "OW", entries.tobytes())
        film = dicoms.dataset(wide, bits=16, VOILUTSequence=[item])
        assert np.abs(shown(film) - entries[wide] * (65535 / top)).max() <= 0.5


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_the_first_level_of_a_lut_is_signed_where_levels_are(vr: str) -> None:
    """-1024 is 64512 as US; levels after the rescale go from -1024 to 3071."""
    entries = np.arange(4096, dtype=np.uint16)[::-1].copy()
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [4096, -1024 if vr == "SS" else 64512, 12])
    item.add_new("LUTData", "OW", entries.tobytes())
    film = dicoms.dataset(RAMP, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=[item])
    assert np.abs(shown(film) - (4095 - RAMP) * (65535 / 4095)).max() <= 0.5


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_the_first_level_of_a_lut_is_signed_where_both_readings_may_be(vr: str) -> None:
    """-32768 is 32768 as US; levels after the rescale go from -98070 to 33000."""
    entries = (np.arange(65536) // 16).astype(np.uint16)
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [0, -32768 if vr == "SS" else 32768, 12])
    item.add_new("LUTData", "OW", entries.tobytes())
    stored = dicoms.ramp(256, 256, 65535)
    film = dicoms.dataset(stored, bits=16, VOILUTSequence=[item])
    film.RescaleSlope, film.RescaleIntercept = -2, 33000
    levels = 33000 - 2 * stored.astype(int)
    expected = np.clip(levels + 32768, 0, 65535) // 16 * (65535 / 4095)
    assert np.abs(shown(film) - expected).max() <= 0.5


def test_a_lut_that_is_too_short_is_named() -> None:
    item = dicoms.table(np.arange(100, dtype=np.uint16), 0, 12)
    item.LUTDescriptor = [4096, 0, 12]
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        text = refusal(dicoms.dataset(RAMP, **{name: [item]}))
        assert text == f"the LUTData in its {name} is shorter than its LUTDescriptor says"


# Padding


def test_padding_widens_no_range() -> None:
    """Signed levels are stretched, MONOCHROME1 is turned, by what is film."""
    levels = RAMP.astype(np.int16) // 4 - 500
    levels[:6] = -2000
    film = dicoms.dataset(levels, bits=16)
    film.add_new("PixelPaddingValue", "SS", -2000)
    inner = levels[6:].astype(float)
    share = (inner - inner.min()) / np.ptp(inner)
    assert not shown(film)[:6].any()
    assert np.abs(shown(film)[6:] - share * 65535).max() <= 0.5
    film = dicoms.dataset(np.where(levels == -2000, 65535, RAMP // 8).astype(np.uint16), bits=16)
    film.PhotometricInterpretation = "MONOCHROME1"
    film.add_new("PixelPaddingValue", "US", 65535)
    assert not shown(film)[:6].any()
    assert np.array_equal(shown(film)[6:], 511 - RAMP[6:] // 8)


@pytest.mark.parametrize(
    ("value", "vr", "word"),
    [(65535, "US", 0xFFFF), (-1, "SS", 0xFFFF), (-32768, "SS", 0x8000), (0x9000, "US", 0x9000)],
)
def test_padding_that_only_a_word_can_have(value: int, vr: str, word: int) -> None:
    """12 bits are stored; the border has more, and would be taken for a level of the film."""
    words = RAMP.copy()
    words[:6] = word
    film = dicoms.dataset(words, **WINDOW)
    film.add_new("PixelPaddingValue", vr, value)
    assert not shown(film)[:6].any()
    assert np.abs(shown(film)[6:] - RAMP[6:] * (65535 / 4095)).max() <= 0.5


def test_a_film_of_padding_alone_is_refused() -> None:
    film = dicoms.dataset(RAMP)
    film.add_new("PixelPaddingValue", "US", 0)
    film.add_new("PixelPaddingRangeLimit", "US", 4095)
    assert refusal(film) == "every pixel is padding by its PixelPaddingValue"


# Views that show nothing, and what contradicts itself


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_beside_all_levels_is_refused(kind: str, function: str) -> None:
    for center, dark in ((60000, True), (-9000, False)):
        film = dicoms.dataset(RAMP, WindowCenter=center, WindowWidth=100, VOILUTFunction=function)
        film.PhotometricInterpretation = kind
        colour = "black" if dark == (kind == "MONOCHROME2") else "white"
        assert refusal(film) == f"its window (center {center}, width 100) shows all of it {colour}"


def test_a_lut_that_shows_nothing_and_a_function_that_nobody_knows() -> None:
    flat = dicoms.table(np.full(4096, 9, np.uint16), 0, 12)
    assert refusal(dicoms.dataset(RAMP, VOILUTSequence=[flat])).startswith("its VOI LUT shows all")
    film = dicoms.dataset(RAMP, VOILUTFunction="CUBIC", **WINDOW)
    assert refusal(film).startswith("its VOILUTFunction CUBIC is not one of LINEAR, ")


def test_presentation_lut_shape() -> None:
    for kind, shape in (("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")):
        film = dicoms.dataset(RAMP, PhotometricInterpretation=kind)
        plain = shown(film)
        film.PresentationLUTShape = shape
        assert np.array_equal(shown(film), plain)
        film.PresentationLUTShape = "IDENTITY" if shape == "INVERSE" else "INVERSE"
        assert "contradict" in refusal(film)


# Files without a preamble or file meta


@pytest.mark.parametrize("encoded", ["implicit", "explicit", "big endian"])
def test_a_film_without_preamble_and_file_meta(tmp_path: Path, encoded: str) -> None:
    little = encoded != "big endian"
    film = dicoms.dataset(RAMP, VOILUTSequence=[dicoms.table(np.arange(4096), 0, 12)])
    film.PixelData = RAMP.astype("<u2" if little else ">u2").tobytes()
    del film.file_meta
    encoding = {"implicit_vr": encoded == "implicit", "little_endian": little}
    encoding["enforce_file_format"] = False
    (tmp_path / "a.png").write_bytes(content(film, **encoding))
    found = read_film(tmp_path / "a.png")
    assert found.kind == "DICOM"
    assert np.abs(found.grey_HW - RAMP * (65535 / 4095)).max() <= 0.5


@pytest.mark.parametrize("compressed", [False, True])
def test_file_meta_without_its_transfer_syntax(compressed: bool) -> None:
    film = dicoms.dataset(RAMP)
    if compressed:
        film = packed(dicoms.stream("jpeg2000", RAMP, 12), uid.JPEG2000Lossless)
    del film.file_meta.TransferSyntaxUID
    film.preamble = bytes(128)
    encoding = {"implicit_vr": False, "little_endian": True, "enforce_file_format": False}
    assert np.array_equal(read_dicom(content(film, **encoding)).grey_HW, RAMP)


def test_file_meta_without_a_preamble(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(content(dicoms.dataset(RAMP))[132:])
    assert np.array_equal(read_film(tmp_path / "a.dcm").grey_HW, RAMP)


# Streams that are not what the header says


def never(*_: object) -> None:
    raise AssertionError("it was decoded")


@pytest.mark.parametrize("kind", ["jpeg2000", "htj2k", "jpegls", "lossless jpeg", "baseline"])
def test_a_stream_of_another_size_is_not_decoded(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    large = dicoms.ramp(480, 400)
    if kind == "baseline":
        file = BytesIO()
        Image.fromarray((large >> 4).astype(np.uint8)).save(file, "JPEG")
        stream, syntax = file.getvalue(), uid.JPEGBaseline8Bit
    else:
        stream, syntax = dicoms.stream(kind, large, 12), dicoms.SYNTAX[kind]
    monkeypatch.setattr(codestream, "decode", never)
    text = refusal(packed(stream, syntax))
    assert text.endswith("is of 400 x 480 pixels, its header says 40 x 24")


def test_a_stream_of_a_million_tiles_or_tiny_parts_is_not_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = dicoms.stream("jpeg2000", dicoms.ramp(512, 512), 12)
    size = {"Rows": 512, "Columns": 512}
    assert shown(packed(whole, uid.JPEG2000Lossless, **size)).max() == 4095
    monkeypatch.setattr(codestream, "decode", never)
    tiles = whole[:24] + struct.pack(">LL", 4, 4) + whole[32:]
    assert refusal(packed(tiles, uid.JPEG2000Lossless, **size)).endswith("more than 4096 tiles")
    cod = whole.index(b"\xff\x52")
    (length,) = struct.unpack_from(">H", whole, cod + 2)
    body = bytearray(whole[cod + 4 : cod + 2 + length])
    blocks = whole[: cod + 4] + body[:6] + b"\0\0" + body[8:] + whole[cod + 2 + length :]
    body[0] |= 1
    body += b"\x88" + b"\x44" * body[5]
    precincts = whole[: cod + 2] + struct.pack(">H", len(body) + 2) + body
    precincts += whole[cod + 2 + length :]
    part = whole.index(b"\xff\x93")  # in the header of a tile
    later = whole[:part] + precincts[cod : cod + len(body) + 4] + whole[part:]
    for stream in (blocks, precincts, later):
        text = refusal(packed(bytes(stream), uid.JPEG2000Lossless, **size))
        assert text == "its JPEG 2000 is cut into parts of a few pixels each"


def test_a_second_picture_is_refused_whatever_the_header_says() -> None:
    frame = dicoms.stream("jpegls", RAMP, 12)
    assert refusal(packed([frame, frame], uid.JPEGLSLossless)).startswith("a DICOM of 2 frames")
    frame = dicoms.run_lengths(RAMP)
    assert refusal(packed([frame, frame], uid.RLELossless)).startswith("a DICOM of 2 frames")
    film = dicoms.dataset(np.stack([RAMP, RAMP]))
    assert refusal(film).startswith("a DICOM of 2 frames")


def test_a_frame_in_many_fragments() -> None:
    frame = dicoms.stream("jpeg2000", RAMP, 12)
    film = packed(frame, uid.JPEG2000Lossless)
    film.PixelData = encapsulate([frame], fragments_per_frame=4)
    assert np.array_equal(shown(film), RAMP)


@pytest.mark.parametrize("name", ["Rows", "Columns"])
def test_a_size_that_leaves_pixels_over_is_named(name: str) -> None:
    film = dicoms.dataset(RAMP)
    setattr(film, name, film[name].value - 2)  # cut short, or sheared
    assert "Rows or its Columns are not those of the film" in refusal(film)


@pytest.mark.parametrize("filler", [b"\0" * 400, b"\xff" * 400, b"\1\2" * 20])
def test_what_fills_up_a_file_is_no_pixel(filler: bytes) -> None:
    assert np.array_equal(shown(dicoms.dataset(RAMP, PixelData=RAMP.tobytes() + filler)), RAMP)


def test_run_lengths_stop_at_the_films_size() -> None:
    bomb = np.array([1, 64] + [0] * 14, "<u4").tobytes() + bytes([129, 7]) * 1000
    found = codestream.unpack_rle(bomb, 300)
    assert found.tolist() == [7] * 300
    with pytest.raises(UnfitError, match="cut short"):
        codestream.unpack_rle(bomb[:68], 300)


def test_colour_in_a_grey_film_is_named() -> None:
    file = BytesIO()
    Image.fromarray(np.zeros((24, 40, 3), np.uint8)).save(file, "JPEG")
    assert "has 3 samples a pixel" in refusal(packed(file.getvalue(), uid.JPEGBaseline8Bit, 8))
