"""Toy measures, a map and trainables, each one function or class and one entry, in a real process.

``python toys.py train ...`` is launch/train.py with them, ``python toys.py evaluate RUN`` the
command.
"""

import runpy
import sys
from pathlib import Path

import torch
from torch import Tensor

from pcamx import catalogue
from pcamx.catalogue import (
    L1,
    LOSS,
    MAPS,
    MEASURES,
    TRAINABLES,
    Loss,
    MapKind,
    Measure,
    Trainable,
)
from pcamx.metrics import mean
from pcamx.metrics.decisions import Decisions, Sample
from pcamx.model.maps import Seen
from pcamx.training.stages import SegmenterStage, Stage1
from pcamx.types import Batch, StageOutput

sys.modules["toys"] = sys.modules[__name__]


def height(map_BHW: Tensor, lesion_BHW: Tensor) -> Tensor:
    """Row of each map's peak, from 0 at the top to 1."""
    del lesion_BHW
    rows = map_BHW.amax(2).argmax(1)
    return rows.double() / map_BHW.shape[1]


def certainty(found: Decisions) -> Sample:
    """Distance of the probability from a half, over films."""
    return Sample(mean(abs(found.score_N - 0.5)), found.patients)


def ramp(seen: Seen) -> Tensor:
    """A map that rises from the top to the bottom of every film."""
    ramp_H = torch.linspace(0, 1, seen.side)
    return ramp_H[None, :, None].expand(len(seen.features[-1]), seen.side, seen.side)


class ToyStage(Stage1):
    """Stage 1 under another name."""


class ToyMarks(SegmenterStage):
    """The segmenter with a loss of another name."""

    def forward(self, batch: Batch) -> StageOutput:
        loss, logits_BC, telemetry = super().forward(batch)
        return StageOutput(loss, logits_BC, {LOSS.key: telemetry[LOSS.key], "own": loss.detach()})


MEASURES.append(
    Measure(
        key="toy_height",
        title="toy height",
        meaning="Row of the peak.",
        of="map",
        function="toys:height",
        column="toy_height",
        shown="console",
    )
)
MEASURES.append(
    Measure(
        key="toy_certainty",
        title="toy certainty",
        meaning="Distance from a half.",
        of="decision",
        function="toys:certainty",
        films="every",
        shown="first",
    )
)
MAPS.append(
    MapKind(
        key="toy_ramp",
        title="toy ramp",
        meaning="A ramp.",
        function="toys:ramp",
        needs=frozenset({"classifier"}),
    )
)
TRAINABLES.append(
    Trainable(
        key="toy",
        title="toy stage",
        section="toy",
        stage="toys:ToyStage",
        classifies=True,
        decoder=False,
        batches="films",
        optional=True,
        losses=(L1,),
    )
)
TRAINABLES.append(
    Trainable(
        key="toy_marks",
        title="toy of marks",
        section="toy_marks",
        stage="toys:ToyMarks",
        classifies=False,
        decoder=True,
        batches="marks",
        optional=True,
        losses=(Loss(key="own", name="toy O", title="toy O, its own"),),
    )
)

if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "train":
        train = Path(catalogue.__file__).parents[2] / "launch" / "train.py"
        sys.argv = [str(train), *words]
        runpy.run_path(str(train), run_name="__main__")
    else:
        import pcamx.export
        from pcamx.cli import main

        # Its tests hold the graph, which knows no toys and takes most of an export's time.
        parity = {"opset": 0, "versions": {}, "max_abs_diff": {"probability": 0.0}}
        vars(pcamx.export)["write_onnx"] = lambda model, path: parity
        sys.argv = ["pcamx", command, *words]
        sys.exit(main())
