"""Correctness before speed: every impl of a case against float64."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.lib.operations.case import EAGER, Case, working_dtype
from bench.lib.record import Row
from pcamx.errors import PcamxError

SANE = {torch.bfloat16: 0.25, torch.float32: 1e-3}
"""Relative root-mean-square error above which an impl computes something else; in bfloat16 eager
sums up to a thousand values of a gradient."""
FEW = 4 * torch.finfo(torch.float32).eps  # sums are float32, and eager may be right by luck
BINARY = {"lesion"}  # outputs of 0 and 1: the share of pixels that differ is the error
BORDER = 1e-5  # of such pixels: where the mean is 1/2 but for rounding, both are right
TINY = torch.finfo(torch.float64).tiny  # a truth of zeros is not divided by


def check(case: Case) -> list[Row]:
    """Check the errors of all impls, one row an output.

    Relative to the output's largest value. Raises PcamxError that names what is wrong where an
    impl computes something else, or the case's subject errs more than twice as much as eager,
    but for a few units in the last place of float32.
    """
    truth = tuple(_tensors(case.truth()))
    errors, red = dict[tuple[str, str], float](), list[str]()
    for name, impl in case.impls.items():
        found = zip(case.outputs, _tensors(impl.call()), impl.of_truth(truth), strict=True)
        for output, result, true in found:
            if not (off := _off(result, true)) <= SANE[working_dtype(true.device)]:
                red.append(f"{name}, {output}: relative rms error {off:.2g}")
            errors[name, output] = _error(output, result, true)
    for output in case.outputs:
        ours, eager = errors[case.subject, output], errors[EAGER, output]
        if not ours <= 2 * eager + (BORDER if output in BINARY else FEW):
            red.append(f"{case.subject}, {output}: error {ours:.2g}, eager's {eager:.2g}")
    if red:
        raise PcamxError(f"{case.name}: {'; '.join(red)}; no figure was written")
    return [
        Row(case.name, name, f"error of {output}", error, "")
        for (name, output), error in errors.items()
    ]


def _tensors(results: Any) -> Sequence[Tensor]:
    """Detached; peers return one tensor, or one array."""
    found = results if isinstance(results, tuple) else (results,)
    return [torch.as_tensor(result).detach() for result in found]


def _off(result: Tensor, true: Tensor) -> float:
    """Relative root-mean-square error; infinite where the shape is another."""
    if result.shape != true.shape:
        return math.inf
    return float((result.to(true) - true).norm() / true.norm().clamp(min=TINY))


def _error(output: str, result: Tensor, true: Tensor) -> float:
    if result.shape != true.shape:
        return math.inf
    wrong = (result.to(true) - true).abs()
    largest = true.abs().max().clamp(min=TINY)
    return float(wrong.mean() if output in BINARY else wrong.max() / largest)
