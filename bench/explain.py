"""`python -m bench.explain`: maps of a batch beside the peers', and a folder of films end to end.

Around one network with random weights, whose speed is that of a trained one. No figure is given
where a map is not what it should be. Shapes: B batch, h w the map, H W the image.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import active_children
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import command, record
from bench.peers import GRAD_CAM, PACKAGES, TORCH_CAM
from bench.record import Row
from bench.timing import Call, time_calls
from pcamx import PositiveCAM, metrics
from pcamx.config import Attention, Model
from pcamx.data.phantom import draw_phantoms
from pcamx.errors import PcamxError
from pcamx.explain.folder import explain
from pcamx.kernels import reference
from pcamx.model.network import Network
from pcamx.pretrained import Pretrained, Threshold, save_pretrained
from pcamx.report.console import track
from pcamx.scoring import network_maps
from pcamx.types import ABNORMAL

T = TypeVar("T")
CANVAS, BATCH, FILMS, FILM_SIZE = 320, 16, 100, 1000
OURS, DROP_IN, DECODER = "pcamx explain", "PositiveCAM", "pcamx explain with the decoder"
NOTES = """\
From a batch of tensors to maps of the images' size, the network's forward pass within each call.
pcamx explain makes the plain and the positive CAM and the probabilities; torch-cam's CAM and \
PositiveCAM's maps are upsampled as its are, GradCAM upsamples its own.
Peers' maps are min-max normalised plain CAMs (pytorch-grad-cam's cut off at 0 before); each was \
first held against the reference.
The folder: drawn films, read, explained with the decoder, drawn and written, all processes of \
pcamx explain together; memory is that of all its processes.
"""


class Architecture:
    """Of a network as configs/mura.yaml trains it."""

    model = Model()
    attention = Attention()


class Classifier(nn.Module):
    """The network as the peers and the drop-in take it: features, pooling, a linear layer."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.features = _Last(network.encoder)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(network.head.weight.shape[1], 2)
        self.fc.weight, self.fc.bias = network.head.weight, network.head.bias
        self.eval()

    def forward(self, image_B1HW: Tensor) -> Tensor:
        logits_BC: Tensor = self.fc(self.pool(self.features(image_B1HW)).flatten(1))
        return logits_BC


class _Last(nn.Module):
    """The last of the encoder's feature maps."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image_B1HW: Tensor) -> Tensor:
        last: Tensor = self.encoder(image_B1HW)[-1]
        return last


def network(device: torch.device, *, decoder: bool) -> Network:
    """Random weights; the same encoder and head with and without the decoder."""
    torch.manual_seed(0)
    return Network(Architecture(), decoder=decoder).to(device).eval()


def map_calls(net: Network, image_B1HW: Tensor) -> tuple[dict[str, Call], dict[str, str]]:
    """The rivals' calls, each checked, and why others cannot run.

    Raises PcamxError where a map differs from the reference.
    """
    size = image_B1HW.shape[-2:]
    with torch.no_grad():
        features = net.encoder(image_B1HW)[-1]
        abnormal_B = torch.full((len(features),), ABNORMAL, device=features.device)
        plain_Bhw, positive_Bhw = (
            reference.class_activation(features, net.head.weight, abnormal_B, positive=positive)
            for positive in (False, True)
        )
    cut_BHW = upsampled(plain_Bhw.relu(), size)
    makers: dict[str, tuple[Callable[[], Call], Tensor]] = {
        OURS: (lambda: _ours(net, image_B1HW), upsampled(positive_Bhw, size)),
        DROP_IN: (lambda: _drop_in(net, image_B1HW), upsampled(positive_Bhw, size)),
        TORCH_CAM: (
            lambda: _torch_cam(net, image_B1HW),
            upsampled(metrics.minmax(plain_Bhw).float(), size),
        ),
        GRAD_CAM: (lambda: _grad_cam(net, image_B1HW), metrics.minmax(cut_BHW).float()),
    }
    calls, missing = dict[str, Call](), dict[str, str]()
    for name, (make, truth_BHW) in makers.items():
        try:
            calls[name] = make()
        except ImportError as error:
            missing[name] = str(error)
            continue
        _check(name, calls[name](), truth_BHW)
    return calls, missing


def upsampled(map_Bhw: Tensor, size: Iterable[int]) -> Tensor:
    """To the images' size, as `Network.explain` does."""
    shape = tuple(size)
    return F.interpolate(map_Bhw[:, None], size=shape, mode="bilinear", align_corners=False)[:, 0]


def _check(name: str, result: object, truth_BHW: Tensor) -> None:
    found = torch.as_tensor(result).to(truth_BHW)
    error = float((found - truth_BHW).abs().max() / truth_BHW.abs().max())
    if found.shape != truth_BHW.shape or not error < 1e-2:
        raise PcamxError(f"{name}: its maps are {error:.2g} off; no figure was written")


def _ours(net: Network, image_B1HW: Tensor) -> Call:
    explainer = network_maps(net)

    def call() -> Tensor:
        maps = explainer(image_B1HW)[1]
        return maps.get("decoder", maps["positive_cam"])

    return call


def _drop_in(net: Network, image_B1HW: Tensor) -> Call:
    extractor = PositiveCAM(Classifier(net), "features", "fc")

    def call() -> Tensor:
        with torch.no_grad():
            return upsampled(extractor(image_B1HW, ABNORMAL), image_B1HW.shape[-2:])

    return call


