"""pcamx: bone X-ray classification whose decision rests on the lesion."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcamx.cam.positive_cam import PositiveCAM
    from pcamx.explain.predict import Prediction, predict
    from pcamx.run.pretrained import from_pretrained

__version__ = "0.1.0"
__all__ = ["PositiveCAM", "Prediction", "from_pretrained", "predict"]
_HOME = {
    "PositiveCAM": "pcamx.cam.positive_cam",
    "Prediction": "pcamx.explain.predict",
    "from_pretrained": "pcamx.run.pretrained",
    "predict": "pcamx.explain.predict",
}


def __getattr__(name: str) -> Any:
    # Torch comes with the first use: `pcamx --help` and worker processes start without.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
