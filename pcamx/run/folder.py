"""The paths in a run's folder."""

from pathlib import Path

from pcamx.data.store import fingerprint, manifest_digest
from pcamx.errors import PcamxError

STORE_SEEN = "store.sha256"
"""In the run's folder: fingerprint of the store it is trained on."""


def check_store(run: Path, store: Path) -> None:
    """Refuse a store that has changed since the run began: its splits, its scale, its marks."""
    seen = run / STORE_SEEN
    if not seen.is_file():
        return
    known = seen.read_text(encoding="utf-8").strip()
    # A run of an earlier pcamx knows the manifest alone.
    if known not in (fingerprint(store), manifest_digest(store)):
        raise PcamxError(
            f"{store} was prepared anew since {run} began; set run.folder to a new folder"
        )
