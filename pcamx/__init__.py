"""pcamx: bone X-ray classification whose decision rests on the lesion."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcamx.cam.positive_cam import PositiveCAM
    from pcamx.run.pretrained import from_pretrained

__version__ = "0.1.0"
__all__ = ["PositiveCAM", "from_pretrained"]


def __getattr__(name: str) -> Any:
    # Torch comes with the first use: `pcamx --help` and worker processes start without.
    if name == "PositiveCAM":
        from pcamx.cam.positive_cam import PositiveCAM

        return PositiveCAM
    if name == "from_pretrained":
        from pcamx.run.pretrained import from_pretrained

        return from_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
