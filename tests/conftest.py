"""A tiny drawn data set, prepared once a session, and configs of runs on it."""

import fcntl
import gc
import inspect
import os
import shutil
import signal
import subprocess

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import interpreter
import processes
import pytest
import torch
import yaml

if TYPE_CHECKING:
    from pcamx import engine

torch.set_num_threads(1)

TESTS = Path(__file__).parent
WriteConfig = Callable[..., Path]
# Files whose tests train, compile or run on Triton's interpreter, the longest first.
SLOW = (
    # The first makes the run that test_evaluate waits for; meanwhile the others are worked on.
    *("test_launch", "test_graph", "test_pretend_gpu", "test_evaluate", "test_explain"),
    *("test_captured_step", "test_checkpoint", "test_zero_parity", "test_train_command"),
    "test_readme",
    *("test_bench_ablation", "test_kernels", "test_engine", "test_bench_step", "test_export"),
    *(
        "test_bench_explain",
        "test_compile",
        "test_host_memory",
        "test_fracatlas",
        "test_bench_loader",
    ),
    *("test_watch", "test_cli", "test_segmenter", "test_instruments", "test_one_rank"),
    *("test_temptations", "test_export_check"),
)
LONG = ("test_continue", "test_slurm", "test_prepare", "test_stages", "test_phantom")
LONG += ("test_guidance", "test_batch_norm")
"""Files that take as long, though none of their tests does, or only some."""
FIRST = [*SLOW, *LONG]
STARTS = {
    "command",
    "deepspeed",
    "python",
    "ranks",
    "side_by_side",
    "train",
    "on_ranks",
    "run",
    "Popen",
}
"""What of `processes` and `subprocess` starts a process; `prepare` starts its own."""
PREPARE = "pcamx.data.prepare.store_builder"
EQ_4 = {"map_weight": 0.0, "erase_weight": 0.0}
"""Stage 3 without what else the marks may teach, which test_guidance.py has: erased films are
normalised by few, so that rounding grows fast, and a rank's few by themselves."""
EQ_4_KEYS = {f"objective.{name}": weight for name, weight in EQ_4.items()}
ONE_EPOCH = {f"stages.{name}.epochs": 1 for name in ("stage1", "stage2", "segmenter")}


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPUs from tests that are not about them: two ranks would find one, and be refused.

    And hear Ctrl-C, which some tests are about. Before anything imports a kernel: Triton's
    interpreter runs them where no GPU does.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as behind nohup, and inherited
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not asks_for_gpu(config.getoption("markexpr")):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"
        interpreter.quicken()


def asks_for_gpu(expression: str) -> bool:
    """Whether pytest's -m takes tests that are marked gpu by its name, as `make gpu-check` does."""
    return "gpu" in expression.replace("not gpu", "").split()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave slow files unread where no slow test is asked for: to import them takes time."""
    quick = "not slow" in config.getoption("markexpr")
    return True if quick and collection_path.stem in SLOW else None


def starts_processes(function: Any, seen: set[Any] | None = None) -> bool:
    """Tell whether a test, a fixture or what they call in tests/ starts a process."""
    seen = set() if seen is None else seen
    if not isinstance(function, FunctionType) or function in seen:
        return False
    seen.add(function)
    names, codes = set[str](), [function.__code__]
    for code in codes:
        names |= set(code.co_names)
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    known = [function.__globals__[name] for name in names if name in function.__globals__]
    if not STARTS.isdisjoint(names) and any(it is processes or it is subprocess for it in known):
        return True
    return any(
        inner.__module__ == PREPARE or (_is_ours(inner) and starts_processes(inner, seen))
        for inner in known
        if isinstance(inner, FunctionType)
    )


def _is_ours(found: FunctionType) -> bool:
    return Path(found.__code__.co_filename).is_relative_to(TESTS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``make quick`` leaves out, and begin with the longest files.

    The workers of ``make test`` take whole files in turn: one that began last would run alone.
    """
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
        made = [fixture.func for found in fixtures for fixture in found]
        functions = (item.function, *map(inspect.unwrap, made))  # type: ignore[attr-defined]
        if item.path.stem in SLOW or any(map(starts_processes, functions)):
            item.add_marker(pytest.mark.slow)
    stems = [item.path.stem for item in items]
    places = {stem: FIRST.index(stem) if stem in FIRST else len(FIRST) for stem in stems}
    items.sort(key=lambda item: places[item.path.stem])


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported: it would look through all of it, and often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder that ``make(folder)`` fills, once for all of pytest's workers.

    A worker that comes while another makes it waits. What tests may change they copy.
    """
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / name, base / f"{name}.done"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with MURA-v1.1/ and marks/ of 32 training and 14 validation films of 48 px."""
    from pcamx.data.phantom import draw_phantoms
    from pcamx.progress import silent

    def make(folder: Path) -> None:
        out = folder / "phantoms"
        draw_phantoms(out, train=32, valid=14, size=48, seed=3, workers=1, track=silent)

    return once(tmp_path_factory, "data", make) / "phantoms"


