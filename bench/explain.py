"""`python -m bench.explain`: maps of a batch beside the peers', and a folder of films end to end.

Around one network with random weights, whose speed is that of a trained one. No figure is given
where a map is not what it should be. Shapes: B batch, h w the map, H W the image.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.lib import command, record
from bench.lib.peers import GRAD_CAM, PACKAGES, TORCH_CAM, import_grad_cam
from bench.lib.record import Row
from bench.lib.timing import Call, time_calls
from pcamx import PositiveCAM, metrics
from pcamx.catalogue import STAGE_2, STAGE_3, best_map, maps_of
from pcamx.config import Attention, Model
from pcamx.data.phantom import draw_phantoms
from pcamx.errors import PcamxError
from pcamx.evaluation.explainers import abnormal_probability
from pcamx.kernels import reference
from pcamx.model.maps import explain
from pcamx.model.network import Network
from pcamx.ops import Impl
from pcamx.report.console import track
from pcamx.run.pretrained import Pretrained, Threshold, save_pretrained
from pcamx.types import ABNORMAL

CANVAS, BATCH, FILMS, FILM_SIZE = 320, 16, 100, 1000
OURS, DROP_IN, DECODER = "pcamx explain", "PositiveCAM", "pcamx explain with the decoder"
NOTES = """\
From a batch of tensors to maps of the images' size, the network's forward pass within each call.
pcamx explain makes maps and probabilities; torch-cam's CAM and PositiveCAM's maps are upsampled \
as its are, GradCAM upsamples its own.
Peers' maps are min-max normalised plain CAMs (pytorch-grad-cam's cut off at 0 before); each was \
first held against the reference.
The folder: the command over drawn films of 1000 px, from its start to its end, with the decoder, \
pictures drawn; memory is the median of all its processes together, shared pages counted once.
"""


class Architecture:
    """Of a network as configs/mura.yaml trains it."""

    model = Model()
    attention = Attention()
    impl: Impl = "auto"


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
    """To the images' size, as `pcamx.model.maps` does."""
    shape = tuple(size)
    return F.interpolate(map_Bhw[:, None], size=shape, mode="bilinear", align_corners=False)[:, 0]


def _check(name: str, result: object, truth_BHW: Tensor) -> None:
    found = torch.as_tensor(result).to(truth_BHW)
    error = float((found - truth_BHW).abs().max() / truth_BHW.abs().max())
    if found.shape != truth_BHW.shape or not error < 1e-2:
        raise PcamxError(f"{name}: its maps are {error:.2g} off; no figure was written")


def _ours(net: Network, image_B1HW: Tensor) -> Call:
    kind = best_map(STAGE_2 if net.decoder is None else STAGE_3)

    def call() -> Tensor:
        with torch.inference_mode():
            logits_BC, maps = explain(net, image_B1HW, [kind])
            assert logits_BC is not None
            abnormal_probability(logits_BC)
            return maps[kind.key]

    return call


def _drop_in(net: Network, image_B1HW: Tensor) -> Call:
    extractor = PositiveCAM(Classifier(net), "features", "fc")

    def call() -> Tensor:
        with torch.inference_mode():
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
    GradCAM, ClassifierOutputTarget, _ = import_grad_cam()
    model = Classifier(net)
    extractor = GradCAM(model=model, target_layers=[model.features])
    targets = [ClassifierOutputTarget(ABNORMAL)] * len(image_B1HW)
    return lambda: extractor(input_tensor=image_B1HW, targets=targets)


def measure_maps(device: torch.device, canvas: int, batch: int) -> tuple[list[Row], list[str]]:
    """Images a second of each rival, and a line for each that cannot run, or not as installed."""
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
    notes = [f"not run: {name}: {why}" for name, why in missing.items()]
    if GRAD_CAM in calls and (absent := import_grad_cam()[2]):
        notes.append(
            f"{GRAD_CAM} ran without {', '.join(absent)}, which it imports but does not use."
        )
    return rows, notes


def measure_folder(films: Path, device: torch.device, canvas: int, folder: Path) -> list[Row]:
    """Films a second of the command over ``films``, and its memory early and late.

    Works in ``folder``. Raises PcamxError where a film could not be explained.
    """
    _export(folder, device, canvas)
    words = ("explain", folder / "export", films, "--out", folder / "out")
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "pcamx", *map(str, words)]) as process:
        samples = [sum(map(_memory, _family(process.pid)))]
        while process.poll() is None:
            samples.append(sum(map(_memory, _family(process.pid))))
            time.sleep(0.2)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise PcamxError(f"{films}: pcamx explain ended with {process.returncode}")
    count = len(list((folder / "out").rglob("*.npy")))
    case, tenth = f"a folder of {count} films, {canvas} px", max(1, len(samples) // 10)
    early, late = (median(part) for part in (samples[tenth : 2 * tenth + 1], samples[-tenth:]))
    return [
        Row(case, OURS, "speed", count / seconds, "films/s"),
        Row(case, OURS, "memory in the second tenth", early / 1e6, "MB"),
        Row(case, OURS, "memory in the last tenth", late / 1e6, "MB"),
    ]


def _export(folder: Path, device: torch.device, canvas: int) -> None:
    """A network with random weights and a decoder, as `pcamx explain` loads it."""
    thresholds = {kind.key: Threshold(0.9, False) for kind in maps_of(STAGE_3, gradient=False)}
    (folder / "export").mkdir()
    model = Pretrained(
        folder=folder,
        network=network(device, decoder=True),
        stage=3,
        encoder="bottleneck",
        pooling="mean",
        canvas=canvas,
        mean=60.0,
        std=50.0,
        thresholds=thresholds,
        versions={},
        commit=None,
    )
    save_pretrained(model, folder / "export")


def _family(process: int) -> list[int]:
    """A process and all that it has started."""
    try:
        tasks = Path(f"/proc/{process}/task").iterdir()
        children = [int(n) for task in tasks for n in (task / "children").read_text().split()]
    except OSError:  # it has just ended
        return []
    return [process, *(one for child in children for one in _family(child))]


def _memory(process: int) -> int:
    """Bytes in memory; of pages that several processes share, this one's part."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def run(options: argparse.Namespace) -> None:
    """Measure maps, then a folder; write the tables and the JSON."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = record.begin("explain", device, PACKAGES)
    path = record.outputs("explain", found, options.markdown, options.json)
    rows, notes = measure_maps(device, options.canvas, options.batch)
    found.rows.extend(rows)
    with TemporaryDirectory() as name:
        drawn = Path(name) / "films"
        draw_phantoms(drawn, train=16, valid=options.films, size=FILM_SIZE, seed=0, track=track)
        films = drawn / "MURA-v1.1" / "valid"
        rows = measure_folder(films, device, options.canvas, Path(name))
        found.rows.extend(rows)
    if options.json:
        record.write_json(found, options.json)
    record.write_markdown(found, path, "Explain", [*NOTES.splitlines(), *notes])
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
