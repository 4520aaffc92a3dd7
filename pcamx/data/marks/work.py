"""How long marks take to be drawn, before they are: a small file may ask for hours."""

from dataclasses import dataclass, field

from pcamx.data.marks.shapes import Box, Polygon, Raster, Shape, Size

MOST = 1 << 29
"""Steps a film, some 10 s: 8 full masks of the largest film, hundreds of a usual one."""
_A_VERTEX, _A_ROW = 1000, 2
_LESS_FOR_A_BOX = 16


def steps(shape: Shape, size: Size) -> int:
    """Count the work of a mark on a film of ``size``; a step is a pixel of a polygon's area.

    Each edge of a polygon goes over the rows that it crosses.
    """
    if isinstance(shape, Raster):
        # One larger than the film is refused as it is.
        return min(shape.width * shape.height, size[0] * size[1]) + shape.effort
    if isinstance(shape, Box):
        return 1 + _area(shape, size)[0] // _LESS_FOR_A_BOX
    found = 0
    for ring in shape.rings:
        area, rows = _area(Polygon((ring,)), size)
        found += area + len(ring) * (_A_VERTEX + _A_ROW * rows)
    return found


def _area(shape: Box | Polygon, size: Size) -> tuple[int, int]:
    """Pixels and rows of what lies around a shape on the film."""
    left, top, right, bottom = shape.bounds()
    columns = int(min(right, size[0]) - max(left, 0)) + 1
    rows = int(min(bottom, size[1]) - max(top, 0)) + 1
    return max(0, columns) * max(0, rows), max(0, rows)


@dataclass(slots=True)
class Work:
    """Counts the steps of each film's marks."""

    done: dict[str, int] = field(default_factory=dict)

    def has_room(self, film: str, shape: Shape, size: Size) -> bool:
        """Count a mark that may be drawn; False for one that would be too much."""
        total = self.done.get(film, 0) + steps(shape, size)
        if total > MOST:
            return False
        self.done[film] = total
        return True
