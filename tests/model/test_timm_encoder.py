"""Backbones of timm: their maps' places, their weights, what is frozen; and the head's pooling.

timm is an extra that this project's own tests do without: a backbone of its interface, whose
padding is ours to choose, stands for it. Where timm is installed its own are looked at as well.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import toy_timm
from safetensors.torch import save_file
from torch import Tensor, nn
from toy_timm import Backbone, Step, corner_weights

from pcamx import config as configs
from pcamx.catalogue import GRADCAM, LAYERCAM, maps_of, trainable
from pcamx.config import ConfigError
from pcamx.errors import PcamxError
from pcamx.model import receptive_field
from pcamx.model.batch_norm import BatchNorm, join_ranks
from pcamx.model.head import TOP_SHARE, Head
from pcamx.model.maps import explain
from pcamx.model.network import Network, build_encoder
from pcamx.model.receptive_field import centres
from pcamx.model.timm_backbone import input_scale
from pcamx.model.timm_encoder import TimmEncoder
from pcamx.run.backbone import load_backbone


@pytest.fixture(name="toy")
def _toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "timm", toy_timm.stand_in())
    centres.cache_clear()
    yield
    centres.cache_clear()


def test_where_cells_lie_by_hand(toy: None) -> None:
    """A 3x3 of stride 2 looks at pixel 2 i, or at 2 i + 1 where one is padded behind alone."""
    assert centres("timm:even_32") == (0, 0, 0, 0)
    # 2 i + 1 of 2 i + 1 is 4 i + 3, and so on.
    assert centres("timm:same_32") == (3, 7, 15, 31)
    # An odd number of cells, 9, is padded on both sides: cell i looks at cell 2 i again.
    assert centres("timm:same_32", 144) == (3, 7, 15, 15)
    assert centres("timm:even_32", 144) == (0, 0, 0, 0)


class GlobalContext(nn.Module):
    """What it passes on depends on the mean over the image, as that of timm's."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean((2, 3), keepdim=True)


class Gate(nn.Module):
    """The same by a factor, and of a name that nobody knows."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


@pytest.mark.parametrize("looking", [GlobalContext, Gate])
@pytest.mark.parametrize("name", ["timm:even_32", "timm:same_32"])
def test_what_looks_at_the_whole_image_moves_no_centre(
    toy: None, monkeypatch: pytest.MonkeyPatch, name: str, looking: type[nn.Module]
) -> None:
    expected = [centres(name, side) for side in (128, 144)]
    centres.cache_clear()
    plain = Step.__init__

    def squeezing(self: Step, *given: Any) -> None:
        plain(self, *given)
        self.norm = nn.Sequential(self.norm, looking())  # type: ignore[assignment]

    monkeypatch.setattr(Step, "__init__", squeezing)
    assert [centres(name, side) for side in (128, 144)] == expected


def test_a_backbone_whose_cells_cannot_be_found_is_one_line(
    toy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one without batch norm, whose own scaling takes a constant weight's mean away."""
    monkeypatch.setattr(Step, "forward", lambda self, x: self.conv(x) * 0)
    with pytest.raises(PcamxError, match="cells of even_32 lie cannot be found; name another"):
        centres("timm:even_32")


def looked_at(encoder: TimmEncoder, side: int = 256, *, learned: bool = False) -> list[float]:
    """Mean row of the gradient of each map's middle cell, less the cell's first pixel.

    ``learned``: with the backbone's own kernels, else with even ones.
    """
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d) and not (learned and name.startswith("backbone.")):
            nn.init.constant_(module.weight, 0.1)
    image = torch.full((1, 1, side, side), 0.5, requires_grad=True)
    found = []
    for map_BKhw in encoder.eval()(image):
        cell, stride = map_BKhw.shape[-1] // 2, side // map_BKhw.shape[-1]
        (grad,) = torch.autograd.grad(map_BKhw[..., cell, cell].sum(), image, retain_graph=True)
        rows = grad.sum((0, 1, 3))
        found.append(float((rows * torch.arange(side)).sum() / rows.sum()) - stride * cell)
    return found


