"""DICOM films as they are shown, against levels worked out by hand; and the ones refused."""

import builtins
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import dicoms
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from pcamx.data.canvas.decode import decode_batches
from pcamx.data.canvas.decode_pixels import decode_pixels
from pcamx.data.files.dicom import read_dicom
from pcamx.data.files.file_content import UnfitError
from pcamx.data.files.film import FilmFile, read_film
from pcamx.data.store import Film, Store

CPU = torch.device("cpu")
RAMP = dicoms.ramp()


@pytest.fixture
def shown(tmp_path: Path) -> Any:
    """``shown(pixels, bits=12, attributes...)``: grey levels of such a film."""

    def write_and_read(pixels: Any = RAMP, **words: Any) -> Any:
        return read_film(dicoms.save(dicoms.dataset(pixels, **words), tmp_path / "a.dcm")).grey_HW

    return write_and_read


def refusal(path: Path) -> str:
    with pytest.raises(UnfitError) as caught:
        read_film(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is shown


def test_without_a_view_the_levels_are_those_of_the_file(shown: Any, tmp_path: Path) -> None:
    assert np.array_equal(shown(), RAMP) and shown().dtype == np.uint16
    eight = (RAMP >> 4).astype(np.uint8)
    assert np.array_equal(shown(eight, bits=8), eight) and shown(eight, bits=8).dtype == np.uint8
    film = read_film(tmp_path / "a.dcm")
    assert (film.kind, film.white, film.turn) == ("DICOM", 255, 1)
    assert set(film.uids) == {"SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"}


def test_monochrome1_is_turned_by_the_bits_that_are_used(shown: Any) -> None:
    """By the header's where the pixels use its highest bit; a header may claim more than that."""
    for bits in (12, 16):
        turned = shown(RAMP, bits=bits, PhotometricInterpretation="MONOCHROME1")
        assert np.array_equal(turned, 4095 - RAMP)
    turned = shown(RAMP // 2 + 1000, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(turned, 3095 - RAMP // 2)
    turned = shown(RAMP // 2, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(turned, 2047 - RAMP // 2)


def test_window_by_hand(shown: Any) -> None:
    """PS3.3 C.11.2.1.2.1: below c - 0.5 - (w-1)/2 black, above c - 0.5 + (w-1)/2 white."""
    levels = np.array([[0, 999, 1000, 1500, 2000, 2001, 4095, 4095]] * 8, np.uint16)
    row = shown(levels, WindowCenter=1500.5, WindowWidth=1001)[0]
    share = (levels[0, 3] - 1500) / 1000 + 0.5
    assert row.tolist() == [0, 0, 0, round(share * 65535), 65535, 65535, 65535, 65535]
    row = shown(
        levels, WindowCenter=1500.5, WindowWidth=1001, PhotometricInterpretation="MONOCHROME1"
    )[0]
    assert row.tolist() == [65535, 65535, 65535, 65535 - round(share * 65535), 0, 0, 0, 0]


def test_first_of_several_windows_and_the_sigmoid(shown: Any) -> None:
    first = shown(WindowCenter=1000, WindowWidth=500)
    both = shown(WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    assert np.array_equal(first, both)
    curve = shown(WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID")
    expected = 65535 / (1 + np.exp(-4 * (RAMP.astype(float) - 2000) / 1000))
    assert np.abs(curve - expected).max() <= 0.5


def test_an_empty_window_is_none(shown: Any) -> None:
    assert np.array_equal(shown(WindowCenter="", WindowWidth=""), RAMP)


def test_rescale_comes_before_the_window(shown: Any) -> None:
    plain = shown(WindowCenter=1000, WindowWidth=500)
    doubled = shown(RescaleSlope=2, RescaleIntercept=-100, WindowCenter=1899.5, WindowWidth=999)
    assert np.array_equal(plain, doubled)  # 2 (1000 - 0.5) - 100 + 0.5; 2 (500 - 1) + 1


def test_a_falling_rescale_with_a_window_shows_its_own_output(shown: Any) -> None:
    """What is high after the rescale is white, whatever the stored value."""
    grey = shown(RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=4096)
    assert np.abs(grey - (4095 - RAMP) * (65535 / 4095)).max() <= 0.5


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, 5), (1, 30000)])
def test_rescale_to_whole_levels_keeps_their_steps(shown: Any, slope: int, intercept: int) -> None:
    """Black is the lowest level that the header allows, in either interpretation."""
    words = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    assert np.array_equal(shown(**words), RAMP * slope)
    turned = shown(**words, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(turned, (4095 - RAMP) * slope)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_fewer_than_8_bits_fill_the_range(shown: Any, kind: str) -> None:
    """127 is white by the header, or by what is used of it."""
    seven = RAMP >> 5
    want = np.rint((127 - seven if kind == "MONOCHROME1" else seven) * (255 / 127))
    for pixels, bits in ((seven.astype(np.uint8), 7), (seven, 7), (seven, 12)):
        grey = shown(pixels, bits=bits, PhotometricInterpretation=kind)
        assert np.array_equal(grey, want) and grey.dtype == np.uint8


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.5, 0), (100, 0)])
def test_other_levels_are_stretched(shown: Any, slope: float, intercept: int) -> None:
    grey = shown(RescaleSlope=slope, RescaleIntercept=intercept)
    assert np.abs(grey - RAMP * (65535 / 4095)).max() <= 0.5