@pytest.fixture(scope="session")
def store_folder(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared store of ``phantoms``."""
    from pcamx.data.prepare.store_builder import prepare

    def make(folder: Path) -> None:
        films, marks = phantoms / "MURA-v1.1", phantoms / "marks"
        prepare(films, folder / "store", table=None, marks=marks, workers=1)

    return once(tmp_path_factory, "prepared", make) / "store"


@pytest.fixture(scope="session")
def write_config(store_folder: Path) -> WriteConfig:
    """``write_config(folder, **{"runtime.zero_stage": 2})``: folder/run.yaml, its run in run/."""

    def write(folder: Path, changes: dict[str, Any] | None = None) -> Path:
        tree: dict[str, Any] = {
            "run": {"folder": "run"},
            "data": {"store": str(store_folder), "canvas": 32, "threads": 1, "marked": 6},
            "stages": {
                "stage1": {"epochs": 2},
                "stage2": {"epochs": 2, "init_from": "stage1"},
                "stage3": {"epochs": 2, "init_from": "stage2"},
            },
            "runtime": {"batch_size": 8, "zero_stage": 1, "log_every": 1, "save_every": 3},
            # Losses near 1: what the tests allow for rounding is of that size.
            "objective": {"marked_per_batch": 2, "lesion_weight": 1.0},
        }
        for key, value in (changes or {}).items():
            *sections, name = key.split(".")
            section = tree
            for part in sections:
                section = section.setdefault(part, {})
            section[name] = value
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "run.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, write_config: WriteConfig) -> Path:
    """Folder of a run of all stages and the segmenter; copy it before changing it.

    By the real launcher on two ranks, which says finished.txt, for tests/training/test_launch.py.
    """

    def make(folder: Path) -> None:
        config = write_config(folder, ONE_EPOCH)
        ended = processes.deepspeed(2, processes.TRAIN, "all", config).ok()
        folder.with_suffix(".txt").write_text(ended.text)

    return once(tmp_path_factory, "finished", make) / "run"


@pytest.fixture(scope="session")
def evaluated_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that run, evaluated."""
    from pcamx.evaluation.evaluate import evaluate

    def make(folder: Path) -> None:
        shutil.copytree(finished_run, folder / "run")
        evaluate(folder / "run")

    return once(tmp_path_factory, "evaluated", make) / "run"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, write_config: WriteConfig) -> Path:
    """The export of stage 3 of a measured run with random weights; copy it before changing it."""
    import random_runs

    from pcamx.export import export

    def make(folder: Path) -> None:
        run = random_runs.random_run(folder / "run", write_config(folder))
        random_runs.write_report(run)
        export(run, folder / "deep" / "export")

    return once(tmp_path_factory, "exported", make) / "deep" / "export"


@pytest.fixture(scope="module")
def alone() -> Iterator["engine.Ranks"]:
    """This process as the only rank of a training."""
    from pcamx import engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        patch.setenv("MASTER_PORT", str(processes.free_port()))
        patch.setenv("WORLD_SIZE", "1")
        for name in ("RANK", "LOCAL_RANK"):
            patch.setenv(name, "0")
        yield engine.start()
        engine.stop()


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw two films a report, not a dozen, and no curves: most of an evaluation's time."""
    monkeypatch.setattr("pcamx.evaluation.example_films._FILMS", 2)
    monkeypatch.setattr("pcamx.report.page.stage_curves", lambda *_: [])