def _torch_cam(net: Network, image_B1HW: Tensor) -> Call:
    from torchcam.methods import CAM

    model = Classifier(net)
    extractor = CAM(model, "features", "fc")

    def call() -> Tensor:
        with torch.inference_mode():
            model(image_B1HW)
            maps = extractor(class_idx=[ABNORMAL] * len(image_B1HW))
            return upsampled(maps[0], image_B1HW.shape[-2:])

    return call


def _grad_cam(net: Network, image_B1HW: Tensor) -> Call:
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except RuntimeError as error:  # torchvision built for another PyTorch
        raise ImportError(str(error).splitlines()[0]) from error

    model = Classifier(net)
    extractor = GradCAM(model=model, target_layers=[model.features])
    targets = [ClassifierOutputTarget(ABNORMAL)] * len(image_B1HW)
    return lambda: extractor(input_tensor=image_B1HW, targets=targets)


def measure_maps(device: torch.device, canvas: int, batch: int) -> tuple[list[Row], list[str]]:
    """Images a second of each rival, and a line for each that cannot run."""
    generator = torch.Generator().manual_seed(1)
    image_B1HW = torch.randn(batch, 1, canvas, canvas, generator=generator).to(device)
    calls, missing = map_calls(network(device, decoder=False), image_B1HW)
    calls[DECODER] = _ours(network(device, decoder=True), image_B1HW)
    calls[DECODER]()
    case, timings = f"maps, B {batch}, {canvas} px", time_calls(calls, device)
    rows = [row for name, timing in timings.items() for row in timing.rows(case, name)]
    for name, timing in timings.items():
        rows.append(Row(case, name, "speed", 1000 * batch / timing.p50, "images/s"))
    for rival in (TORCH_CAM, GRAD_CAM):
        if rival in timings:
            ratio = timings[rival].p50 / timings[OURS].p50
            rows.append(Row(case, OURS, "speed", ratio, "x", rival))
    return rows, [f"not run: {name}: {why}" for name, why in missing.items()]


class Memory:
    """A Track that notes, film by film, what this process and its children hold in memory."""

    def __init__(self) -> None:
        self.bytes: list[int] = []
        self.seconds: list[float] = []

    def __call__(self, work: Iterable[T], what: str, total: int) -> Iterator[T]:
        start = time.perf_counter()
        for item in track(work, what, total):
            self.bytes.append(sum(map(_resident, [os.getpid(), *_children()])))
            self.seconds.append(time.perf_counter() - start)
            yield item


def _children() -> list[int]:
    return [child.pid for child in active_children() if child.pid is not None]


def _resident(process: int) -> int:
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except OSError:  # it has just ended
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def measure_folder(films: Path, device: torch.device, canvas: int, folder: Path) -> list[Row]:
    """Films a second of `explain` over ``films``, and its memory early and at the end.

    Works in ``folder``. Raises PcamxError where a film could not be explained.
    """
    model = Pretrained(
        folder=folder,
        network=network(device, decoder=True),
        stage=3,
        layout="bottleneck",
        canvas=canvas,
        mean=60.0,
        std=50.0,
        thresholds=dict.fromkeys(("cam", "positive_cam", "decoder"), Threshold(0.9, False)),
        versions={},
        commit=None,
    )
    (folder / "export").mkdir()
    save_pretrained(model, folder / "export")
    memory = Memory()
    done = explain(folder / "export", [films], out=folder / "out", track=memory)
    for row in done.skipped():
        raise PcamxError(f"{films}: {row.film} could not be explained: {row.reason}")
    case = f"a folder of {len(done.rows)} films, {canvas} px"
    tenth = max(1, len(done.rows) // 10)
    early, late = memory.bytes[tenth : 2 * tenth + 1], memory.bytes[-tenth:]
    return [
        Row(case, OURS, "speed", len(done.rows) / memory.seconds[-1], "films/s"),
        Row(case, OURS, "memory after a tenth", max(early) / 1e6, "MB"),
        Row(case, OURS, "memory in the last tenth", max(late) / 1e6, "MB"),
    ]


def run(options: argparse.Namespace) -> None:
    """Measure maps, then a folder; write the tables and the JSON."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = record.begin("explain", device, PACKAGES)
    path = record.outputs("explain", found, options.markdown, options.json)
    rows, missing = measure_maps(device, options.canvas, options.batch)
    found.rows.extend(rows)
    with TemporaryDirectory() as name:
        drawn = Path(name) / "films"
        draw_phantoms(drawn, train=16, valid=options.films, size=FILM_SIZE, seed=0, track=track)
        films = drawn / "MURA-v1.1" / "valid"
        rows = measure_folder(films, device, options.canvas, Path(name))
        found.rows.extend(rows)
    if options.json:
        record.write_json(found, options.json)
    record.write_markdown(found, path, "Explain", [*NOTES.splitlines(), *missing])
    print(f"{path}: {len(found.rows)} figures")


if __name__ == "__main__":
    made = command.parser(
        "explain",
        "Time maps beside torch-cam's and pytorch-grad-cam's, and pcamx explain over a folder.",
        "python -m bench.explain --films 1000 --json explain.json",
    )
    made.add_argument("--films", type=int, default=FILMS, help="of the folder (%(default)s)")
    made.add_argument("--batch", type=int, default=BATCH, help="images a batch (%(default)s)")
    made.add_argument("--canvas", type=int, default=CANVAS, help="pixels a side (%(default)s)")
    sys.exit(command.main(made, run))
