"""Lesion marks from the tools that people draw with, as masks of the films' size.

One file a format turns its text into `Annotated` images, the one common result; `collect` finds
the films they mean. The pixel convention stands in `shapes`.
"""

from pcamx.data.marks.collect import MakeMask, Marks, read_marks
from pcamx.data.marks.problems import PROBLEMS, Problem
from pcamx.data.marks.shapes import Mask, Size
from pcamx.data.marks.usable import Drawn

__all__ = ["PROBLEMS", "Drawn", "MakeMask", "Marks", "Mask", "Problem", "Size", "read_marks"]
