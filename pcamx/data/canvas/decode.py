"""NVIDIA DALI turns encoded films into uint8 canvases.

Shapes: B batch, H W the canvas, or the film where it is decoded whole.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nvidia import dali
from PIL import Image
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from pcamx.data.canvas.graph import (
    GRAPH,
    PREFETCH,
    Input,
    build,
    canvas_graph,
    fn,
    place,
    place_inputs,
    types,
)
from pcamx.data.contents import Content, check_film
from pcamx.data.store import Film
from pcamx.errors import PcamxError

_KINDS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".j2c": "HTJ2K",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
_ON_GPU = {"JPEG", "HTJ2K"}
_WHOLE = 8  # films of full size that are decoded at a time
# Read when the codec starts: without it OpenCV writes a line for each HTJ2K film.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")


_NOTHING: Mapping[str, Content] = MappingProxyType({})


class _Source:
    """What the graph needs of each film of a batch: path, size and place on the canvas, gain.

    Of a film that is decoded whole (``canvas`` None), the path alone. Stateless: DALI asks for a
    batch by its number, as often and as early as it likes.
    """

    def __init__(
        self,
        root: Path,
        films: Sequence[Film],
        batches: Sequence[Sequence[int]],
        canvas: int | None,
        contents: Mapping[str, Content],
    ) -> None:
        self.root, self.films, self.batches, self.canvas = root, films, batches, canvas
        self.contents = contents
        self.deep = any(film.white != 255 for film in films)

    def path(self, index: int) -> Path:
        return self.root / self.films[index].path

    def __call__(self, batch: int) -> tuple[list[Any], ...]:
        if batch >= len(self.batches):
            raise StopIteration
        films = [self.films[i] for i in self.batches[batch]]
        for film in films:
            check_film(self.root / film.path, self.contents.get(film.path))
        paths = [np.frombuffer(os.fsencode(self.path(i)), np.uint8) for i in self.batches[batch]]
        if self.canvas is None:
            return (paths,)
        sizes = [(film.width, film.height) for film in films]
        # Decoded to 16 bits, an 8-bit film's 255 is 65535.
        whites = [65535 if film.white == 255 else film.white for film in films]
        return paths, *place(sizes, whites if self.deep else None, self.canvas)

    def inputs(self) -> list[Input]:
        """What it answers."""
        path = Input(types.UINT8)
        return [path] if self.canvas is None else [path, *place_inputs(self.deep)]


def _pipeline(source: _Source, device: torch.device, threads: int) -> Any:
    """Read > decode to grey > resize > pad; on a GPU everything after the bytes runs there."""
    gpu = device.type == "cuda"

    def canvas(path: Any, *place: Any) -> Any:
        # DALI's threads read, not the training loop; no mmap: a file cut short would kill us.
        encoded = fn.io.file.read(path, dont_use_mmap=True)
        grey = _grey(encoded, source.deep, gpu)
        return canvas_graph(grey, *place, side=source.canvas) if source.canvas else grey

    size = max(len(batch) for batch in source.batches)
    return build(source, source.inputs(), canvas, batch_size=size, threads=threads, device=device)


def _grey(encoded: Any, deep: bool, gpu: bool) -> Any:
    return fn.decoders.image(
        encoded,
        device="mixed" if gpu else "cpu",
        output_type=types.GRAY,
        dtype=types.UINT16 if deep else types.UINT8,
        adjust_orientation=True,
        # All JPEGs by one decoder: a film's bits must not depend on its batch.
        **({"hw_decoder_load": 1.0} if gpu else {}),
    )


def decoder(device: torch.device) -> str:
    """Return all of the decoder that the bits of a canvas depend on."""
    from nvidia import nvimgcodec  # not before the log level above is set

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    libraries = f"DALI {dali.__version__}, nvImageCodec {nvimgcodec.__version__}"
    return f"{libraries}, graph {GRAPH}, {where}"


def who_decodes(films: Sequence[Film], device: torch.device, threads: int) -> str:
    """Say who decodes, for the log, by the films' suffixes: CPU threads, or the GPU's decoder.

    nvImageCodec has GPU decoders for JPEG and JPEG 2000, HTJ2K among it, and none for PNG.
    """
    suffixes = {os.path.splitext(film.path)[1].lower() for film in films}
    kinds = {_KINDS.get(suffix, suffix.lstrip(".").upper() or "?") for suffix in suffixes}
    on_gpu = sorted(kinds & _ON_GPU) if device.type == "cuda" else []
    on_cpu = sorted(kinds - set(on_gpu))
    words = [f"{', '.join(on_gpu)} on the GPU"] if on_gpu else []
    if on_cpu:
        words.append(f"{', '.join(on_cpu)} by {threads} CPU thread{'s' * (threads > 1)} a rank")
    text = ", ".join(words)
    if device.type == "cuda" and on_cpu:
        text += "; JPEG or HTJ2K (pcamx prepare --transcode) would be decoded on the GPU"
    return text


def decode_batches(
    root: Path,
    films: Sequence[Film],
    batches: Sequence[Sequence[int]],
    canvas: int,
    *,
    device: torch.device,
    threads: int,
    contents: Mapping[str, Content] = _NOTHING,
) -> Iterator[Tensor]:
    """Yield uint8 [B, 1, canvas, canvas] on ``device`` for each batch of indices into ``films``.

    ``films`` lie below ``root``. They are turned upright (EXIF), made grey, reduced with
    antialiasing, centred on black as `pcamx.data.canvas.placement.fit` says, and scaled by
    255 / white. Batches may differ in length. If any of ``films`` is deeper than 8 bits, all are
    decoded to 16; pass the same ``films`` for the same bits.
    ``threads`` CPU threads decode; on a GPU JPEG is decoded there and PNG by those threads.
    ``contents``, by path, are what the films' files held when they were checked.

    Raises PcamxError, naming the file, if one has vanished, been damaged or replaced since.
    """
    decoder = Decoder(root, films, canvas, device=device, threads=threads, contents=contents)
    yield from decoder.batches(batches)


class Decoder:
    """Decodes films as `decode_batches`, again and again, by one pipeline: an epoch is a call."""

    def __init__(
        self,
        root: Path,
        films: Sequence[Film],
        canvas: int,
        *,
        device: torch.device,
        threads: int,
        contents: Mapping[str, Content] = _NOTHING,
    ) -> None:
        self._given = root, films, canvas, contents
        self._device, self._threads = _numbered(device), threads
        self._idle: tuple[_Source, Any, int] | None = None
        """What the last call has left: its pipeline, its source and their largest batch."""

    def batches(self, batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Yield as `decode_batches`; a call that is begun meanwhile makes a pipeline of its own."""
        if not len(batches):
            return
        most = max(map(len, batches))
        idle, self._idle = self._idle, None
        if idle is None or idle[2] < most:
            source = self._source(batches)
            idle = source, _pipeline(source, self._device, self._threads), most
        source, pipe, _ = idle
        source.batches = batches
        side = self._given[2]
        for output in _run(pipe, source, self._device):
            canvas_BHW1 = from_dlpack(output.as_tensor())
            yield canvas_BHW1.view(-1, 1, side, side)
        with suppress(StopIteration):
            pipe.run()  # past the end, whence it may begin anew
        pipe.reset()
        self._idle = idle

    def _source(self, batches: Sequence[Sequence[int]]) -> _Source:
        root, films, canvas, contents = self._given
        return _Source(root, films, batches, canvas, contents)


