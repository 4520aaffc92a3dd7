"""Draws DICOM films of every kind, and knows the grey levels that must come out of them.

The oracle works pixel by pixel from the stored values that were drawn, by the formulas of PS3.3:
C.7.6.3 (stored values), C.7.5.1.1.2 (padding), C.11.1 (modality LUT) and C.11.2 (VOI LUT). It sees
neither words nor bits, which are what the reader has to get right.
"""

import math
import random
from pathlib import Path
from typing import Any

import dicoms
import numpy as np
from pydicom import dcmwrite, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

HEIGHT, WIDTH = 24, 17  # odd, so that rows and bytes do not hide each other
PLAIN = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
}
STREAMS = ("rle", "jpeg2000", "htj2k", "jpegls", "lossless jpeg")
CHOICES: dict[str, tuple[Any, ...]] = {
    "bits": ((8, 8), (7, 8), (8, 16), (10, 16), (12, 16), (12, 16), (15, 16), (16, 16)),
    "align": ("low", "low", "middle", "high"),
    "signed": (False, True),
    "kind": ("MONOCHROME1", "MONOCHROME2"),
    "modality": ("none", "none", "rescale", "fraction", "falling", "empty", "lut"),
    "view": ("none", "none", "LINEAR", "default", "LINEAR_EXACT", "SIGMOID", "two", "empty", "lut"),
    "padding": ("none", "none", "value", "range"),
    "syntax": (*PLAIN, *STREAMS),
    "stream_of": ("values", "words"),
    "overlay": (False, True),
}
Case = dict[str, Any]


def draw(case: Case, path: Path) -> tuple[np.ndarray, int]:
    """Write the film of a case; return the grey levels that must come out, and how many pixels are
    padding.
    """
    values, border, span = drawn(case)
    film = film_of(case, values, span)
    written(film, path)
    return oracle(case, values, border, film), int(border.sum())


def cases(number: int) -> list[Case]:
    """A seeded sample; each choice comes up about as often as any other."""
    draw = random.Random(19)
    columns = {}
    for name, options in CHOICES.items():
        column = [options[i % len(options)] for i in range(number)]
        draw.shuffle(column)
        columns[name] = column
    return [{name: columns[name][i] for name in CHOICES} | {"seed": i} for i in range(number)]


# The picture


