"""The Triton kernels of the attention path against float64, on Triton's interpreter or a GPU.

Shapes: B batch, K channels, C classes, h w map, H W image. Memory that a kernel gets is full of
NaN, so that whatever it fails to write shows.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager
from torch.library import opcheck

from pcamx import ops

GPU = pytest.param("cuda", marks=pytest.mark.gpu)
ROOT = Path(__file__).resolve().parents[2]
Size = tuple[int, int]
Shape = tuple[int, int, int, int]


@pytest.fixture(params=[GPU] if torch.cuda.is_available() else ["cpu", GPU])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _nan_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    def filling(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def filled(*args: Any, **kwargs: Any) -> Tensor:
            out = make(*args, **kwargs)
            return out.fill_(float("nan") if out.is_floating_point() else 77)

        return filled

    monkeypatch.setattr(torch, "empty_like", filling(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", filling(Tensor.new_empty))


class Case(NamedTuple):
    """Inputs of `ops.attend`, and gradients of its three outputs."""

    features_BKhw: Tensor
    weight_CK: Tensor
    class_index_B: Tensor
    image_B1HW: Tensor
    grads: tuple[Tensor, Tensor, Tensor]


def case(shape: Shape, size: Size, dtype: torch.dtype, device: str, layout: str = "nchw") -> Case:
    generator = torch.Generator().manual_seed(3)

    def normal(*wanted: int) -> Tensor:
        return torch.randn(*wanted, generator=generator, dtype=torch.float64)

    B, K, h, w = shape
    single = torch.promote_types(dtype, torch.float32)
    features = normal(*shape).relu().to(device, dtype)
    if layout == "nhwc":
        features = features.contiguous(memory_format=torch.channels_last)
    if layout == "cropped":
        features = torch.nn.functional.pad(features, (0, 1, 0, 1))[..., :-1, :-1]
    weight, image = normal(3, K).to(device, single), normal(B, 1, *size).to(device, dtype)
    weight[:, 0], weight[:, -1] = 0.7, -0.4
    grads = normal(B, 1, *size).to(image), normal(B, h, w).to(weight), normal(B).to(weight)
    return Case(features, weight, (torch.arange(B) % 3).to(device), image, grads)


class Results(NamedTuple):
    image: Tensor
    cam: Tensor
    area: Tensor
    grad_features: Tensor | None
    grad_weight: Tensor | None
    grad_image: Tensor | None


def attended(inputs: Case, impl: ops.Impl, **options: Any) -> Results:
    leaves = [t.detach().clone().requires_grad_() for t in (inputs[0], inputs[1], inputs[3])]
    out = ops.attend(leaves[0], leaves[1], inputs[2], leaves[2], impl=impl, **options)
    learns = [(o, g) for o, g in zip(out, inputs.grads, strict=True) if o.requires_grad]
    outs, grads = zip(*learns, strict=True)
    return Results(*out, *torch.autograd.grad(outs, leaves, grads, allow_unused=True))


def mapped(inputs: Case, impl: ops.Impl, positive: bool) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in inputs[:2]]
    cam = ops.class_activation(*leaves, inputs.class_index_B, positive=positive, impl=impl)
    return [cam, *torch.autograd.grad(cam, leaves, inputs.grads[1])]


def exact(inputs: Case) -> Case:
    wide = [t.double() if t.is_floating_point() else t for t in inputs[:4]]
    return Case(*wide, tuple(g.double() for g in inputs.grads))  # type: ignore[arg-type]


def assert_within(ours: Any, torchs: Any, truth: Any, slack: float = 1) -> None:
    """At most twice PyTorch's own error, or a few units in the last place of its arithmetic.

    The interpreter cuts float32 off where it should round to bfloat16: one unit is allowed there.
    """
    for our, their, true in zip(ours, torchs, truth, strict=True):
        assert our.dtype == their.dtype and our.shape == true.shape and our.isfinite().all()
        eps = torch.finfo(torch.promote_types(our.dtype, torch.float32)).eps
        few = 64 if our.dtype == torch.float64 else 4  # in float64 the truth itself is rounded
        floor = few * slack * eps * max(1.0, true.abs().max().item())
        allowed = 2 * (their.double() - true).abs().max() + floor
        if our.is_cpu and our.dtype == torch.bfloat16:
            allowed = torch.finfo(our.dtype).eps * true.abs() + floor
        assert ((our.double() - true).abs() <= allowed).all()


SIZES: list[tuple[Shape, Size]] = [
    ((2, 5, 1, 1), (7, 9)),
    ((3, 5, 3, 5), (33, 47)),
    ((2, 128, 8, 8), (64, 64)),
    ((1, 40, 20, 20), (64, 80)),  # more cells and pixels than a block, channels no multiple
    ((2, 5, 2, 40), (7, 130)),
    ((1, 2, 1, 70), (3, 665)),  # cells in many blocks of columns, the last one of 25
    ((1, 5, 2, 3), (67, 66)),  # more rows between two cells than a program takes at once
    ((2, 5, 9, 12), (4, 5)),  # the map is larger than the image
]
IDS = ["x".join(map(str, shape + size)) for shape, size in SIZES]


@pytest.mark.parametrize(
    ("layout", "dtype"), [("nhwc", torch.float32), ("nchw", torch.float64)], ids=["fp32", "fp64"]
)
@pytest.mark.parametrize(("shape", "size"), SIZES, ids=IDS)
def test_attend(shape: Shape, size: Size, layout: str, dtype: torch.dtype, device: str) -> None:
    inputs = case(shape, size, dtype, device, layout)
    options = {"omega": 7.3, "sigma": 0.43}
    ours = attended(inputs, "triton", **options)
    assert_within(
        ours,
        attended(inputs, "reference", **options),
        attended(exact(inputs), "reference", **options),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "cropped"])
def test_attend_of_half_the_bits(layout: str, dtype: torch.dtype, device: str) -> None:
    inputs = case((2, 128, 8, 9), (32, 40), dtype, device, layout)
    ours = attended(inputs, "triton")
    assert_within(ours, attended(inputs, "reference"), attended(exact(inputs), "reference"))
    of_layout = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
    assert ours.grad_features is not None
    kept = of_layout.get(layout, torch.contiguous_format)
    assert ours.grad_features.is_contiguous(memory_format=kept)


def test_attend_of_two_dtypes(device: str) -> None:
    """As trained with autocast: bfloat16 features, the rest float32."""
    inputs = case((2, 32, 8, 9), (32, 40), torch.float32, device, "nhwc")
    inputs = inputs._replace(features_BKhw=inputs.features_BKhw.bfloat16())
    assert_within(
        attended(inputs, "triton"),
        attended(inputs, "reference"),
        attended(exact(inputs), "reference"),
    )


@pytest.mark.parametrize(("layout", "positive"), [("nhwc", True), ("nchw", False)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 5, 1, 1), (40, 5, 3, 5), (3, 70, 11, 13)])
def test_class_activation(
    shape: Shape, dtype: torch.dtype, layout: str, positive: bool, device: str
) -> None:
    inputs = case(shape, (1, 1), dtype, device, layout)
    ours = mapped(inputs, "triton", positive)
    assert_within(
        ours, mapped(inputs, "reference", positive), mapped(exact(inputs), "reference", positive)
    )


def test_bits_of_the_sums_are_float32s(device: str) -> None:
    """Features near 256 cancel: a sum kept in 16 bits would lose the map altogether."""
    inputs = case((2, 128, 8, 8), (16, 16), torch.bfloat16, device)
    features = torch.full_like(inputs.features_BKhw, 256)
    features[:, ::2, ::3] = 258
    weight = torch.ones_like(inputs.weight_CK)
    weight[:, 1::2] = -1
    cam = ops.class_activation(
        features, weight, inputs.class_index_B, positive=False, impl="triton"
    )
    assert cam[:, ::3].eq(128).all() and cam[:, 1::3].eq(0).all()


def test_ties_at_minimum_and_maximum(device: str) -> None:
    inputs = case((2, 4, 6, 6), (24, 24), torch.float32, device)
    ties = (inputs.features_BKhw * 2).round().clamp(0, 1)
    weight = torch.ones_like(inputs.weight_CK)
    tied = inputs._replace(features_BKhw=ties, weight_CK=weight)
    ours = attended(tied, "triton")
    assert (ours.cam[0] == 0).sum() > 1 or (ours.cam[0] == 1).sum() > 1
    assert ours.cam.amin((1, 2)).eq(0).all() and ours.cam.amax((1, 2)).eq(1).all()
    assert_within(ours, attended(tied, "reference"), attended(exact(tied), "reference"))


@pytest.mark.parametrize("why", ["constant", "negative", "no class"])
def test_flat_maps(why: str, device: str) -> None:
    inputs = case((3, 5, 4, 4), (18, 9), torch.float32, device)
    features, weight, classes = (t.clone() for t in inputs[:3])
    if why == "constant":
        features[1] = 3.0
    if why == "negative":
        weight[1] = -weight[1].abs()
    if why == "no class":
        classes[1] = 7  # no row of the weight: as the reference, a map of zeros
    flat = Case(features, weight, classes, inputs.image_B1HW, inputs.grads)
    ours = attended(flat, "triton")
    assert torch.equal(ours.image[1], inputs.image_B1HW[1])
    assert ours.area[1] == 1 and ours.cam[1].eq(1).all() and ours.area[[0, 2]].lt(1).all()
    assert ours.grad_features is not None and ours.grad_image is not None
    assert not ours.grad_features[1].any() and ours.grad_features[[0, 2]].any()
    assert torch.equal(ours.grad_image[1], inputs.grads[0][1])
    assert_within(ours, attended(flat, "reference"), attended(exact(flat), "reference"))


@pytest.mark.parametrize(("scale", "omega"), [(1e4, 10.0), (1e4, 1e4), (1e-30, 10.0), (1.0, 0.0)])
def test_extreme_values(scale: float, omega: float, device: str) -> None:
    inputs = case((2, 32, 5, 6), (20, 31), torch.float32, device)
    inputs = inputs._replace(features_BKhw=inputs.features_BKhw * scale)
    runs = [
        attended(i, impl, omega=omega)
        for i, impl in ((inputs, "triton"), (inputs, "reference"), (exact(inputs), "reference"))
    ]
    ours, torchs, truth = (run._replace(grad_features=run.grad_features * scale) for run in runs)
    assert_within(ours, torchs, truth, slack=max(1, omega))


@pytest.mark.parametrize("value", [6e4, 1e-7])
def test_ends_of_float16(value: float, device: str) -> None:
    """Sums of 32 channels at 6e4 pass what float16 holds; 1e-7 is one of its smallest numbers."""
    inputs = case((2, 32, 5, 6), (20, 31), torch.float16, device)
    shares = inputs.features_BKhw.float().clamp(0, 1)
    features, grads = (value * shares).half(), tuple(1e-3 * value * g for g in inputs.grads)
    inputs = inputs._replace(features_BKhw=features, grads=grads)
    inputs = inputs._replace(grads=(grads[0].half(), *grads[1:]))
    assert_within(
        attended(inputs, "triton"),
        attended(inputs, "reference"),
        attended(exact(inputs), "reference"),
    )


@pytest.mark.parametrize(
    ("impl", "where"), [("triton", 0), ("triton", 1), ("reference", 0)], ids=str
)
def test_nan_spoils_its_own_image(impl: ops.Impl, where: int, device: str) -> None:
    """In a cell of its features, or in its class's weight (in the reference that spoils all)."""
    inputs = case((4, 5, 12, 12), (30, 20), torch.float32, device)  # more cells than a block
    features, weight = given = inputs.features_BKhw.clone(), inputs.weight_CK.clone()
    given[where][1].view(-1)[0] = float("nan")
    out = ops.attend(features, weight, inputs.class_index_B, inputs.image_B1HW, impl=impl)
    spoilt = [o.isnan().flatten(1).all(1).tolist() for o in (*out[:2], out.area_B[:, None])]
    assert spoilt == [[False, True, False, False]] * 3
    kept = [0, 2, 3]
    plain = ops.attend(*inputs[:4], impl=impl)
    assert all(torch.equal(o[kept], p[kept]) for o, p in zip(out, plain, strict=True))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("index", [-1, 3, 2**31 - 1])
