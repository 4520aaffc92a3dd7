"""The paths in a run's folder."""

from pathlib import Path

from pcamx.data.store import fingerprint
from pcamx.errors import PcamxError

STORE_SEEN = "store.sha256"
"""In the run's folder: fingerprint of the store it is trained on."""


def check_store(run: Path, store: Path) -> None:
    """Refuse a store that was prepared anew since the run began: its splits may be others."""
    seen = run / STORE_SEEN
    if seen.is_file() and seen.read_text(encoding="utf-8").strip() != fingerprint(store):
        raise PcamxError(
            f"{store} was prepared anew since {run} began; set run.folder to a new folder"
        )
