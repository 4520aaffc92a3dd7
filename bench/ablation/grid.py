"""The grid of an ablation: one base run, and cells that change some of its keys.

``train`` says which stages the base trains, all of its config's where it is left out.

Every cell and seed is an ordinary run, OUT/<slug of the cell's name>/seed<k>/.
"""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pcamx import config as configs
from pcamx.catalogue import TRAINABLES, StageId, Trainable, classifiers, trainable
from pcamx.config import Config, ConfigError
from pcamx.run.bound import binding_differences
from pcamx.run.folder import RunFolder
from pcamx.training.start_weights import start_weights

BASE = "base"
LEAST_SEEDS = 3
_GRID = {"base", "seeds", "cells"}
_OPTIONAL = {"train", "twins"}
_CELL = {"name", "group", "train", "set"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One choice that the base run makes otherwise."""

    name: str
    group: str
    train: tuple[StageId, ...]
    """What is trained; an earlier stage that these start from is the base run's."""
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The cell's folder."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def stages(self) -> tuple[Trainable, ...]:
        """The paper's stages among what is trained."""
        return tuple(e for e in classifiers() if e.key in self.train)


@dataclass(frozen=True, slots=True)
class Grid:
    """The base run's config, the seeds and the cells, the base itself first."""

    base: Config
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    twins: Path | None = None
    """A store of the validation films with one thing changed each, which every run is measured on
    as well; as `pcamx evaluate --twins` takes it."""


@dataclass(frozen=True, slots=True)
class Job:
    """One cell with one seed: a run."""

    cell: Cell
    seed: int
    config: Config
    twins: Path | None = None

    @property
    def folder(self) -> Path:
        """The run's."""
        return Path(self.config.run.folder)

    @property
    def name(self) -> str:
        """As messages have it."""
        return f"{self.cell.name}, seed {self.seed}"

    def beside(self, suffix: str) -> Path:
        """Return the runner's own file next to the run's folder."""
        return self.folder.with_name(self.folder.name + suffix)


def read_grid(path: Path) -> Grid:
    """Read and check a grid; every cell's config is built once, so that no key fails later.

    Raises ConfigError that names the file, the cell and the key.
    """
    try:
        tree = configs.read_yaml(path, "expected a grid such as bench/ablation/grid.yaml")
        _keys(tree, _GRID, "the file", _OPTIONAL)
        if not isinstance(tree["base"], str):
            raise ConfigError(f"base: {tree['base']!r} is not the path of a run's YAML file")
        cells = tree["cells"]
        if not isinstance(cells, list) or not cells:
            raise ConfigError(f"cells: expected a list of cells, found {cells!r}")
        base = configs.load(tree["base"])
        trained = _train(tree["train"], "") if "train" in tree else tuple(base.trained())
        found = Grid(
            base,
            _seeds(tree["seeds"]),
            (
                Cell(BASE, BASE, trained),
                *(_cell(c, n) for n, c in enumerate(cells, 1)),
            ),
            _twins(tree.get("twins")),
        )
        _check(found)
    except ConfigError as error:
        known = str(error).startswith(f"{path}: ")
        raise error if known else ConfigError(f"{path}: {error}") from None
    return found


def _twins(found: Any) -> Path | None:
    if found is None:
        return None
    if not isinstance(found, str) or not Path(found).is_dir():
        raise ConfigError(f"twins: {found!r} is not the folder of a store; prepare it first")
    return Path(found).resolve()


def _keys(tree: Any, names: set[str], where: str, more: Set[str] = frozenset()) -> None:
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected keys {', '.join(sorted(names))}, found {tree!r}")
    for name in tree:
        if name not in names | more:
            known = ", ".join(sorted(names | more))
            raise ConfigError(f"{where}: unknown key {name}; known: {known}")
    for name in sorted(names - tree.keys()):
        raise ConfigError(f"{where}: missing key {name}")


def _seeds(found: Any) -> tuple[int, ...]:
    fine = isinstance(found, list) and all(type(seed) is int and seed >= 0 for seed in found)
    if not fine or len(set(found)) != len(found) or len(found) < LEAST_SEEDS:
        raise ConfigError(
            f"seeds: expected {LEAST_SEEDS} or more different whole numbers, found {found!r}"
        )
    return tuple(found)


def _cell(tree: Any, number: int) -> Cell:
    name = tree.get("name") if isinstance(tree, dict) else None
    where = f"cell {number} ({name})" if name else f"cell {number}"
    _keys(tree, _CELL, where)
    for key in ("name", "group"):
        if not isinstance(tree[key], str) or not tree[key].strip():
            raise ConfigError(f"{where}: {key}: {tree[key]!r} is not text")
    train = _train(tree["train"], f"{where}: ")
    if not isinstance(tree["set"], dict) or not tree["set"]:
        raise ConfigError(f"{where}: set: expected dotted keys and values, found {tree['set']!r}")
    for key in tree["set"]:
        if not isinstance(key, str) or key.split(".")[0] == "run":
            raise ConfigError(f"{where}: set: {key} is not a key that a cell may set")
    return Cell(tree["name"], tree["group"], train, dict(tree["set"]))


def _train(found: Any, where: str) -> tuple[StageId, ...]:
    known = [entry.key for entry in TRAINABLES]
    if not isinstance(found, list) or not found or found != [k for k in known if k in found]:
        raise ConfigError(
            f"{where}train: {found!r} is not a list of {', '.join(map(str, known))}, in that order"
        )
    return tuple(found)


def _check(grid: Grid) -> None:
    slugs: dict[str, str] = {}
    for cell in grid.cells:
        if not cell.slug:
            raise ConfigError(f"cell {cell.name!r}: a name needs a letter or digit")
        if cell.slug in slugs:
            raise ConfigError(
                f"cells {slugs[cell.slug]!r} and {cell.name!r} share the folder {cell.slug}; "
                "rename one"
            )
        slugs[cell.slug] = cell.name
    jobs(grid, Path())


def jobs(grid: Grid, out: Path) -> list[Job]:
    """Return every run, seeds outermost and the base first, so that a stopped ablation has whole
    seeds.

    ``out`` and the config's paths are taken from the working directory.
    """
    return [_job(grid, cell, seed, out.resolve()) for seed in grid.seeds for cell in grid.cells]


def _job(grid: Grid, cell: Cell, seed: int, out: Path) -> Job:
    changes = cell.changes | {
        "run.folder": str(out / cell.slug / f"seed{seed}"),
        "run.seed": seed,
    }
    try:
        config = configs.changed(grid.base, changes)
    except ConfigError as error:
        raise ConfigError(f"cell {cell.name!r}: {error}") from None
    for key in cell.train:
        if key not in config.trained():
            raise ConfigError(
                f"cell {cell.name!r}: train: the base has no stages.{trainable(key).section}"
            )
    ours, base = (Path(out / slug / f"seed{seed}") for slug in (cell.slug, BASE))
    starts: dict[str, Any] = {}
    own = {entry.section: entry.key for entry in TRAINABLES}
    for entry in cell.stages:
        key = f"stages.{entry.section}.init_from"
        start = config.stage(entry.key).init_from
        if start in own:
            if own[start] not in cell.train:
                starts[key] = str(RunFolder(base).weights(own[start]))
        elif start != "scratch":
            starts[key] = str(Path(start).resolve())
    config = absolute(configs.changed(config, starts | {"run.folder": str(ours)}))
    return Job(cell, seed, config, grid.twins)


def absolute(config: Config) -> Config:
    """Return the config with its folders and files as absolute paths."""
    paths = {
        "run.folder": config.run.folder,
        "data.store": config.data.store,
        "data.cache": config.data.cache,
    }
    if config.model.weights != "timm":  # which is no file
        paths["model.weights"] = config.model.weights
    return configs.changed(config, {k: str(Path(p).resolve()) for k, p in paths.items() if p})


def refuse_changed(jobs: Sequence[Job]) -> None:
    """Raise ConfigError that names cell and key where a run's folder holds another config."""
    for job in jobs:
        run = RunFolder(job.folder)
        if not run.is_run():
            continue
        found = binding_differences(job.config, absolute(run.read_config()))
        # A finished run may have been moved there.
        lines = [line for line in found if not line.startswith("run.folder")]
        if lines:
            raise ConfigError(
                f"cell {job.cell.name!r}: {job.folder} holds a run with another config "
                f"({'; '.join(lines[:3])}); rename the cell, or remove that folder"
            )


def starts_missing(job: Job) -> list[Path]:
    """Return weights that the job starts from and that are not there yet."""
    found = [start_weights(job.config, entry.key) for entry in job.cell.stages]
    own = [RunFolder(job.folder).weights(entry.key) for entry in job.cell.stages]
    return [path for path in found if path and path not in own and not path.is_file()]
