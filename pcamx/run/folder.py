"""A run's folder: what of it is finished, and which store it belongs to."""

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcamx import config as configs
from pcamx.catalogue import TRAINABLES, StageId, classifiers, trainable
from pcamx.config import Config, ConfigError
from pcamx.data.store import HEAD, fingerprint, fingerprints, manifest_digest
from pcamx.errors import PcamxError
from pcamx.output import write_text
from pcamx.run.bound import changed_since
from pcamx.run.paths import RunPaths
from pcamx.run.weights import Weights, load_weights
from pcamx.seals import sealed, unsealed

FORMAT = 1
"""Of origin.json."""
_ORIGIN = ("run", "store", "store_from_run", "sha256")
_PARENT = ("parent", "parent_run")
"""Of a run that `pcamx continue` made; others have none."""
_STRATA = "strata"
"""Of a run whose batches are balanced; others have none."""


@dataclass(frozen=True, slots=True)
class RunFolder(RunPaths):
    """A run's folder; it may be moved, renamed and read from any working directory."""

    def begun(self) -> list[StageId]:
        """Return what was begun, in the order of training."""
        return [entry.key for entry in TRAINABLES if self.stage(entry.key).is_dir()]

    def finished(self) -> list[StageId]:
        """Return what is finished, in the order of training."""
        return [entry.key for entry in TRAINABLES if self.weights(entry.key).is_file()]

    def finished_classifiers(self) -> list[StageId]:
        """Return the finished stages of the paper; raises PcamxError where there is none."""
        keys = [entry.key for entry in classifiers()]
        found = [key for key in self.finished() if key in keys]
        if not found:
            names = ", ".join(map(str, keys))
            raise PcamxError(
                f"{self.path}: none of stages {names} is finished; train one, or --resume it"
            )
        return found

    def last_finished(self) -> StageId:
        """Return the paper's last finished stage.

        Raises PcamxError where there is none, or where a later one has begun: nobody is to take
        the answers of an earlier stage for its.
        """
        last = self.finished_classifiers()[-1]
        keys = [entry.key for entry in classifiers()]
        if later := [key for key in keys[keys.index(last) + 1 :] if key in self.begun()]:
            raise PcamxError(
                f"{self.path}: {trainable(later[0]).title} has begun, but {self.weights(later[0])} "
                f"is not there; finish it with --resume, choose {trainable(last).title}, or move "
                f"{self.stage(later[0])} out of the run"
            )
        return last

    def foreign(self) -> Path | None:
        """Return what a first run here would replace; None where one has begun, or nothing lies."""
        if self.origin_file.exists() or self.old_origin_file.exists():
            return None
        training = (self.config_file, self.history_file)
        measuring = (self.report_file, self.films_file, self.page_file, self.all_films_file)
        ours = (*training, *measuring, self.pictures, self.figure_file)
        return next((path for path in ours if path.exists()), None)

    def is_run(self) -> bool:
        """Tell whether a training has begun here."""
        return self.config_file.is_file()

    def read_config(self) -> Config:
        """Read the run's settings.

        Raises PcamxError where the folder holds no run, ConfigError where it is of another
        version or damaged.
        """
        if not self.is_run():
            raise PcamxError(
                f"{self.path}: not a run's folder, {self.config_file.name} is not there"
            )
        return configs.load(self.config_file)

    def write_origin(
        self,
        store: Path,
        parent: "RunFolder | None" = None,
        *,
        strata: str | None = None,
        becomes: Path | None = None,
    ) -> None:
        """Note which store the run is trained on, and ``parent``, the run that it goes on from.

        Before anything else is written: by it the folder is known to be a run's.

        ``strata`` is the digest of the groups that its batches are balanced in, if any; ``becomes``
        where this folder, a draft with the store in it, is to lie. A parent that was noted before
        stays. Raises PcamxError where the disk refuses.
        """
        here = self.path.resolve()
        from_run = os.path.relpath(store.resolve(), here)
        place = here if becomes is None else becomes.resolve()
        known = self._origin()
        origin: dict[str, Any] = {key: known[key] for key in _PARENT if key in known}
        if parent is not None:
            origin = {"parent": str(parent.path.resolve()), "parent_run": parent.id() or ""}
        origin |= {
            "format": FORMAT,
            "run": known.get("run") or uuid.uuid4().hex,
            "store": os.path.normpath(place / from_run),
            "store_from_run": from_run,
            "sha256": fingerprint(store),
        }
        if strata is not None:
            origin[_STRATA] = strata
        write_text(self.origin_file, json.dumps(sealed(origin), indent=1) + "\n")

    def _origin(self) -> dict[str, str]:
        """What `write_origin` wrote; empty before the first step."""
        path = self.origin_file
        try:
            if path.is_file():
                found = unsealed(json.loads(self.origin_file.read_text(encoding="utf-8")))
                if found["format"] != FORMAT:
                    raise ValueError
                keys = (*_ORIGIN, *(key for key in (*_PARENT, _STRATA) if key in found))
                return {key: str(found[key]) for key in keys}
            path = self.old_origin_file
            if path.is_file():
                return {"sha256": _hexadecimal(path.read_text(encoding="utf-8").strip())}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise PcamxError(
                f"{path}: damaged or of another version; restore it, or where the run has no "
                "weights yet, remove it"
            ) from None
        return {}

    def id(self) -> str | None:
        """Return what tells this run from all others; None before its first step."""
        return self._origin().get("run")

    def parent(self) -> dict[str, str] | None:
        """Return folder and id ("" if it has none) of the run that this one goes on from."""
        found = self._origin()
        if "parent" not in found:
            return None
        return {"folder": found["parent"], "run": found["parent_run"]}

    def load_weights(self, key: StageId) -> Weights:
        """Read a finished stage's weights.

        Raises PcamxError where they are missing, damaged, or of another stage, run or config.
        """
        weights = load_weights(self.weights(key), key)
        self.check_weights(weights, key)
        return weights

    def check_weights(self, weights: Weights, key: StageId) -> None:
        """Raise PcamxError unless weights read from here are of stage ``key``, this run and its
        config.yaml; older files do not tell all of it.
        """
        path = self.weights(key)
        if weights.stage != key:
            raise PcamxError(
                f"{path}: weights of {weights.stage!r}, not of {key!r}; restore its own"
            )
        if weights.run is not None and (own := self.id()) != weights.run:
            if own is None:
                raise PcamxError(
                    f"{self.origin_file}: not there, so nothing says whether {path} is of this "
                    "run; restore it"
                )
            raise PcamxError(f"{path}: weights of another run; restore this run's own")
        if weights.config is None:
            return
        config = self.read_config()
        try:
            changed = changed_since(config, weights.config, key)
        except ConfigError as error:
            raise PcamxError(f"{path}: settings of another version of pcamx ({error})") from None
        if changed:
            raise PcamxError(
                f"{self.config_file}: changed since {trainable(key).title} was trained "
                f"({'; '.join(changed[:3])}); put back what {path} was trained with"
            )

    def check_store(self, store: Path) -> None:
        """Refuse a store that has changed since the run began: its splits, its scale, its marks."""
        if not self.is_of(store):
            raise PcamxError(
                f"{store} was prepared anew since {self.path} began, with other films, splits or "
                "marks; prepare it as it was then, or train a new run in another run.folder"
            )

    def check_strata(self, strata: str | None) -> None:
        """Refuse other groups of films than those that the run's batches are balanced in."""
        seen = self._origin().get(_STRATA)
        if seen is not None and seen != strata:
            raise PcamxError(
                f"data.balanced: the films' markers have changed since {self.path} began; put the "
                "markers.csv, or the data set's own table, of then back, or train a new run in "
                "another run.folder"
            )

    def is_of(self, store: Path) -> bool:
        """Tell whether the run, if it has begun, is of this store as it is now."""
        seen = self._origin().get("sha256")
        # A run of an earlier pcamx knows the times of change as well, or the manifest alone.
        return seen is None or seen in (*fingerprints(store), manifest_digest(store))

    def find_store(self, config: Config, *, anew: bool = False) -> Path:
        """Return the store that the run was trained on.

        As data.store says from the working directory, else as it lay from the run's folder, else
        where it was. Raises PcamxError where it is in none of these places, or was prepared anew,
        unless ``anew`` takes that as well.
        """
        origin = self._origin()
        places = [Path(config.data.store)]
        if "store" in origin:
            places += [self.path / origin["store_from_run"], Path(origin["store"])]
        there = [place for place in places if os.path.isfile(place / HEAD)]
        for place in there:
            if self.is_of(place):
                return place
        if there and anew:
            return there[0]
        if there:
            self.check_store(there[0])
        names = " nor ".join(dict.fromkeys(os.path.normpath(place) for place in places))
        raise PcamxError(
            f"{self.path}: the store of its films is not at {names}; bring it back, or go to the "
            "folder that you trained in"
        )


def _hexadecimal(text: str) -> str:
    """``text``, if it is a SHA-256; else ValueError."""
    if len(bytes.fromhex(text)) != 32:
        raise ValueError
    return text
