"""The network as ONNX: a grey canvas in, probability and maps out, held against PyTorch.

Shapes: B batch, h w the map, H W the canvas.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcamx import ops
from pcamx.catalogue import DECODER, POSITIVE_CAM
from pcamx.errors import PcamxError
from pcamx.model.maps import Answer, over_mirror_image
from pcamx.run.pretrained import Pretrained, facts_of
from pcamx.types import ABNORMAL

ONNX = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""Largest difference from PyTorch that is let pass, relative to an output's largest value."""


class Graph(nn.Module):
    """The graph: what stands before and behind the network is inside."""

    def __init__(self, model: Pretrained) -> None:
        super().__init__()
        self.network, self.standardise = model.network, model.standardise
        decoder = ["lesion"] if model.network.decoder is not None else []
        self.outputs = ["probability", "map", *decoder]

    def forward(self, image_B1HW: Tensor) -> tuple[Tensor, ...]:
        """Turn grey levels 0..255, float32, into probability [B], map [B, h, w], lesion [B, H, W].

        Map is the raw positive CAM of the abnormal class; lesion, from stage 3 on, the decoder's.
        Of a mirrored network all are means as in `pcamx.model.maps.explain`.
        """
        if self.network.mirrored:
            logits_BC, maps = over_mirror_image(self._pass, image_B1HW)
        else:
            logits_BC, maps = self._pass(image_B1HW)
        assert logits_BC is not None
        return logits_BC.softmax(1)[:, ABNORMAL], *maps.values()

    def _pass(self, image_B1HW: Tensor) -> Answer:
        """Logits and maps of the images alone."""
        features = self.network.encoder(self.standardise(image_B1HW))
        logits_BC = self.network.head(features[-1])[0]
        abnormal_B = torch.full((image_B1HW.shape[0],), ABNORMAL, device=image_B1HW.device)
        map_Bhw = ops.class_activation(features[-1], self.network.head.weight, abnormal_B)
        maps = {POSITIVE_CAM.key: map_Bhw}
        if self.network.decoder is not None:
            size = (image_B1HW.shape[-2], image_B1HW.shape[-1])
            maps[DECODER.key] = torch.sigmoid(self.network.decoder(features, size))[:, 0]
        return logits_BC, maps


def require_packages() -> None:
    """Raise PcamxError unless what writes and checks ONNX is installed."""
    try:
        for package in PACKAGES:
            __import__(package)
    except ImportError as error:
        raise PcamxError(
            f"export needs the package {error.name}: pip install 'pcamx[export]'"
        ) from None


def write_onnx(model: Pretrained, path: Path) -> dict[str, Any]:
    """Write ``model``, which is on the CPU, and run it beside PyTorch.

    Returns opset, versions and the largest differences. Raises PcamxError where one is too large.
    """
    import onnx

    graph = Graph(model).eval()
    proto = _trace(graph, model.canvas)
    onnx.helper.set_model_props(proto, _metadata(model))
    onnx.save(proto, path)
    return {
        "opset": proto.opset_import[0].version,
        "versions": {name: version(name) for name in ("torch", *PACKAGES)},
        "max_abs_diff": _differences(graph, path, model.canvas),
    }


def _metadata(model: Pretrained) -> dict[str, str]:
    """The facts of config.json; what is no text is JSON."""
    facts = facts_of(model).items()
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts}


def _trace(graph: Graph, canvas: int) -> Any:
    import onnx

    with _silence():
        program = torch.onnx.export(
            graph,
            (torch.zeros(2, 1, canvas, canvas),),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=graph.outputs,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    proto = program.model_proto
    # The exporter notes stack traces, with the paths of this machine.
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        part.ClearField("metadata_props")
    for info in proto.graph.value_info:
        info.ClearField("metadata_props")
    onnx.checker.check_model(proto, full_check=True)
    return proto


@contextmanager
def _silence() -> Iterator[None]:
    """The exporter speaks of packages that are not needed here, and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _differences(graph: Graph, path: Path, canvas: int) -> dict[str, float]:
    """Largest absolute difference of each output over smooth and noisy canvases, black and white.

    In batches of another size than the one traced.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = dict.fromkeys(graph.outputs, 0.0)
    for image_B1HW in torch.split(_canvases(canvas), [1, 3, 4]):
        with torch.no_grad():
            ours = graph(image_B1HW)
        theirs = session.run(graph.outputs, {"image": image_B1HW.numpy()})
        for name, a, b in zip(graph.outputs, ours, theirs, strict=True):
            difference = float((a - torch.from_numpy(b)).abs().max())
            if not difference <= TOLERANCE * float(a.abs().max()):
                raise PcamxError(
                    f"{path.name} and PyTorch differ by {difference:.2g} in {name!r}; nothing was "
                    "written, try other versions of torch and onnxscript"
                )
            found[name] = max(found[name], difference)
    return found


def _canvases(canvas: int) -> Tensor:
    """Eight canvases, whole grey levels as float32 [8, 1, H, W]."""
    generator = torch.Generator().manual_seed(0)
    size = (canvas, canvas)
    coarse = torch.rand(4, 1, 6, 6, generator=generator)
    smooth = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    noise = torch.rand(2, 1, *size, generator=generator)
    plain = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, *size)
    return (255 * torch.cat([smooth, noise, plain])).round()
