"""A toy measure, map and trainable, each one function or class and one entry, in a real process.

``python toys.py train ...`` is launch/train.py with them, ``python toys.py evaluate RUN`` the
command.
"""

import runpy
import sys
from pathlib import Path

import torch
from torch import Tensor

from pcamx import catalogue
from pcamx.catalogue import MAPS, MEASURES, TRAINABLES, MapKind, Measure, Trainable
from pcamx.model.maps import Seen
from pcamx.training.stages import Stage1

sys.modules["toys"] = sys.modules[__name__]


def height(map_BHW: Tensor, lesion_BHW: Tensor) -> Tensor:
    """Row of each map's peak, from 0 at the top to 1."""
    del lesion_BHW
    rows = map_BHW.amax(2).argmax(1)
    return rows.double() / map_BHW.shape[1]


def ramp(seen: Seen) -> Tensor:
    """A map that rises from the top to the bottom of every film."""
    ramp_H = torch.linspace(0, 1, seen.side)
    return ramp_H[None, :, None].expand(len(seen.features[-1]), seen.side, seen.side)


class ToyStage(Stage1):
    """Stage 1 under another name."""


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
        losses=("l1",),
    )
)

if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "train":
        train = Path(catalogue.__file__).parents[2] / "launch" / "train.py"
        sys.argv = [str(train), *words]
        runpy.run_path(str(train), run_name="__main__")
    else:
        from pcamx.cli import main

        sys.argv = ["pcamx", command, *words]
        sys.exit(main())