def test_signed_levels_are_stretched(shown: Any) -> None:
    grey = shown(RAMP.astype(np.int16) - 2048)
    assert np.abs(grey - RAMP * (65535 / 4095)).max() <= 0.5


def test_a_film_of_one_level_is_black(shown: Any) -> None:
    assert not shown(np.full((8, 9), 7, np.int16), RescaleSlope=-1, RescaleIntercept=0).any()


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_voi_lut(shown: Any, bits: int) -> None:
    """4096 entries: with 8-bit entries pydicom 3.0 counts them modulo 256."""
    entries = np.linspace(2**bits - 1, 0, 4000).round().astype(np.uint16)
    grey = shown(VOILUTSequence=[dicoms.table(entries, 50, bits)], WindowCenter=9, WindowWidth=3)
    expected = entries[np.clip(RAMP.astype(int) - 50, 0, 3999)] * (65535 / (2**bits - 1))
    assert np.abs(grey - expected).max() <= 0.5


def test_voi_lut_after_rescale(shown: Any) -> None:
    entries = np.arange(256, dtype=np.uint16)
    words = {"RescaleSlope": 1 / 16, "RescaleIntercept": 0}
    grey = shown(VOILUTSequence=[dicoms.table(entries, 0, 8)], **words)
    assert np.array_equal(grey, np.rint(RAMP / 16).clip(0, 255).astype(int) * 257)