@pytest.mark.parametrize("name", ["timm:even_32", "timm:same_32", "timm:even_16", "timm:same_16"])
def test_cells_lie_where_upsampling_paints_them(toy: None, name: str) -> None:
    """Cell i of stride s over pixels s i to s i + s - 1: the last to the pixel, others to half."""
    four, eight, sixteen = looked_at(TimmEncoder(name))
    assert abs(four - 1.5) <= 2
    assert abs(eight - 3.5) <= 4
    assert abs(sixteen - 7.5) <= (0.51 if name.endswith("16") else 1)


@pytest.mark.parametrize("name", ["even_32", "same_32", "even_16", "same_16"])
def test_maps_lie_where_pretrained_kernels_look(toy: None, tmp_path: Path, name: str) -> None:
    """Pixel 2 i - 1, or 2 i where one is padded behind alone: a whole cell beside the middle."""
    encoder = TimmEncoder(f"timm:{name}").train()
    load_backbone(encoder, str(corner_weights(tmp_path / "corner.safetensors", name)), name)
    assert encoder.training and encoder.backbone.training
    strides = [4, 8, 16] if name.endswith("16") else [4, 8, 16, 32]
    assert encoder.lean.tolist() == [1 - stride for stride in strides]
    first = 0 if name.startswith("same") else -1
    assert encoder._centres == {stride: first * (stride - 1) for stride in strides}
    four, eight, sixteen = looked_at(encoder, learned=True)
    assert abs(four - 1.5) <= 2
    assert abs(eight - 3.5) <= 4
    assert abs(sixteen - 7.5) <= (0.51 if name.endswith("16") else 1)


def test_where_they_look_goes_with_the_weights(toy: None, tmp_path: Path) -> None:
    encoder = TimmEncoder("timm:same_32").eval()
    load_backbone(encoder, str(corner_weights(tmp_path / "c.safetensors", "same_32")), "same_32")
    image = torch.rand(1, 1, 64, 64)
    expected = encoder(image)
    other = TimmEncoder("timm:same_32").eval()
    other.load_state_dict(encoder.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(other(image), expected, strict=True))
    # Of before, when the padding alone was looked at: the maps lie as they were trained.
    before = {k: v for k, v in encoder.state_dict().items() if k != "lean"}
    other.load_state_dict(before)
    assert other._centres == {4: 3, 8: 7, 16: 15, 32: 31} and not other.lean.any()
    assert "lean" not in before


def test_maps_are_of_strides_4_8_16_and_the_last_is_not_negative(toy: None) -> None:
    encoder = TimmEncoder("timm:same_32")
    four, eight, sixteen = encoder(torch.randn(2, 1, 64, 64))
    assert (four.shape, eight.shape) == ((2, 6, 16, 16), (2, 8, 8, 8))
    assert sixteen.shape == (2, 128, 4, 4) and sixteen.min() == 0
    assert encoder.channels == (6, 8, 128)


@pytest.mark.parametrize("side", [256, 272])
@pytest.mark.parametrize("name", ["timm:even_32", "timm:same_32"])
def test_the_coarse_branch_looks_where_it_is_painted(toy: None, name: str, side: int) -> None:
    """Alone, on an even and on an odd number of cells."""
    encoder = TimmEncoder(name)
    torch.nn.init.zeros_(encoder.lateral.weight)
    encoder.lateral.weight.requires_grad_(False)
    image = torch.full((1, 1, side, side), 0.5, requires_grad=True)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module is not encoder.lateral:
            nn.init.constant_(module.weight, 0.1)
    last = encoder.eval()(image)[-1]
    # Between two coarse cells one looks a little to either side: the mean of a few tells.
    off = []
    for cell in range(6, 10):
        (grad,) = torch.autograd.grad(last[..., cell, cell].sum(), image, retain_graph=True)
        rows = grad.sum((0, 1, 3))
        off.append(float((rows * torch.arange(side)).sum() / rows.sum()) - 16 * cell - 7.5)
    assert abs(sum(off) / len(off)) < 1


@pytest.mark.parametrize("name", ["timm:even_32", "timm:same_32"])
def test_the_coarse_map_is_interpolated_at_the_fine_cells(toy: None, name: str) -> None:
    """A map that grows with the pixel it looks at grows so after, but at the ends."""
    encoder = TimmEncoder(name)
    at = dict(zip((4, 8, 16, 32), centres(name), strict=True))
    coarse = (32 * torch.arange(6.0) + at[32])[None, None, :, None].expand(1, 1, 6, 6)
    fine = encoder._finer(coarse, torch.Size((12, 12)))
    expected = 16 * torch.arange(12.0) + at[16]
    torch.testing.assert_close(fine[0, 0, 1:-1, 3], expected.clamp(at[32], 160 + at[32])[1:-1])


