"""Maps of a batch by `pcamx explain`, the drop-in and the peers, each held against the reference.

Shapes: B batch, h w the map, H W the image.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.lib.operations.peers import GRAD_CAM, TORCH_CAM, import_grad_cam
from bench.lib.timing import Call
from pcamx import PositiveCAM, metrics
from pcamx.catalogue import STAGE_2, STAGE_3, best_map
from pcamx.config import Attention, Model
from pcamx.errors import PcamxError
from pcamx.evaluation.explainers import abnormal_probability
from pcamx.kernels import reference
from pcamx.model.maps import explain
from pcamx.model.network import Network
from pcamx.ops import Impl
from pcamx.types import ABNORMAL

OURS, DROP_IN = "pcamx explain", "PositiveCAM"


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
    """Build a network of random weights; the same encoder and head with and without the decoder."""
    torch.manual_seed(0)
    return Network(Architecture(), decoder=decoder).to(device).eval()


def map_calls(net: Network, image_B1HW: Tensor) -> tuple[dict[str, Call], dict[str, str]]:
    """Return the rivals' calls, each checked, and why others cannot run.

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
        OURS: (lambda: explain_call(net, image_B1HW), upsampled(positive_Bhw, size)),
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
        check_maps(name, calls[name](), truth_BHW)
    return calls, missing


def decoder_answer(net: Network, image_B1HW: Tensor) -> Tensor:
    """Return the decoder's probability of each pixel by its own forward: [B, H, W]."""
    assert net.decoder is not None
    with torch.no_grad():
        height, width = image_B1HW.shape[-2:]
        logit_B1HW: Tensor = net.decoder(net.encoder(image_B1HW), (height, width))
    return logit_B1HW.sigmoid()[:, 0]


def upsampled(map_Bhw: Tensor, size: Iterable[int]) -> Tensor:
    """Upsample to the images' size, as `pcamx.model.maps` does."""
    shape = tuple(size)
    return F.interpolate(map_Bhw[:, None], size=shape, mode="bilinear", align_corners=False)[:, 0]


def check_maps(name: str, result: object, truth_BHW: Tensor) -> None:
    """Raise PcamxError where the maps are more than 1 % of the highest off the reference's."""
    found = torch.as_tensor(result).to(truth_BHW)
    error = float((found - truth_BHW).abs().max() / truth_BHW.abs().max())
    if found.shape != truth_BHW.shape or not error < 1e-2:
        raise PcamxError(f"{name}: its maps are {error:.2g} off; no figure was written")


def explain_call(net: Network, image_B1HW: Tensor) -> Call:
    """Return the call that makes maps and probabilities as `pcamx explain` does."""
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
