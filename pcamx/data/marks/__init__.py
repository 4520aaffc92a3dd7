"""Lesion marks from the tools that people draw with, as masks of the films' size.

One file a format turns its text into `Annotated` images, the one common result; `collect` finds
the films they mean. The pixel convention stands in `shapes`.
"""

from pcamx.data.marks.collect import PROBLEMS, MakeMask, Marks, Problem, read_marks
from pcamx.data.marks.shapes import Mark, Mask, Size

__all__ = ["PROBLEMS", "MakeMask", "Mark", "Marks", "Mask", "Problem", "Size", "read_marks"]