def test_input_scale_in_grey_levels(toy: None) -> None:
    assert input_scale("timm:same_32") == pytest.approx((0.4 * 255, 0.2 * 255))
    with pytest.raises(PcamxError, match="timm knows no nothing"):
        input_scale("timm:nothing")


def test_weights_of_three_channels_are_summed_to_one(toy: None, tmp_path: Path) -> None:
    three = Backbone("same_32", 3, None)
    path = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in three.state_dict().items()}, path)
    encoder = TimmEncoder("timm:same_32")
    load_backbone(encoder, str(path), "timm:same_32")
    grey = torch.randn(1, 1, 64, 64)
    for ours, theirs in zip(
        encoder.backbone.eval()(grey), three.eval()(grey.expand(-1, 3, -1, -1)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    torch.save(three.state_dict(), tmp_path / "weights.pth")
    load_backbone(encoder, str(tmp_path / "weights.pth"), "timm:same_32")


def test_weights_that_do_not_fit(toy: None, tmp_path: Path) -> None:
    encoder = TimmEncoder("timm:same_32")

    def refused(name: str, content: Any, match: str) -> None:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        with pytest.raises(PcamxError, match=match):
            load_backbone(encoder, str(path), "timm:same_32")

    refused("none.pth", None, "none.pth: No such file")
    refused("none.safetensors", None, "none.safetensors: No such file")
    refused("text.safetensors", b"text", "no safetensors file or state dict")
    refused("text.pth", b"text", "no safetensors file or state dict")
    refused("code.pth", {"a": SimpleNamespace}, "no safetensors file or state dict")
    refused("other.pth", {"a": 1}, "expected a state dict of tensors")
    refused("lacks.pth", {}, "lacks steps.0.conv.weight; it is not of timm:same_32")
    state = encoder.backbone.state_dict() | {"steps.1.conv.weight": torch.zeros(1)}
    refused("shape.pth", state, "has another shape of steps.1.conv.weight")
    # Loading would make float32 of them without a word.
    for name, change in (
        ("nan", lambda x: x * torch.nan),
        ("large", lambda x: torch.full_like(x, 1e39, dtype=torch.float64)),
        ("quantised", lambda x: x.to(torch.int8)),
        ("complex", lambda x: x.to(torch.complex64)),
    ):
        state = encoder.backbone.state_dict()
        state["steps.1.conv.weight"] = change(state["steps.1.conv.weight"])
        refused(f"{name}.pth", state, "steps.1.conv.weight is not made of finite real numbers")


@pytest.mark.parametrize("joined", [False, True])
def test_what_is_frozen_keeps_weights_and_statistics(toy: None, joined: bool) -> None:
    encoder = TimmEncoder("timm:same_32", frozen=8)
    if joined:  # runtime.sync_batch_norm
        join_ranks(encoder)
        assert isinstance(encoder.get_submodule("backbone.steps.4.norm"), BatchNorm)
    encoder.train()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in encoder.parameters() if p.requires_grad), lr=0.1)
    sum(map_BKhw.square().mean() for map_BKhw in encoder(torch.randn(4, 1, 64, 64))).backward()
    optimizer.step()
    changed = {k for k, v in encoder.state_dict().items() if not torch.equal(v, before[k])}
    kept = {k for k in before if k.startswith(("backbone.steps.0", "backbone.steps.1"))}
    kept |= {k for k in before if k.startswith("backbone.steps.2")}
    assert not changed & kept
    assert {"backbone.steps.3.conv.weight", "backbone.steps.4.norm.running_mean"} <= changed