def test_class_that_is_none(index: int, dtype: torch.dtype, device: str) -> None:
    inputs = case((3, 5, 4, 4), (9, 9), torch.float32, device)
    classes = inputs.class_index_B.to(dtype)
    classes[1] = index
    inputs = inputs._replace(class_index_B=classes)
    ours = mapped(inputs, "triton", True)
    assert not ours[0][1].any() and not ours[1][1].any() and ours[0][[0, 2]].any()
    assert_within(ours, mapped(inputs, "reference", True), mapped(exact(inputs), "reference", True))


def test_any_strides(device: str) -> None:
    """Every input a view with gaps or turned axes, and gradients that are one number expanded."""
    both = []
    for impl in ("triton", "reference"):
        features, weight, classes, image, _ = case((4, 6, 5, 4), (13, 9), torch.float64, device)
        leaves = features.requires_grad_(), weight.requires_grad_(), image.requires_grad_()
        views = leaves[0][::2, ::2].mT, leaves[1][:, ::2], classes[::2], leaves[2][::2].mT
        assert not any(view.is_contiguous() for view in views)
        out = ops.attend(*views, impl=impl)
        both.append([*out, *torch.autograd.grad([o.sum() for o in out], leaves)])
    torch.testing.assert_close(*both, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("mask_grad", [True, False])
@pytest.mark.parametrize("learns", list(itertools.product([False, True], repeat=3)))
def test_what_carries_a_gradient(learns: tuple[bool, ...], mask_grad: bool, device: str) -> None:
    """An output does where one of the inputs that it depends on does, as in the reference."""
    features, weight, classes, image, _ = case((2, 3, 2, 2), (5, 5), torch.float32, device)
    for tensor, learn in zip((features, weight, image), learns, strict=True):
        tensor.requires_grad_(learn)
    of_map = mask_grad and any(learns[:2])
    for impl in ("triton", "reference"):
        out = ops.attend(features, weight, classes, image, mask_grad=mask_grad, impl=impl)
        assert [o.requires_grad for o in out] == [of_map or learns[2], of_map, of_map]


def test_no_second_derivative(device: str) -> None:
    inputs = case((2, 3, 2, 2), (5, 5), torch.float32, device)
    features = inputs.features_BKhw.requires_grad_()
    for out in (
        ops.attend(*inputs[:4], impl="triton").image_B1HW,
        ops.class_activation(*inputs[:3], impl="triton"),
    ):
        (grad,) = torch.autograd.grad(out.square().sum(), features, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            grad.sum().backward()


@pytest.mark.parametrize("used", [0, 1, 2])
@pytest.mark.parametrize("mask_grad", [True, False])
def test_each_output_alone(used: int, mask_grad: bool, device: str) -> None:
    inputs = case((2, 5, 3, 5), (13, 17), torch.float64, device)
    grads = []
    for impl in ("triton", "reference"):
        leaves = [t.detach().clone().requires_grad_() for t in (inputs[0], inputs[1], inputs[3])]
        out = ops.attend(leaves[0], leaves[1], inputs[2], leaves[2], mask_grad=mask_grad, impl=impl)
        if out[used].requires_grad:
            out[used].backward(inputs.grads[used])
        grads.append([torch.zeros_like(t) if t.grad is None else t.grad for t in leaves])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-11, atol=1e-13)
    assert mask_grad or not grads[0][0].any()


@pytest.mark.parametrize("learns", [0, 1, 2])
def test_one_input_alone_learns(learns: int, device: str) -> None:
    inputs = case((2, 5, 3, 5), (13, 17), torch.float64, device)
    both = []
    for impl in ("triton", "reference"):
        leaves = [t.detach().clone() for t in (inputs[0], inputs[1], inputs[3])]
        leaves[learns].requires_grad_()
        out = ops.attend(leaves[0], leaves[1], inputs[2], leaves[2], impl=impl)
        out.image_B1HW.backward(inputs.grads[0])
        assert [t.grad is not None for t in leaves] == [i == learns for i in range(3)]
        both.append(leaves[learns].grad)
    torch.testing.assert_close(*both, rtol=1e-11, atol=1e-13)


def test_gradcheck(device: str) -> None:
    """Of the map, and of the attended image while the cells of the extremes are held still."""
    features, weight, classes, image, _ = case((2, 3, 2, 3), (5, 7), torch.float64, device)
    features, weight = features + 0.1, weight.abs()
    leaves = features.requires_grad_(), weight.requires_grad_(), image.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, w: ops.class_activation(f, w, classes, impl="triton"), leaves[:2], fast_mode=True
    )
    still = torch.zeros_like(features)
    still[..., 0, 0], still[..., -1, -1] = -9, 9

    def attend(f: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        held = torch.where(still == 0, f, still)
        return tuple(ops.attend(held, weight.detach(), classes, x, omega=3.3, impl="triton"))

    assert torch.autograd.gradcheck(attend, (leaves[0], leaves[2]), fast_mode=True)


def test_area_of_many_programs(device: str) -> None:
    inputs = case((1, 3, 42, 3), (43, 129), torch.float32, device)  # 129 parts, over one block
    truth = attended(exact(inputs), "reference")
    torch.testing.assert_close(
        attended(inputs, "triton").area.double(), truth.area, rtol=1e-6, atol=0
    )


def test_saved_for_backward_is_small(device: str) -> None:
    inputs = case((2, 5, 4, 4), (64, 64), torch.float32, device)
    given = {t.untyped_storage().data_ptr() for t in inputs[:4]}
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in given:
            kept.append(tensor.nbytes)
        return tensor

    features = inputs.features_BKhw.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        ops.attend(features, *inputs[1:4], impl="triton")
    assert sum(kept) == 2 * (4 * 4 + 1) * 4  # the map and its span, of 32 KB of images


FREE = """new_empty empty empty_like empty_strided fill_ promote_types
    permute flatten transpose view as_strided detach"""  # fill_: the NaN of these tests
INTERPRETED = " copy_ set_"  # what the interpreter does to its arguments


class Counted:
    """A kernel that writes down its launches."""

    def __init__(self, kernel: Any, names: list[str]) -> None:
        self.kernel, self.names = kernel, names

    def __getitem__(self, grid: tuple[int]) -> Any:
        self.names.append(self.kernel.__name__)
        return self.kernel[grid]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_launches(monkeypatch: pytest.MonkeyPatch, layout: str, device: str) -> None:
    from pcamx.kernels import attend, class_activation

    inputs = case((2, 5, 3, 4), (8, 9), torch.float32, device, layout)
    leaves = [t.requires_grad_() for t in inputs[:2]]
    names: list[str] = []
    for module in (attend, class_activation):
        for name in [n for n in dir(module) if n.endswith("_kernel")]:
            monkeypatch.setattr(module, name, Counted(getattr(module, name), names))
    with torch.profiler.profile() as forward:
        out = ops.attend(*leaves, *inputs[2:4], impl="triton")
    assert names == ["attend_map_kernel", "attend_mask_kernel"]
    with torch.profiler.profile() as backward:
        torch.autograd.grad(out.image_B1HW, leaves, inputs.grads[0])
    assert names[2:] == ["attend_bwd_kernel", "class_activation_bwd_kernel"]
    events = [*forward.events(), *backward.events()]
    called = {e.name.removeprefix("aten::") for e in events if e.name.startswith("aten::")}
    assert called - set((FREE + INTERPRETED * (device == "cpu")).split()) == set()
    assert "new_empty" in called


def assert_runs_equal(inputs: Case, runs: int) -> None:
    first = attended(inputs, "triton")
    for _ in range(runs):
        for one, other in zip(first, attended(inputs, "triton"), strict=True):
            assert torch.equal(one, other)


def test_two_runs_give_the_same_bits(device: str) -> None:
    assert_runs_equal(case((3, 40, 4, 7), (64, 75), torch.bfloat16, device, "nhwc"), 1)


@pytest.mark.gpu
def test_a_hundred_runs_give_the_same_bits() -> None:
    """Of as many programs as training has, whose order is another each time."""
    assert_runs_equal(case((256, 128, 20, 20), (320, 320), torch.bfloat16, "cuda", "nhwc"), 100)


@pytest.mark.gpu
def test_more_pixels_than_int32_counts() -> None:
    features, weight, classes, _, _ = case((1, 2, 20, 20), (1, 1), torch.float32, "cuda")
    B, side = 2100, 1024  # 2.2e9 pixels
    image = torch.ones(B, 1, side, side, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    features = features.repeat(B, 1, 1, 1).requires_grad_()
    out = ops.attend(features, weight, classes.expand(B), image, impl="triton")
    grads = torch.autograd.grad(out.image_B1HW.sum(), (features, image))
    for result in (*out, *grads):
        assert torch.equal(result[0], result[-1]) and result[0].any()


@pytest.mark.gpu
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_more_features_than_int32_counts(layout: torch.memory_format) -> None:
    B, K, side = 8400, 64, 64  # 2.2e9 features
    features = torch.ones(B, K, side, side, dtype=torch.bfloat16, device="cuda")
    features = features.to(memory_format=layout).requires_grad_()
    weight = torch.linspace(0.1, 1, K, device="cuda")[None]
    classes = torch.zeros(B, dtype=torch.int64, device="cuda")
    cam = ops.class_activation(features, weight, classes, impl="triton")
    (grad,) = torch.autograd.grad(cam.sum(), features)
    for result in (cam, grad):
        assert torch.equal(result[0], result[-1]) and result[0].all()


@pytest.mark.parametrize("mask_grad", [True, False])
def test_no_images(mask_grad: bool, device: str) -> None:
    inputs = case((0, 3, 4, 5), (8, 8), torch.float32, device)
    ours = attended(inputs, "triton", mask_grad=mask_grad)
    assert ours.image.shape == (0, 1, 8, 8) and ours.cam.shape == (0, 4, 5)
    if mask_grad:
        assert ours.grad_weight is not None and ours.grad_weight.eq(0).all()
    assert mapped(inputs, "triton", True)[2].eq(0).all()


def test_autocast_does_not_reach_inside(device: str) -> None:
    inputs = case((2, 32, 4, 4), (9, 9), torch.float32, device)
    plain = attended(inputs, "triton")
    with torch.autocast(device, torch.bfloat16):
        for one, other in zip(plain, attended(inputs, "triton"), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["attend", "class_activation"])
def test_operators_are_registered_whole(name: str, device: str) -> None:
    features, weight, classes, image, _ = case((2, 4, 3, 3), (8, 8), torch.float32, device, "nhwc")
    leaves = features.requires_grad_(), weight.requires_grad_(), classes
    ops.class_activation(*leaves, impl="triton")  # registers them
    if name == "attend":
        arguments: tuple[Any, ...] = (*leaves, image.requires_grad_(), 10.0, 0.5)
    else:
        arguments = (*leaves, True)
    opcheck(getattr(torch.ops.pcamx, name).default, arguments)


@pytest.mark.parametrize("impl", ["triton", "reference"])
def test_compiles_into_one_graph(impl: ops.Impl, device: str) -> None:
    features, weight, classes, image, grads = case((2, 4, 3, 3), (8, 8), torch.float32, device)
    leaves = features.requires_grad_(), weight.requires_grad_()

    def loss(features: Tensor, weight: Tensor) -> Tensor:
        out = ops.attend(features * 2, weight, classes, image, impl=impl)
        cam = ops.class_activation(features, weight, classes, impl=impl)
        return (out.image_B1HW * grads[0]).sum() + (cam * grads[1]).sum()

    eager = torch.autograd.grad(loss(*leaves), leaves)
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        graphs.append(graph.code)
        return aot_eager(graph, inputs)

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    torch.testing.assert_close(torch.autograd.grad(compiled(*leaves), leaves), eager)
    (graph,) = graphs
    for operator in ("ops.pcamx.attend", "ops.pcamx.class_activation"):
        assert (operator in graph) == (impl == "triton")


def test_one_line_where_triton_cannot_run() -> None:
    code = (
        "import sys, torch; from pcamx import ops\n"
        "x = torch.rand(1, 2, 3, 3), torch.rand(2, 2), torch.tensor([1])\n"
        "def refused():\n"
        "    try: ops.class_activation(*x, impl='triton')\n"
        "    except ValueError as error: print(error)\n"
        "refused(); assert 'triton' in sys.modules\n"
        "for name in [n for n in sys.modules if n.startswith('pcamx.kernels.')]:\n"
        "    delattr(sys.modules['pcamx.kernels'], name.split('.')[-1]); del sys.modules[name]\n"
        "sys.modules['triton'] = None\n"
        "refused(); print(*ops.class_activation(*x).shape)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "needs CUDA tensors, got cpu" in shown[0]
    assert "impl 'reference' does without" in shown[1]
    assert shown[2:] == ["1 3 3"]
