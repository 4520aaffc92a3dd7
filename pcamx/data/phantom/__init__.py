"""Drawn radiographs with known lesions, laid out like MURA-v1.1."""

from pcamx.data.phantom.temptations import Temptation, temptation
from pcamx.data.phantom.write import draw_phantoms

__all__ = ["Temptation", "draw_phantoms", "temptation"]