def test_gradient_to_the_features_before_the_last(toy: None) -> None:
    encoder = TimmEncoder("timm:same_32").double().eval()
    image = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        plain, (tracked, source) = encoder(image), encoder.tracked(image)
    assert all(map(torch.equal, plain, tracked))
    assert torch.equal(encoder.placed(source), plain[1])
    # By finite differences, of the backbone's steps behind that map, in one of its cells.
    (grad,) = torch.autograd.grad(tracked[-1].sum(), source)

    def last(eight: Tensor) -> Tensor:
        sixteen = encoder.backbone.steps[3](eight)
        return encoder._last({16: sixteen, 32: encoder.backbone.steps[4](sixteen)}).sum()

    step = torch.zeros_like(source)
    step[0, 3, 4, 4] = 1e-7
    with torch.no_grad():
        slope = (last(source + step) - last(source - step)) / 2e-7
    assert float(grad[0, 3, 4, 4]) == pytest.approx(float(slope), rel=1e-5)


def test_grad_cam_of_it_is_of_the_map_that_the_last_comes_from(toy: None) -> None:
    model = configs.Model(encoder="timm:same_32")
    config = SimpleNamespace(model=model, attention=configs.Attention(), impl="reference")
    network = Network(config, decoder=True).eval()  # type: ignore[arg-type]
    _, maps = explain(network, torch.randn(2, 1, 64, 64), maps_of(trainable(3)))
    assert {GRADCAM.key, LAYERCAM.key} <= maps.keys()
    assert all(map_BHW.shape == (2, 64, 64) for map_BHW in maps.values())


def test_errors_of_names(toy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PcamxError, match="timm cannot make nothing: Unknown model"):
        TimmEncoder("timm:nothing")
    with pytest.raises(PcamxError, match="timm cannot make coarse"):
        TimmEncoder("timm:coarse")
    for name, side in (("fixed_32", 128), ("coarse_cells_32", 144)):
        with pytest.raises(PcamxError, match=f"{name} takes no image of {side} x {side}") as caught:
            TimmEncoder(f"timm:{name}")
        assert "\n" not in str(caught.value)
    with pytest.raises(PcamxError, match="timm cannot make evenfolder: Config file not found"):
        TimmEncoder("timm:evenfolder")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(PcamxError, match=r"needs timm; pip install 'pcamx\[encoders\]'"):
        TimmEncoder("timm:same_32")


@pytest.mark.parametrize("kind", ["valid", "last"])
def test_maps_of_other_sizes_than_their_strides_say_are_refused(toy: None, kind: str) -> None:
    """As inception_v3's, which pads nothing, and mambaout_femto's, whose channels come last."""
    with pytest.raises(PcamxError, match="at stride 4 of 128 x 128 pixels, where 6 channels of"):
        TimmEncoder(f"timm:even_{kind}_32")


def test_a_pool_that_fills_up_its_last_cell_keeps_it() -> None:
    """As ese_vovnet19b_dw's: a window of 3 and no padding, so cells lie 4 pixels further each."""
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    receptive_field._pass_the_middle(pool)
    assert pool(torch.ones(1, 1, 32, 32)).shape == (1, 1, 16, 16)


def test_a_tag_that_timm_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_pretrained_cfg(name: str) -> None:
        raise RuntimeError(f"Invalid pretrained tag (nosuch) for {name.partition('.')[0]}.")

    models = SimpleNamespace(get_pretrained_cfg=get_pretrained_cfg)
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(models=models))
    with pytest.raises(PcamxError, match=r"knows no resnet18.nosuch: Invalid pretrained tag"):
        input_scale("timm:resnet18.nosuch")