def test_modality_lut(shown: Any) -> None:
    entries = np.arange(4096, dtype=np.uint16) // 4
    item = dicoms.table(entries, 0, 12)
    item.ModalityLUTType = "US"
    assert np.array_equal(shown(ModalityLUTSequence=[item]), RAMP // 4)


def test_padding_is_black_in_either_interpretation(shown: Any) -> None:
    levels = 1 + RAMP // 2
    levels[:4], levels[4:8] = 3000, 3003
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        film = dicoms.dataset(levels, PhotometricInterpretation=kind)
        film.add_new("PixelPaddingValue", "US", 3000)
        assert not _shown(film)[:4].any() and _shown(film)[4:8].all()
        film.add_new("PixelPaddingRangeLimit", "US", 3003)
        assert not _shown(film)[:8].any() and _shown(film)[8:].all()


def _shown(film: Dataset) -> Any:
    file = BytesIO()
    film.save_as(file, enforce_file_format=True)
    return read_dicom(file.getvalue()).grey_HW


@pytest.mark.parametrize(
    "syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=lambda s: s.name
)
def test_lossless_compression_changes_nothing(tmp_path: Path, syntax: str) -> None:
    pixels = dicoms.ramp(64, 80)
    plain = dicoms.save(dicoms.dataset(pixels, WindowCenter=900, WindowWidth=700), tmp_path / "a")
    film = dicoms.dataset(pixels, WindowCenter=900, WindowWidth=700)
    packed = dicoms.save(film, tmp_path / "b", syntax)
    assert np.array_equal(read_film(plain).grey_HW, read_film(packed).grey_HW)


# The canvas


@pytest.mark.parametrize("deep", [False, True])
def test_same_canvas_as_a_png_of_the_same_pixels(tmp_path: Path, deep: bool) -> None:
    rng = np.random.default_rng(0)
    sizes = ((100, 150), (333, 222), (64, 64), (40, 30))
    top, kind = (4096, np.uint16) if deep else (256, np.uint8)
    listed, films = [], []
    for i, size in enumerate(sizes):
        pixels = rng.integers(0, top, size).astype(kind)
        dicoms.save(dicoms.dataset(pixels, bits=12 if deep else 8), tmp_path / f"{i}.dcm")
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        film, png = read_film(tmp_path / f"{i}.dcm"), read_film(tmp_path / f"{i}.png")
        assert np.array_equal(film.grey_HW, png.grey_HW) and film.white == png.white
        height, width = size
        listed.append(Film(f"{i}.png", 0, "", "", "", "test", width, height, png.white, ""))
        films.append(film)
    store = Store(tmp_path, tmp_path, tuple(listed), 0.0, 1.0)
    (decoded,) = decode_batches(store.root, listed, [range(4)], 64, device=CPU, threads=1)
    laid = decode_pixels(
        [f.grey_HW for f in films], [f.white for f in films], 64, device=CPU, threads=1
    )
    assert torch.equal(laid, decoded)


@pytest.mark.gpu
@pytest.mark.parametrize("deep", [False, True])
def test_same_canvas_on_the_gpu(tmp_path: Path, deep: bool) -> None:
    """A PNG is decoded by CPU threads there too, so the pixels are the same before DALI's graph."""
    gpu = torch.device("cuda", 0)
    pixels = dicoms.ramp(333, 222)
    pixels = pixels if deep else (pixels >> 4).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    white = read_film(tmp_path / "a.png").white
    listed = (Film("a.png", 0, "", "", "", "test", 222, 333, white, ""),)
    store = Store(tmp_path, tmp_path, listed, 0.0, 1.0)
    (decoded,) = decode_batches(store.root, listed, [[0]], 64, device=gpu, threads=1)
    laid = decode_pixels([pixels], [white], 64, device=gpu, threads=1)
    assert laid.device == gpu and torch.equal(laid, decoded)


# What is refused


def test_no_pixels_several_frames_colour(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    dicoms.save(dicoms.dataset(RAMP, PixelData=None, Modality="SR"), path)
    assert refusal(path) == "a DICOM without pixels, or cut short (modality SR)"
    dicoms.save(dicoms.dataset(np.stack([RAMP, RAMP]), NumberOfFrames=2), path)
    assert refusal(path) == "a DICOM of 2 frames; a film has one"
    film = dicoms.dataset(np.zeros((8, 9), np.uint8), bits=8, SamplesPerPixel=3)
    film.PhotometricInterpretation, film.PlanarConfiguration = "RGB", 0
    film.PixelData = bytes(8 * 9 * 3)
    assert "a DICOM of kind RGB, not grey" in refusal(dicoms.save(film, path))


@pytest.mark.parametrize("name", ["Shared", "PerFrame"])
def test_functional_groups(tmp_path: Path, name: str) -> None:
    """Of an enhanced object, where rescale and window would be passed over."""
    window = Dataset()
    window.WindowCenter, window.WindowWidth = 2048, 1000
    group = Dataset()
    group.FrameVOILUTSequence = [window]
    film = dicoms.dataset(RAMP, NumberOfFrames=1)
    setattr(film, f"{name}FunctionalGroupsSequence", [group])
    assert "stand in functional groups" in refusal(dicoms.save(film, tmp_path / "a.dcm"))


def test_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    dicoms.save(dicoms.dataset(RAMP, Rows=60000, Columns=60000), path)
    assert refusal(path) == "larger than 64 megapixels"
    dicoms.save(dicoms.dataset(RAMP, Rows=0), path)
    assert refusal(path) == "smaller than 8 pixels a side"
    dicoms.save(dicoms.dataset(RAMP.astype(np.uint32), bits=32), path)
    assert refusal(path) == "32 bits a pixel; a film has 8 or 16"


def test_damaged(tmp_path: Path) -> None:
    path = dicoms.save(dicoms.dataset(RAMP), tmp_path / "a.dcm")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert refusal(path).startswith("damaged DICOM: ")
    path.write_bytes(whole[:200])
    assert refusal(path)
    dicoms.save(dicoms.dataset(RAMP, WindowCenter=5, WindowWidth=0), path)
    assert refusal(path) == "its WindowWidth 0 is too small for LINEAR"
    words = {"RescaleSlope": 0, "RescaleIntercept": 3}
    dicoms.save(dicoms.dataset(RAMP, WindowCenter=5, WindowWidth=9, **words), path)
    assert "makes one level of all; see RescaleSlope" in refusal(path)
    words = {"RescaleSlope": 1e308, "RescaleIntercept": 0}
    dicoms.save(dicoms.dataset(RAMP, **words), path)
    assert refusal(path) == "its rescale gives levels that are no numbers"


@pytest.mark.parametrize(
    "syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=lambda s: s.name
)
def test_a_compressed_film_cut_short(tmp_path: Path, syntax: str) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    path = dicoms.save(dicoms.dataset(noise), tmp_path / "a.dcm", syntax)
    film = dcmread(path)
    path.write_bytes(path.read_bytes()[:-2000])
    assert refusal(path).startswith("a DICOM without pixels, or cut short")
    (frame,) = generate_frames(film.PixelData, number_of_frames=1)
    film.PixelData = encapsulate([frame[:3000]])
    assert refusal(dicoms.save(film, path)).startswith("damaged DICOM: ")


def test_deflated_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    film = dicoms.dataset(RAMP)
    film.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    assert "deflated" in refusal(dicoms.save(film, tmp_path / "a.dcm"))


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
def test_a_jpeg_film_and_one_cut_short(tmp_path: Path, syntax: uid.UID) -> None:
    """Each by its own decoder: the extended process takes in the baseline's files."""
    pixels = dicoms.ramp(64, 80, top=255).astype(np.uint8)
    jpeg = BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=95)
    film = dicoms.dataset(pixels, bits=8)
    film.file_meta.TransferSyntaxUID = syntax
    film.PixelData = encapsulate([jpeg.getvalue() + b"\xff"])  # fill bytes are allowed
    grey = read_film(dicoms.save(film, tmp_path / "a.dcm")).grey_HW
    assert np.abs(grey.astype(int) - pixels).max() <= 3
    film.PixelData = encapsulate([jpeg.getvalue()[:-300]])
    assert refusal(dicoms.save(film, tmp_path / "a.dcm")).startswith("damaged DICOM: ")


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("jpeg2000", "pylibjpeg-openjpeg"),
        ("jpegls", "pyjpegls"),
        ("lossless jpeg", "pylibjpeg-libjpeg"),
    ],
)
def test_a_missing_decoder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    film, stream = dicoms.dataset(RAMP), dicoms.stream(name, RAMP, 12)
    film.file_meta.TransferSyntaxUID = dicoms.SYNTAX[name]
    film.PixelData = encapsulate([stream])
    path = dicoms.save(film, tmp_path / "a.dcm")
    assert np.array_equal(read_film(path).grey_HW, RAMP)
    for module in ("openjpeg", "jpeg_ls", "libjpeg"):
        monkeypatch.setitem(sys.modules, module, None)
    text = refusal(path)
    assert "its decoder is not installed" in text
    assert f"pip install {package};" in text and "pcamx[dicom]" in text


