"""NVIDIA DALI turns encoded films into uint8 canvases; the only module that knows DALI.

Shapes: B batch, H W the canvas, or the film where it is decoded whole.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nvidia import dali
from PIL import Image
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from pcamx.data.canvas.placement import fit
from pcamx.data.store import Film, Store
from pcamx.errors import PcamxError

# DALI makes these at import, and its type stubs do not know them all.
fn: Any = dali.fn
types: Any = dali.types
Pipeline: Any = dali.pipeline.Pipeline

GRAPH = 1
"""To be raised with any change of the graph that changes a canvas; cached ones are then dead."""
PREFETCH = 2
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


class _Source:
    """What the graph needs of each film of a batch: path, size and place on the canvas, gain.

    Of a film that is decoded whole (``canvas`` None), the path alone. Stateless: DALI asks for a
    batch by its number, as often and as early as it likes.
    """

    def __init__(
        self,
        store: Store,
        films: Sequence[Film],
        batches: Sequence[Sequence[int]],
        canvas: int | None,
    ) -> None:
        self.store, self.films, self.batches, self.canvas = store, films, batches, canvas
        self.deep = any(film.white != 255 for film in films)

    def path(self, index: int) -> Path:
        return self.store.root / self.films[index].path

    def __call__(self, batch: int) -> tuple[list[Any], ...]:
        if batch >= len(self.batches):
            raise StopIteration
        films = [self.films[i] for i in self.batches[batch]]
        for film in films:
            self.store.check_film(film)
        paths = [np.frombuffer(os.fsencode(self.path(i)), np.uint8) for i in self.batches[batch]]
        if self.canvas is None:
            return (paths,)
        fits = [fit(film.width, film.height, self.canvas) for film in films]
        answer = (
            paths,
            [np.array([f.height, f.width], np.float32) for f in fits],
            [np.array([-f.top, -f.left], np.int32) for f in fits],
        )
        # Decoded to 16 bits, an 8-bit film's 255 is 65535.
        whites = [65535 if film.white == 255 else film.white for film in films]
        return (*answer, [np.float32(255 / w) for w in whites]) if self.deep else answer

    def dtypes(self) -> list[Any]:
        """Of what it answers."""
        if self.canvas is None:
            return [types.UINT8]
        return [types.UINT8, types.FLOAT, types.INT32, types.FLOAT][: 4 if self.deep else 3]


def _graph(source: _Source, device: torch.device, threads: int) -> Any:
    """Read > decode to grey > resize > pad; on a GPU everything after the bytes runs there."""
    gpu = device.type == "cuda"
    pipe = Pipeline(
        batch_size=max(len(batch) for batch in source.batches),
        num_threads=threads,
        device_id=device.index if gpu else None,
        prefetch_queue_depth=PREFETCH,
        exec_dynamic=True,  # outputs own their memory, so PyTorch may take them without a copy
    )
    given = source.dtypes()
    with pipe:
        path, *place = fn.external_source(
            source=source, num_outputs=len(given), dtype=given, batch=True
        )
        # DALI's threads read, not the training loop; no mmap: a file cut short would kill us.
        encoded = fn.io.file.read(path, dont_use_mmap=True)
        grey = _grey(encoded, source.deep, gpu)
        pipe.set_outputs(canvas_graph(grey, *place, side=source.canvas) if source.canvas else grey)
    return pipe


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


def canvas_graph(grey: Any, size: Any, start: Any, *gain: Any, side: int) -> Any:
    """The graph behind the decoder; with a gain it works on 16 bits until the film is resized."""
    grey = fn.resize(
        grey,
        size=size,
        interp_type=types.INTERP_LINEAR,
        antialias=True,
        dtype=types.FLOAT if gain else types.UINT8,
    )
    if gain:
        grey = fn.brightness(grey, brightness=gain[0], dtype=types.UINT8)
    # A slice that begins before the film pads it.
    return fn.slice(
        grey,
        start=start,
        shape=[side, side],
        axes=[0, 1],
        out_of_bounds_policy="pad",
        fill_values=0,
    )


def decoder(device: torch.device) -> str:
    """All of the decoder that the bits of a canvas depend on."""
    from nvidia import nvimgcodec  # not before the log level above is set

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    libraries = f"DALI {dali.__version__}, nvImageCodec {nvimgcodec.__version__}"
    return f"{libraries}, graph {GRAPH}, {where}"


def who_decodes(films: Sequence[Film], device: torch.device, threads: int) -> str:
    """In words for the log, by the films' suffixes: CPU threads, or the GPU's decoder.

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
    store: Store,
    films: Sequence[Film],
    batches: Sequence[Sequence[int]],
    canvas: int,
    *,
    device: torch.device,
    threads: int,
) -> Iterator[Tensor]:
    """Yield uint8 [B, 1, canvas, canvas] on ``device`` for each batch of indices into ``films``.

    Films are turned upright (EXIF), made grey, reduced with antialiasing, centred on black as
    `fit` says, and scaled by 255 / white. Batches may differ in length. If any of ``films`` is
    deeper than 8 bits, all are decoded to 16; pass the same ``films`` for the same bits.
    ``threads`` CPU threads decode; on a GPU JPEG is decoded there and PNG by those threads.

    Raises PcamxError, naming the file, if one has vanished or been damaged since prepare.
    """
    source = _Source(store, films, batches, canvas)
    for output in _run(source, device, threads):
        canvas_BHW1 = from_dlpack(output.as_tensor())
        yield canvas_BHW1.view(-1, 1, canvas, canvas)


def decode_whole(
    store: Store, films: Sequence[Film], *, device: torch.device, threads: int
) -> Iterator[npt.NDArray[Any]]:
    """Yield each film as decoded, grey and upright, [H, W] in its own size.

    uint8; or, if any of ``films`` is deeper, uint16, in which an 8-bit film's 255 is 65535.
    Raises PcamxError as `decode_batches`.
    """
    batches = [range(i, min(i + _WHOLE, len(films))) for i in range(0, len(films), _WHOLE)]
    source = _Source(store, films, batches, canvas=None)
    for batch, output in zip(batches, _run(source, device, threads), strict=True):
        greys = output.as_cpu()
        for row in range(len(batch)):
            # A copy: the memory is DALI's.
            yield np.array(greys.at(row))[..., 0]


def _run(source: _Source, device: torch.device, threads: int) -> Iterator[Any]:
    """The graph's output for each batch of ``source``."""
    if not len(source.batches):
        return
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    pipe = _graph(source, device, threads)
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
            alone = _Source(source.store, source.films, [[index]], source.canvas)
            try:
                _graph(alone, torch.device("cpu"), threads=1).run()
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
