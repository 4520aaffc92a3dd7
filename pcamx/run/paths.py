"""Where everything lies in a run's folder.

RUN/config.yaml                  as resolved
RUN/origin.json                  the store that the run is trained on, and its fingerprint; the run
                                 that it goes on from, if any
RUN/store/                       of such a run: its parent's films with more marks
RUN/metrics.jsonl                one line per logged step and per validation
RUN/stage1/checkpoints/latest    name of the newest whole checkpoint
RUN/stage1/checkpoints/<tag>/    DeepSpeed's files, rank_<r>.pt, progress.json with all digests
RUN/stage1/weights.pt            the finished stage: network weights, P and what made them
RUN/stage1/flops.txt, ...        what DeepSpeed's instruments write, if asked for
RUN/segmenter/...                the same of the baseline
RUN/report.json, films.csv, report.html, figure2.png    what `pcamx evaluate` leaves
RUN/films.html, films/           every film that it measured, to look at
RUN/on_test/, RUN/on_STORE/      the same of the test split, and of another store
RUN/export/, explain/, compare/  where `pcamx export`, `explain` and `continue` write by themselves
RUN/to_mark.csv, to_mark/        where `pcamx marks suggest` does
RUN/.lock                        who works in it, see `pcamx.run.lock`
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pcamx.catalogue import StageId, trainable
from pcamx.errors import PcamxError

CHECKPOINTS = "checkpoints"
"""Of a stage's folder, the one that its checkpoints lie in."""
_ON_TEST = "on_test"


@dataclass(frozen=True, slots=True)
class RunPaths:
    """A run's folder and the paths in it; it may be moved and renamed."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The run's settings, every default written out."""
        return self.path / "config.yaml"

    @property
    def history_file(self) -> Path:
        """What `pcamx.run.history` writes and reads."""
        return self.path / "metrics.jsonl"

    @property
    def report_file(self) -> Path:
        """What `pcamx.run.report` writes and reads."""
        return self.path / "report.json"

    @property
    def films_file(self) -> Path:
        """What was measured, film by film."""
        return self.path / "films.csv"

    @property
    def page_file(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    @property
    def store(self) -> Path:
        """The store of a run that goes on from another, with more marks."""
        return self.path / "store"

    @property
    def all_films_file(self) -> Path:
        """The page of all films, which shows `pictures`."""
        return self.path / "films.html"

    @property
    def pictures(self) -> Path:
        """Folder of what is drawn of every film."""
        return self.path / "films"

    @property
    def figure_file(self) -> Path:
        """The paper's figure 2 of this run."""
        return self.path / "figure2.png"

    @property
    def export(self) -> Path:
        """An export of this run, where nobody names another folder."""
        return self.path / "export"

    @property
    def explained(self) -> Path:
        """What `pcamx explain` writes, likewise."""
        return self.path / "explain"

    @property
    def comparison(self) -> Path:
        """The comparison of a run that goes on from another with that one."""
        return self.path / "compare"

    @property
    def to_mark(self) -> Path:
        """Films to mark next, as a marking tool imports them."""
        return self.path / "to_mark"

    @property
    def to_mark_file(self) -> Path:
        """Films to mark next, as a list."""
        return self.path / "to_mark.csv"

    @property
    def origin_file(self) -> Path:
        """Which store the run is trained on."""
        return self.path / "origin.json"

    @property
    def old_origin_file(self) -> Path:
        """Of runs before origin.json: the fingerprint alone."""
        return self.path / "store.sha256"

    def stage(self, key: StageId) -> Path:
        """Return the folder of what was trained under a key."""
        return self.path / trainable(key).section

    def weights(self, key: StageId) -> Path:
        """Return the file of a finished stage's weights."""
        return self.stage(key) / "weights.pt"

    def checkpoints(self, key: StageId) -> Path:
        """Return the folder of a stage's checkpoints."""
        return self.stage(key) / CHECKPOINTS

    def measured_on(self, store: Path | None, split: str = "valid") -> Self:
        """Return where the report goes: here, or into a folder named after another store.

        The test split's goes to on_test in there, so no other report is overwritten. Raises
        PcamxError if a store is called test.
        """
        folder = self.path
        if store is not None:
            folder = folder / f"on_{store.resolve().name}"
            if folder.name == _ON_TEST:
                raise PcamxError(
                    f"{store}: {folder} is for the test split of the run's own store; rename this "
                    "store"
                )
        return type(self)(folder / _ON_TEST if split == "test" else folder)
