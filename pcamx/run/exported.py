"""The two files of an export as they are read: config.json and model.safetensors, checked.

`pcamx.run.pretrained` writes them; nothing that is read here can run code.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from pcamx import __version__
from pcamx.catalogue import classifiers
from pcamx.config import Pooling
from pcamx.errors import PcamxError
from pcamx.run.thresholds import Threshold, map_keys
from pcamx.seals import unsealed

FORMAT = 1
CONFIG, SAFETENSORS = "config.json", "model.safetensors"
_TOO_MUCH = (OverflowError, RecursionError)


def read_facts(path: Path) -> dict[str, Any]:
    """Read config.json of an export, checked. Raises PcamxError, one line."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] == FORMAT:
            facts = unsealed(facts)
        else:
            raise PcamxError(
                f"{path}: format {facts['format']} of pcamx {facts.get('pcamx')}, this pcamx "
                f"{__version__} reads format {FORMAT}; export the run anew"
            )
        if "layout" in facts:  # as an encoder was called before
            facts["encoder"] = facts.pop("layout")
        facts.setdefault("pooling", "mean")
        facts.setdefault("mirrored", False)
        fine = (
            facts["stage"] in [entry.key for entry in classifiers()]
            # 320.0 and true are equal to whole numbers.
            and type(facts["canvas"]) is int
            and not isinstance(facts["stage"], bool | float)
            and facts["canvas"] in range(32, 4097, 16)
            and facts["pooling"] in get_args(Pooling)
            and isinstance(facts["mirrored"], bool)
            and math.isfinite(facts["mean"])
            and 0 < facts["std"] < math.inf
            and facts["thresholds"].keys() <= set(map_keys(facts["stage"]))
            and all(0 <= t["value"] <= 1 for t in facts["thresholds"].values())
            and all(
                t["tuned"] in (True, False) and set(t) <= set(Threshold._fields)
                for t in facts["thresholds"].values()
            )
            and all(math.isfinite(t.get("level") or 0) for t in facts["thresholds"].values())
            and "encoder" in facts
            and isinstance(facts["sha256"], str)
            and isinstance(facts["versions"], dict)
            and isinstance(facts["commit"], str | None)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, *_TOO_MUCH):
        fine = False
    if not fine:
        raise PcamxError(f"{path}: not a config.json of pcamx export, or damaged; export it again")
    return dict(facts)


def read_state(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read the weights of an export, by name. Raises PcamxError where they are others."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise PcamxError(f"{path}: damaged, its SHA-256 is not {CONFIG}'s; export it again")
        return load(content)
    except OSError as error:
        raise PcamxError(f"{path}: {error.strerror}; export it again") from None
    except SafetensorError:
        raise PcamxError(f"{path}: not a safetensors file; export it again") from None
