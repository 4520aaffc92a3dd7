"""JSON objects that carry a digest of themselves."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "self_sha256"
"""Key under which a JSON object keeps the SHA-256 of its others."""


def sealed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``facts`` with a digest of them, so that a changed byte shows when they are read."""
    return {**facts, SEAL: _seal(facts)}


def unsealed(facts: Any) -> dict[str, Any]:
    """Return what was sealed, or what an earlier pcamx wrote without a seal.

    Raises ValueError where it is no object or was changed.
    """
    if not isinstance(facts, dict):
        raise ValueError("no JSON object")
    kept = {key: value for key, value in facts.items() if key != SEAL}
    if SEAL in facts and facts[SEAL] != _seal(kept):
        raise ValueError("its SHA-256 is another")
    return kept


def _seal(facts: Mapping[str, Any]) -> str:
    # As it comes back from JSON: tuples as lists, keys as text.
    text = json.dumps(json.loads(json.dumps(facts)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
