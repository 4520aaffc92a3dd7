"""Maps of where a network looks.

A new one is a function in `pcamx.model.maps` and an entry here.
"""

from dataclasses import dataclass
from typing import Literal

from pcamx.catalogue.trainables import Trainable


@dataclass(frozen=True, kw_only=True, slots=True)
class MapKind:
    """A map of where the network looks, of the abnormal class, at the film's size."""

    key: str
    title: str
    meaning: str
    function: str
    """Takes a `pcamx.model.maps.Seen`, gives [B, H, W], not normalised."""
    needs: frozenset[Literal["classifier", "decoder"]]
    """What a network must have to give it."""
    gradient: bool = False
    """Whether it needs the class score's gradient: then only `pcamx evaluate` makes it."""

    def of(self, entry: Trainable) -> bool:
        """Tell whether the network of ``entry`` gives this map."""
        have = {"classifier": entry.classifies, "decoder": entry.decoder}
        return all(have[need] for need in self.needs)


CAM = MapKind(
    key="cam",
    title="CAM",
    meaning="The last features weighed by the abnormal class's weights, eq. 1 of the paper; of the "
    "full film, without its label, as all maps.",
    function="pcamx.model.maps:cam",
    needs=frozenset({"classifier"}),
)
POSITIVE_CAM = MapKind(
    key="positive_cam",
    title="positive CAM",
    meaning="As CAM, by the positive weights alone, eq. 2.",
    function="pcamx.model.maps:positive_cam",
    needs=frozenset({"classifier"}),
)
GRADCAM = MapKind(
    key="gradcam",
    title="Grad-CAM, stride 8",
    meaning="The features of stride 8, weighed by the gradient of the abnormal class's score, "
    "averaged over the film. At the last features it would be CAM without what is negative, times "
    "a constant.",
    function="pcamx.model.maps:gradcam",
    needs=frozenset({"classifier"}),
    gradient=True,
)
LAYERCAM = MapKind(
    key="layercam",
    title="LayerCAM, stride 8",
    meaning="As Grad-CAM, weighed in each place by the gradient where it is positive. At the last "
    "features it would be positive CAM times a constant, where those are pooled by their mean.",
    function="pcamx.model.maps:layercam",
    needs=frozenset({"classifier"}),
    gradient=True,
)
DECODER = MapKind(
    key="decoder",
    title="decoder",
    meaning="The lesion as the decoder draws it, which stage 3 and the segmenter train.",
    function="pcamx.model.maps:decoder",
    needs=frozenset({"decoder"}),
)
MAPS: list[MapKind] = [CAM, POSITIVE_CAM, DECODER, GRADCAM, LAYERCAM]


def maps_of(entry: Trainable, *, gradient: bool = True) -> list[MapKind]:
    """Return the maps that the network of ``entry`` gives, without those that need gradients."""
    return [kind for kind in MAPS if kind.of(entry) and (gradient or not kind.gradient)]


def best_map(entry: Trainable) -> MapKind:
    """Return the map that shows where ``entry`` looks: the decoder's, else the positive CAM."""
    return DECODER if DECODER.of(entry) else POSITIVE_CAM