def drawn(case: Case) -> tuple[np.ndarray, np.ndarray, tuple[int, int] | None]:
    """Stored values [H, W] that use all bits, where they are padding, and its range."""
    rng = np.random.default_rng(case["seed"])
    bits = case["bits"][0]
    low = -(1 << (bits - 1)) if case["signed"] else 0
    high = low + (1 << bits) - 1
    span = None
    if case["padding"] != "none":
        start = int(rng.choice([low, low + 3, high - 9, (low + high) // 2]))
        span = (start, start + (5 if case["padding"] == "range" else 0))
    values = rng.integers(low, high, (HEIGHT, WIDTH), endpoint=True)
    values[12, 8:10] = low, high
    border = np.zeros((HEIGHT, WIDTH), bool)
    if span is not None:
        border[:3] = border[:, :2] = True
        border |= (values >= span[0]) & (values <= span[1])
        values[border] = rng.integers(span[0], span[1], border.sum(), endpoint=True)
    return values, border, span


# The oracle


def oracle(case: Case, values: np.ndarray, border: np.ndarray, film: Dataset) -> np.ndarray:
    """Grey levels that must come out: 65535 is white with a view, else as the file has them, from
    the lowest that there may be on; fewer than 8 bits as if they were 8.
    """
    levels = np.array([[modality(case, int(v), film) for v in row] for row in values])
    shown = levels[~border]
    if case["view"] not in ("none", "empty"):
        share = np.array([[viewed(case, level, film) for level in row] for row in levels])
        grey, white = np.rint(share * 65535), 65535
    elif shown.min() < 0 or shown.max() > 65535 or (shown != np.rint(shown)).any():
        grey = np.rint((levels - shown.min()) / (shown.max() - shown.min()) * 65535)
        white = 65535
    else:
        black = max(0, lowest(case))
        grey, white = levels - black, highest(case, film) - black
        claimed = white
        if int(shown.max() - black).bit_length() < white.bit_length():
            white = int(shown.max() - black)
        if case["kind"] == "MONOCHROME1":
            grey = white - grey
        used = 2 ** int(np.where(border, 0, grey).max()).bit_length() - 1
        if claimed != 255 and used < 255:
            grey = np.rint(grey * 255 / used)
        return np.where(border, 0, grey)
    if case["kind"] == "MONOCHROME1":
        grey = white - grey
    return np.where(border, 0, grey)


def modality(case: Case, value: int, film: Dataset) -> float:
    if case["modality"] == "lut":
        item = film.ModalityLUTSequence[0]
        first = case["modality_first"]
        return float(item.entries[min(max(value - first, 0), len(item.entries) - 1)])
    slope, intercept = case["rescale"]
    return slope * value + intercept


def lowest(case: Case) -> int:
    """What black is."""
    slope, intercept = case["rescale"]
    bits = case["bits"][0]
    ends = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if case["signed"] else (0, (1 << bits) - 1)
    return 0 if case["modality"] == "lut" else math.floor(min(slope * e + intercept for e in ends))


def highest(case: Case, film: Dataset) -> int:
    """What white is where the pixels use its highest bit."""
    if case["modality"] == "lut":
        return 4095
    bits = case["bits"][0]
    ends = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if case["signed"] else (0, (1 << bits) - 1)
    return math.floor(max(case["rescale"][0] * end + case["rescale"][1] for end in ends))


def viewed(case: Case, x: float, film: Dataset) -> float:
    if case["view"] == "lut":
        entries = film.VOILUTSequence[0].entries
        place = min(max(int(np.rint(x)) - case["voi_first"], 0), len(entries) - 1)
        return float(entries[place] / entries[-1])
    c, w = case["window"]
    if case["view"] == "SIGMOID":
        return 1 / (1 + math.exp(-4 * (x - c) / w))
    if case["view"] == "LINEAR_EXACT":
        return 0 if x <= c - w / 2 else 1 if x > c + w / 2 else (x - c) / w + 0.5
    if x <= c - 0.5 - (w - 1) / 2:
        return 0
    return 1 if x > c - 0.5 + (w - 1) / 2 else (x - (c - 0.5)) / (w - 1) + 0.5


# The film


def film_of(case: Case, values: np.ndarray, span: tuple[int, int] | None) -> Dataset:
    """The film, and into ``case`` the numbers that the oracle works with."""
    rng = np.random.default_rng(case["seed"] + 1)
    bits, allocated = case["bits"]
    shift = {"low": 0, "middle": (allocated - bits) // 2, "high": allocated - bits}[case["align"]]
    film = dicoms.dataset(values.astype(f"u{allocated // 8}"), bits=bits, HighBit=bits + shift - 1)
    film.PhotometricInterpretation = case["kind"]
    film.PixelRepresentation = int(case["signed"])
    add_modality(case, film)
    levels = [modality(case, int(v), film) for v in values.ravel()]
    add_view(case, film, min(levels), max(levels))
    if span is not None:
        vr = "SS" if case["signed"] else "US"
        film.add_new("PixelPaddingValue", vr, span[case["seed"] % 2])
        if case["padding"] == "range":
            film.add_new("PixelPaddingRangeLimit", vr, span[1 - case["seed"] % 2])
    words = (values & ((1 << bits) - 1)) << shift
    unused = ((1 << allocated) - 1) & ~(((1 << bits) - 1) << shift)
    if case["overlay"]:
        words = words | (rng.integers(0, 1 << allocated, words.shape) & unused)
    elif case["signed"] and case["align"] == "low" and case["seed"] % 2:
        words = values & ((1 << allocated) - 1)  # the sign in the bits above, too
    put_pixels(case, film, values, words)
    return film


def add_modality(case: Case, film: Dataset) -> None:
    case["rescale"] = {"rescale": (1, -1024), "fraction": (0.3, 7.25), "falling": (-2, 33000)}.get(
        case["modality"], (1, 0)
    )
    if case["modality"] in ("rescale", "fraction", "falling"):
        film.RescaleSlope, film.RescaleIntercept = case["rescale"]
    if case["modality"] == "empty":
        film.RescaleSlope = film.RescaleIntercept = ""
    if case["modality"] == "lut":
        bits = case["bits"][0]
        case["modality_first"] = -(1 << (bits - 1)) + 5 if case["signed"] else 5
        entries = (np.linspace(0, 1, (1 << bits) - 20) ** 2 * 4095).round().astype(np.uint16)
        film.ModalityLUTSequence = [lut(case, entries, case["modality_first"], 12)]


def add_view(case: Case, film: Dataset, low: float, high: float) -> None:
    width = max(2.0, round((high - low) * 0.7, 2))
    case["window"] = (round((low + high) / 2 + 0.3 * (high - low) / 4, 2), width)
    if case["view"] == "lut":
        case["voi_first"] = max(math.floor(low) + 2, -32768)  # 16 bits hold no less
        count = min(65536, max(4, math.ceil(high - low) - 5))
        top, bits = ((255, 8), (1023, 10), (4095, 16), (3000, 16))[case["seed"] % 4]
        entries = (np.linspace(0, 1, count) ** 0.5 * top).round().astype(np.uint16)
        film.VOILUTSequence = [lut(case, entries, case["voi_first"], bits)]
    elif case["view"] == "empty":
        film.WindowCenter, film.WindowWidth, film.VOILUTFunction = "", "", ""
    elif case["view"] != "none":
        film.WindowCenter, film.WindowWidth = case["window"]
        if case["view"] == "two":
            film.WindowCenter, film.WindowWidth = [case["window"][0], 1], [case["window"][1], 2]
        elif case["view"] != "default":
            film.VOILUTFunction = case["view"]


def lut(case: Case, entries: np.ndarray, first: int, bits: int) -> Dataset:
    """Its data in words or, where 8 bits are enough, in bytes; its descriptor signed or not."""
    item = Dataset()
    item.entries = entries.tolist()  # a Python attribute, not written
    signed = first < 0 and case["seed"] % 3
    count, first = len(entries) % 65536, first if signed else first % 65536
    item.add_new("LUTDescriptor", "SS" if signed else "US", [count, first, bits])
    little = case["syntax"] != "big endian"
    data = entries.astype("<u2" if little else ">u2").tobytes()
    if bits == 8 and little and case["seed"] % 2:
        data = entries.astype(np.uint8).tobytes()
        data += bytes(len(data) % 2)
    item.add_new("LUTData", "OW", data)
    return item


def put_pixels(case: Case, film: Dataset, values: np.ndarray, words: np.ndarray) -> None:
    bits, allocated = case["bits"]
    word = np.dtype(f"u{allocated // 8}")
    if case["syntax"] in PLAIN:
        film.file_meta.TransferSyntaxUID = PLAIN[case["syntax"]]
        big = case["syntax"] == "big endian"
        film.PixelData = words.astype(word.newbyteorder(">" if big else "<")).tobytes()
        film.PixelData += bytes(len(film.PixelData) % 2)
        film["PixelData"].VR = "OB" if allocated == 8 and case["syntax"] != "implicit" else "OW"
        return
    film.file_meta.TransferSyntaxUID = dicoms.SYNTAX[case["syntax"]]
    samples, depth = words.astype(word), allocated
    if case["syntax"] != "rle" and case["stream_of"] == "values" and not case["overlay"]:
        depth = bits
        signed = case["signed"] and case["syntax"] == "jpeg2000" and case["seed"] % 2
        kind = "i" if signed else "u"
        kept = values if signed else values & ((1 << bits) - 1)
        samples = kept.astype(f"{kind}{1 if bits <= 8 else 2}")
        known = {"htj2k": (8, 16), "lossless jpeg": range(8, 17)}.get(case["syntax"])
        if known and bits not in known:  # of which the encoder writes words alone
            samples = words.astype(word)
    film.PixelData = encapsulate([dicoms.stream(case["syntax"], samples, depth)])
    film["PixelData"].VR, film["PixelData"].is_undefined_length = "OB", True


def written(film: Dataset, path: Path) -> Path:
    syntax = film.file_meta.TransferSyntaxUID
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID
    dcmwrite(
        path,
        film,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        enforce_file_format=True,
    )
    return path
