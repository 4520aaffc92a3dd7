"""The operations of `reference.py` in Triton, by the same names; `pcamx.ops` chooses."""

from pcamx.kernels.attend import attend
from pcamx.kernels.class_activation import class_activation
from pcamx.kernels.gather_affine_normalise import gather_affine_normalise
from pcamx.kernels.launch import runs_on

__all__ = ["attend", "class_activation", "gather_affine_normalise", "runs_on"]