def decode_whole(
    root: Path, films: Sequence[Film], *, device: torch.device, threads: int
) -> Iterator[npt.NDArray[Any]]:
    """Yield each film as decoded, grey and upright, [H, W] in its own size.

    uint8; or, if any of ``films`` is deeper, uint16, in which an 8-bit film's 255 is 65535.
    Raises PcamxError as `decode_batches`.
    """
    batches = [range(i, min(i + _WHOLE, len(films))) for i in range(0, len(films), _WHOLE)]
    if not batches:
        return
    source, device = _Source(root, films, batches, None, _NOTHING), _numbered(device)
    outputs = _run(_pipeline(source, device, threads), source, device)
    for batch, output in zip(batches, outputs, strict=True):
        greys = output.as_cpu()
        for row in range(len(batch)):
            # A copy: the memory is DALI's.
            yield np.array(greys.at(row))[..., 0]


def _numbered(device: torch.device) -> torch.device:
    """The current GPU where a GPU is meant and none named."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _run(pipe: Any, source: _Source, device: torch.device) -> Iterator[Any]:
    """The graph's output for each batch of ``source``."""
    for number in range(len(source.batches)):
        stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        try:
            (output,) = pipe.run(stream)
        except RuntimeError:
            _blame(source, number)
            raise
        yield output


def _blame(source: _Source, number: int) -> None:
    """Raise PcamxError for the first film about to be decoded that DALI cannot decode, if any.

    DALI rarely names a bad file, and may fail as early as it prefetches.
    """
    for batch in source.batches[number : number + PREFETCH + 1]:
        for index in batch:
            alone = _Source(source.root, source.films, [[index]], source.canvas, source.contents)
            try:
                _pipeline(alone, torch.device("cpu"), threads=1).run()
            except RuntimeError:
                raise PcamxError(
                    f"{source.path(index)}: cannot be decoded ({_reason(source.path(index))}); "
                    "run pcamx prepare again"
                ) from None


def _reason(path: Path) -> str:
    """Why, in Pillow's words, which say more than DALI's."""
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow raises many kinds, and any one will do
        return getattr(error, "strerror", None) or str(error)
    return "a format that DALI does not know; save it as PNG"