def test_a_torchvision_of_another_torch_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm imports it, and an operator that it defines is missing: a RuntimeError."""
    (tmp_path / "timm.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(PcamxError, match=r"torchvision::nms does not exist\); install the torchvi"):
        TimmEncoder("timm:resnet18")


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"encoder": "botleneck"}, "not one of bottleneck, .*; did you mean bottleneck?"),
        ({"encoder": "timm:"}, "not one of"),
        ({"weights": "a.pth"}, "model.weights: only a timm backbone has it"),
        ({"frozen": 4}, "model.frozen: only a timm backbone has it"),
        ({"encoder": "timm:resnet18", "frozen": 4}, "fresh weights would stay so"),
    ],
)
def test_errors_of_the_config(keys: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        configs.Model(**keys)


def test_a_network_of_it_has_all_maps_and_trains_under_bf16(toy: None) -> None:
    model = configs.Model(encoder="timm:same_32")
    config = SimpleNamespace(model=model, attention=configs.Attention(), impl="reference")
    network = Network(config, decoder=True)  # type: ignore[arg-type]
    image = torch.randn(2, 1, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        features = network.encoder(image)
        logits, attended = network.head(features[-1], image)
        assert attended is not None and network.decoder is not None
        loss = network(attended.image_B1HW).square().sum() + logits.float().square().sum()
        loss = loss + network.decoder(features, (64, 64)).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in network.parameters())


CELLS = torch.tensor([[[3.0, 1.0], [0.0, 2.0]]])  # one feature map of four cells


def pooled(pooling: Any, features_BKhw: Tensor) -> Tensor:
    head = Head(configs.Attention(), "reference", pooling)
    with torch.no_grad():
        head.weight.zero_()[:, 0] = torch.tensor([1.0, -2.0])
        head.bias.copy_(torch.tensor([0.25, 0.5]))
    return head(features_BKhw)[0].detach()


def features_of(cells_khw: Tensor) -> Tensor:
    return F.pad(cells_khw, (0, 0, 0, 0, 0, 127))[None]


def test_pooling_by_hand() -> None:
    """Maps 1 h and -2 h of the cells 3, 1, 0, 2, plus the biases; 2 % of four cells is one."""
    torch.testing.assert_close(
        pooled("mean", features_of(CELLS)), torch.tensor([[1.5 + 0.25, -3 + 0.5]])
    )
    one = torch.tensor([3.0, 1, 0, 2]).exp().mean().log()
    two = torch.tensor([-6.0, -2, 0, -4]).exp().mean().log()
    torch.testing.assert_close(
        pooled("lse", features_of(CELLS)), torch.stack([one + 0.25, two + 0.5])[None]
    )
    torch.testing.assert_close(
        pooled("top", features_of(CELLS)), torch.tensor([[3 + 0.25, 0 + 0.5]])
    )


def test_the_top_is_two_percent_of_the_cells() -> None:
    cells = torch.zeros(1, 20, 20)
    cells[0, 0, :10] = torch.arange(10.0)
    taken = round(TOP_SHARE * 400)
    expected = torch.arange(10.0)[-taken:].mean()
    assert pooled("top", features_of(cells))[0, 0] == pytest.approx(float(expected) + 0.25)


@pytest.mark.parametrize("pooling", ["mean", "lse", "top"])
def test_a_film_of_one_cell_is_that_cell(pooling: str) -> None:
    """Which `Network.class_map` relies on."""
    one = torch.full((1, 1, 1), 3.0)
    torch.testing.assert_close(
        pooled(pooling, features_of(one)), torch.tensor([[3 + 0.25, -6 + 0.5]])
    )


def test_the_config_chooses_the_encoder(toy: None) -> None:
    assert isinstance(build_encoder(configs.Model(encoder="timm:even_16")), TimmEncoder)
    assert build_encoder(configs.Model(encoder="basic")).stride == 16


def test_backbones_of_timm_itself() -> None:
    """lite0 pads as TensorFlow does; densenet's mean pools of two add half their step each."""
    pytest.importorskip("timm", reason="timm, the extra `encoders`, is not installed")
    assert centres("timm:tf_efficientnet_lite0") == (3, 7, 15, 31)
    assert centres("timm:tf_efficientnet_lite0", 144) == (3, 7, 15, 15)
    assert centres("timm:resnet18") == (0, 0, 0, 0)
    assert centres("timm:densenet121") == (0, 2, 6, 14)
    assert centres("timm:convnext_atto") == (1.5, 3.5, 7.5, 15.5)
    assert input_scale("timm:tf_efficientnet_lite0") == (127.5, 127.5)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "densenet121"])
def test_a_classifier_of_timm_fills_its_backbone(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm, the extra `encoders`, is not installed")
    whole = timm.create_model(name, pretrained=False).eval()
    path = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in whole.state_dict().items()}, path)
    encoder = TimmEncoder(f"timm:{name}").eval()
    load_backbone(encoder, str(path), f"timm:{name}")
    theirs = timm.create_model(name, pretrained=False, features_only=True)
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        last = encoder.backbone(grey)[-1]
        expected = whole.forward_features(grey.expand(-1, 3, -1, -1))
    if name == "resnet18":  # whose features end in its last map
        torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-5)
    assert last.shape[1] == theirs.feature_info.channels()[-1]
