"""Where a film lands on the square canvas: one rule for the decoder and the lesion masks."""

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:  # neither is to be loaded where films are drawn
    from numpy.typing import NDArray
    from torch import Tensor

Canvas = TypeVar("Canvas", "NDArray[Any]", "Tensor")


class Fit(NamedTuple):
    """A film's rectangle on the canvas, in canvas pixels."""

    width: int
    height: int
    left: int
    top: int


def fit(width: int, height: int, canvas: int) -> Fit:
    """Place an upright film of ``width`` x ``height`` pixels on a canvas of side ``canvas``.

    The long side fills the canvas, the aspect is kept (to the nearest whole pixel, at least one),
    the film is centred; an odd pixel of padding goes right or below.
    """
    long_side = max(width, height)

    def scaled(side: int) -> int:
        # Whole-number arithmetic, halves up: the same on every machine.
        return max(1, (2 * side * canvas + long_side) // (2 * long_side))

    w, h = scaled(width), scaled(height)
    return Fit(w, h, (canvas - w) // 2, (canvas - h) // 2)


def on_film(canvas: Canvas, place: Fit) -> Canvas:
    """Return the film's part of a canvas [..., H, W], without the padding; a view."""
    rows = slice(place.top, place.top + place.height)
    return canvas[..., rows, place.left : place.left + place.width]
