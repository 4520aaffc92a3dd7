"""A tiny drawn data set, prepared once a session, and configs of runs on it."""

import os
import shutil

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import yaml

torch.set_num_threads(1)

WriteConfig = Callable[..., Path]
# Files whose tests train, start processes or compile, the longest first, and what they share.
SLOW = (
    *("test_launch", "test_evaluate", "test_kernels", "test_checkpoint", "test_compile"),
    *("test_engine", "test_explain", "test_export", "test_bench_ablation", "test_bench_step"),
    *("test_bench_explain", "test_bench_loader"),
    *(
        "test_cli",
        "test_train_command",
        "test_graph",
        "test_segmenter",
        "test_instruments",
        "test_fracatlas",
    ),
    *("test_readme", "test_heap", "test_watch", "test_zero_parity"),
)
SLOW_FIXTURES = {"finished_run", "evaluated_run"}
ONE_EPOCH = {f"stages.{name}.epochs": 1 for name in ("stage1", "stage2", "segmenter")}


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPUs from tests that are not about them: two ranks would find one, and be refused.

    Before anything imports a kernel: Triton's interpreter runs them where no GPU does.
    """
    if not asks_for_gpu(config.getoption("markexpr")):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"


def asks_for_gpu(expression: str) -> bool:
    """Whether pytest's -m takes tests that are marked gpu by its name, as `make gpu-check` does."""
    return "gpu" in expression.replace("not gpu", "").split()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``make quick`` leaves out, and begin with the longest files.

    The workers of ``make test`` take whole files in turn: one that began last would run alone.
    """
    for item in items:
        if item.path.stem in SLOW or not SLOW_FIXTURES.isdisjoint(item.fixturenames):  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with MURA-v1.1/ and marks/ of 32 training and 14 validation films of 48 px."""
    from pcamx.data.phantom import draw_phantoms
    from pcamx.progress import silent

    out = tmp_path_factory.mktemp("data") / "phantoms"
    draw_phantoms(out, train=32, valid=14, size=48, seed=3, workers=1, track=silent)
    return out


@pytest.fixture(scope="session")
def store_folder(phantoms: Path) -> Path:
    """The prepared store of ``phantoms``."""
    from pcamx.data.prepare.store_builder import prepare

    out = phantoms.parent / "store"
    prepare(phantoms / "MURA-v1.1", out, table=None, marks=phantoms / "marks")
    return out


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
    """Folder of a run of all stages and the segmenter; copy it before changing it."""
    config = write_config(tmp_path_factory.mktemp("finished"), ONE_EPOCH)
    processes.train(2, config, "all").ok()
    return config.parent / "run"


@pytest.fixture(scope="session")
def evaluated_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that run, evaluated."""
    from pcamx.evaluation.evaluate import evaluate

    copy = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished_run, copy)
    evaluate(copy)
    return copy
