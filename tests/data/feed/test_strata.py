"""Groups of films within which batches are balanced, from the store."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pcamx.config import Config, Data, Run, Runtime, load
from pcamx.data.feed.order import epoch_order
from pcamx.data.feed.strata import strata, strata_digest
from pcamx.data.store import Film, Store, read_store
from pcamx.errors import PcamxError
from pcamx.run.folder import RunFolder
from pcamx.training.preflight import check

LABELS = (0, 1, 1, 0, 0)
PARTS = ("HAND", "HAND", "WRIST", "WRIST", "HAND")


def film(index: int, label: int, part: str) -> Film:
    return Film(f"{index}.png", label, "p", f"s{index}", part, "train", 9, 9, 255, "")


def made(root: Path, labels: tuple[int, ...] = LABELS, parts: tuple[str, ...] = PARTS) -> Store:
    films = tuple(film(i, *pair) for i, pair in enumerate(zip(labels, parts, strict=True)))
    return Store(root, root, films, 0.0, 1.0, {})


def config(balanced: str) -> Config:
    data = Data(store="s", balanced=balanced)  # type: ignore[arg-type]
    return Config(run=Run(folder="r"), data=data, stages={}, runtime=Runtime(batch_size=8))


def found(store: Store, kind: str) -> list[dict[int, list[int]]]:
    return [dict(classes) for classes in strata(config(kind), store)]  # type: ignore[arg-type]


def test_by_hand(tmp_path: Path) -> None:
    store = made(tmp_path)
    assert found(store, "off") == []
    assert found(store, "on") == [{0: [0, 3, 4], 1: [1, 2]}]
    assert found(store, "parts") == [{0: [0, 4], 1: [1]}, {0: [3], 1: [2]}]
    (tmp_path / "markers.csv").write_text(
        "path,marker,left,top,right,bottom\n4.png,plate,1,1,5,5\n1.png,plate,,,,\n"
        "4.png,plate,6,6,8,8\n2.png,R,0,0,2,2\n2.png,plate,,,,\n"
    )
    none, plate, both = {0: [0, 3], 1: []}, {0: [4], 1: [1]}, {0: [], 1: [2]}
    assert found(store, "markers") == [none, both, plate]


def test_what_cannot_be_balanced(tmp_path: Path) -> None:
    with pytest.raises(PcamxError, match="markers.csv: no such file; data.balanced: markers"):
        found(made(tmp_path), "markers")
    with pytest.raises(PcamxError, match="both classes, and no training film is abnormal; set it"):
        found(made(tmp_path, labels=(0, 0, 0, 0, 0)), "on")
    with pytest.raises(PcamxError, match="needs two groups of films, .* of one part; set it to"):
        found(made(tmp_path, parts=("HAND",) * 5), "parts")
    (tmp_path / "markers.csv").write_text("path,marker,left,top,right,bottom\n")
    with pytest.raises(PcamxError, match="training films have the same markers; set it to on"):
        found(made(tmp_path), "markers")


def test_training_is_of_them(tmp_path: Path) -> None:
    """Nine tenths of the abnormal films lie in one part; in an epoch half of each part's do."""
    labels, parts = (1,) * 9 + (0,) * 1 + (1,) * 1 + (0,) * 9, ("HAND",) * 10 + ("WRIST",) * 10
    store = made(tmp_path, labels, parts)
    order = epoch_order(20, 4, seed=0, epoch=3, strata=strata(config("parts"), store)).ravel()
    assert np.bincount(2 * (order >= 10) + np.array(labels)[order]).tolist() == [5, 5, 5, 5]


def test_a_run_goes_on_in_the_groups_it_began_with(store_folder: Path, tmp_path: Path) -> None:
    """markers.csv is no part of the store, and may be another one when a training is resumed."""
    store, run = made(tmp_path), RunFolder(tmp_path / "run")
    table, head = tmp_path / "markers.csv", "path,marker,left,top,right,bottom\n"
    table.write_text(head + "4.png,plate,1,1,5,5\n")
    run.path.mkdir()
    run.write_origin(store_folder, strata=strata_digest(config("markers"), store))
    table.write_text(head + "4.png,plate,,,,\n")  # which films have one counts, not where
    run.check_strata(strata_digest(config("markers"), store))
    table.write_text(head + "3.png,plate,1,1,5,5\n")
    with pytest.raises(PcamxError, match=r"data.balanced: the films' markers have changed since"):
        run.check_strata(strata_digest(config("markers"), store))
    assert strata_digest(config("off"), store) is None


def test_other_groups_are_refused_before_the_first_step(
    store_folder: Path, tmp_path: Path, write_config: Callable[..., Path]
) -> None:
    settings = load(write_config(tmp_path, {"run.folder": str(tmp_path / "run")}))
    (tmp_path / "run").mkdir()
    RunFolder(tmp_path / "run").write_origin(store_folder, strata="0" * 64)
    with pytest.raises(PcamxError, match=r"data.balanced: the films' markers have changed since"):
        check(settings, read_store(store_folder), [1], world=1, resume=False)
