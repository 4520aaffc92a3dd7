"""Bytes and FLOPs of stage 2's second forward: why the mask stays out of the stem's convolution.

kernels/README.md states the figures and what follows; a network in which it would pay fails here.
At 320 px in bfloat16, an image of a batch large enough for the weights not to count.
"""

from typing import Any, Literal, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pcamx.model.encoder import Encoder, Residual

B, SIDE, BF16 = 256, 320, 2
PIXELS = SIDE * SIDE
FEATURES = 128 * 20 * 20 * BF16
Layout = Literal["bottleneck", "basic"]


class Count(NamedTuple):
    """Of one image."""

    least: float  # bytes: every convolution and pooling reads and writes once, a sum reads once
    convolutions: float  # of which the convolutions'
    dispatched: float  # bytes of the convolutions by what PyTorch really calls
    eager: float  # bytes of all that it calls
    flops: float


class Called(TorchDispatchMode):
    """Bytes that each operator reads and writes; batch norm reads its input twice."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, written = (
            sum(t.nbytes for t in tree_leaves(tree) if isinstance(t, Tensor))
            for tree in ((args, kwargs), out)
        )
        name = func._schema.name.removeprefix("aten::")
        if written and not func.is_view:
            twice = args[0].nbytes if "batch_norm" in name else 0
            self.bytes[name] = self.bytes.get(name, 0) + read + twice + written
        return out


def count(layout: Layout) -> Count:
    moved = {nn.Conv2d: 0, nn.MaxPool2d: 0, Residual: 0}

    def add(module: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
        kind = nn.Conv2d if isinstance(module, nn.Conv2d) else type(module)  # the stem's is its own
        if kind in moved:
            moved[kind] += BF16 * (out.numel() + (kind is not Residual) * given[0].numel())

    with FakeTensorMode():
        encoder = Encoder(layout)
        image = torch.empty(B, 1, SIDE, SIDE, dtype=torch.bfloat16)
        with Called() as called, torch.autocast("cpu", torch.bfloat16):
            encoder(image)
        for module in encoder.modules():
            module.register_forward_hook(add)
        with FlopCounterMode(display=False) as flops:
            encoder(image.float())
    figures = sum(moved.values()), moved[nn.Conv2d], called.bytes["convolution"]
    return Count(*(n / B for n in (*figures, sum(called.bytes.values()), flops.get_total_flops())))


def gain(network: float, pixel: int) -> float:
    """Of a mask inside the stem, if its convolution were as fast: bytes before over bytes after.

    A pixel has 2 bytes, or 4 in a batch as the feed makes it; autocast then casts the masked image.
    """
    attend = FEATURES + 2 * PIXELS * pixel
    cast = 0 if pixel == BF16 else PIXELS * (pixel + BF16)
    stem_reads = PIXELS * BF16
    folded = network - stem_reads + PIXELS * pixel + FEATURES
    return (network + attend + cast) / folded


@pytest.mark.parametrize("layout", ["bottleneck", "basic"])
def test_the_gain_stays_below_what_it_would_take(layout: Layout) -> None:
    counted = count(layout)
    for pixel in (2, 4):
        assert 1 < gain(counted.eager, pixel) < gain(counted.least, pixel) < 1.15


def test_the_figures_of_the_readme() -> None:
    counted = count("bottleneck")
    assert counted.dispatched == pytest.approx(counted.convolutions, rel=1e-3)
    assert counted.least == pytest.approx(17.72e6, rel=1e-3)
    assert counted.eager == pytest.approx(59.6e6, rel=1e-3)
    assert gain(counted.least, 2) == pytest.approx(1.023, abs=5e-4)
    assert gain(counted.least, 4) == pytest.approx(1.068, abs=5e-4)
    assert gain(counted.eager, 4) == pytest.approx(1.021, abs=5e-4)
    stem = 2 * 49 * 32 * 160 * 160  # 7x7 taps, 32 channels
    assert counted.flops == pytest.approx(1.129e9, rel=1e-3) and stem == pytest.approx(80.3e6, 1e-3)