def test_a_syntax_that_is_not_read(tmp_path: Path) -> None:
    film = dicoms.dataset(RAMP)
    film.compress(uid.RLELossless)
    film.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    path = dicoms.save(film, tmp_path / "a.dcm")
    assert "TransferSyntaxUID is MPEG2 Main Profile" in refusal(path)
    film = dicoms.dataset(RAMP)
    film.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    plain = dicoms.save(film, path).read_bytes()
    private = b"1.2.840.113619.5.2"  # as long as the other with its padding
    path.write_bytes(plain.replace(b"1.2.840.10008.1.2\0", private))
    assert refusal(path) == "its TransferSyntaxUID is 1.2.840.113619.5.2, which is not read"


def test_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dicoms.save(dicoms.dataset(RAMP), tmp_path / "a.dcm")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pydicom":
            raise ImportError(name)
        return real(name, *rest)

    for name in [name for name in sys.modules if name.split(".")[0] == "pydicom"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    assert refusal(path) == "DICOM needs pydicom: pip install 'pcamx[dicom]'"


# Films that are no DICOM


def test_other_films_are_read_as_training_does(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = (RAMP >> 4).astype(np.uint8)
    Image.fromarray(wide).save(tmp_path / "a.png", exif=exif)
    found: FilmFile = read_film(tmp_path / "a.png")
    assert (found.kind, found.turn, found.white) == ("PNG", 6, 255)
    assert np.array_equal(found.grey_HW, np.rot90(wide, -1))
    Image.fromarray(RAMP).save(tmp_path / "b.tif")
    found = read_film(tmp_path / "b.tif")
    assert (found.kind, found.turn, found.white) == ("TIFF", 1, 4095)
    assert np.array_equal(found.grey_HW, RAMP)
