"""Drawn radiographs with known lesions, laid out like MURA-v1.1."""

from pcamx.data.phantom.write import draw_phantoms

__all__ = ["draw_phantoms"]
