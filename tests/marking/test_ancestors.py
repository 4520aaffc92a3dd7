"""`pcamx marks suggest` of a continued run: nobody is asked again for what was marked before."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_runs
import stores
from PIL import Image

from pcamx.data.feed.order import choose_marked
from pcamx.data.store import Film, Store, read_store
from pcamx.marking.ancestors import without_marked
from pcamx.marking.suggest import suggest
from pcamx.progress import mute
from pcamx.run.folder import RunFolder
from pcamx.training.continued import begin


@pytest.fixture
def store(store_folder: Path, tmp_path: Path) -> Store:
    """The drawn films; three abnormal training films have no mark."""
    folder = Path(shutil.copytree(store_folder, tmp_path / "store"))
    left: list[str] = []

    def bare(row: stores.Row) -> stores.Row:
        if row["mark"] and row["split"] == "train" and len(left) < 3:
            left.append(row["path"])
            return row | {"mark": ""}
        return row

    stores.change(folder, bare)
    return read_store(folder)


@pytest.fixture
def parent(store: Store, tmp_path: Path, write_config: Any) -> RunFolder:
    """An evaluated run that learned from four marked films of many."""
    config = write_config(tmp_path, {"data.store": str(store.folder), "data.marked": 4})
    run = RunFolder(random_runs.random_run(tmp_path / "one", config))
    random_runs.write_report(run.path)
    run.write_origin(store.folder)
    return run


def goes_on(parent: RunFolder, film: Film, out: Path) -> RunFolder:
    """A run that goes on from another with a mark of one more film, its training left out."""
    mask_HW = np.zeros((film.height, film.width), np.uint8)
    mask_HW[2:12, 2:12] = 255
    path = out.with_name(f"{out.name}_marks") / film.path
    path.parent.mkdir(parents=True)
    Image.fromarray(mask_HW).save(path)
    run = begin(parent.path, out, [path.parents[film.path.count("/")]]).run
    shutil.copytree(parent.stage(3), run.stage(3))
    random_runs.write_report(run.path)
    return run


def bare(store: Store) -> list[Film]:
    return [film for film in store.split("train") if film.label and not film.mark]


def suggested(run: RunFolder, tmp_path: Path, **given: Any) -> tuple[set[str], list[str]]:
    """Paths of the films to mark, and what was said."""
    said: list[str] = []
    found = suggest(run.path, 1000, tmp_path / "list.csv", say=said.append, **given)
    return {one.film.path for one in found}, said


def test_films_marked_for_any_earlier_run_are_passed_over(
    parent: RunFolder, store: Store, tmp_path: Path
) -> None:
    first, second, third = bare(store)
    train = store.split("train")
    learned = {train[i].path for i in choose_marked(train, 4, seed=0)}
    dropped = {film.path for film in train if film.mark} - learned
    two = goes_on(parent, first, tmp_path / "two")
    assert dropped and dropped <= {film.path for film in bare(read_store(two.store))}
    found, said = suggested(two, tmp_path)
    assert found == {second.path, third.path}
    assert said == [
        f"{len(dropped)} films passed over: marked for a run that {two.path} goes on from, which "
        "did not learn from those marks"
    ]
    three = goes_on(two, second, tmp_path / "three")
    assert suggested(three, tmp_path)[0] == {third.path}
    assert suggested(parent, tmp_path) == ({film.path for film in bare(store)}, [])


def test_an_earlier_run_or_store_that_is_gone_is_said(
    parent: RunFolder, store: Store, tmp_path: Path
) -> None:
    two = goes_on(parent, bare(store)[0], tmp_path / "two")
    offered = {film.path for film in bare(read_store(two.store))}
    store.folder.rename(tmp_path / "away")
    found, (said,) = suggested(two, tmp_path)
    assert found == offered and "the store of its films is not at" in said
    assert f"from which {two.path} goes on, may come up again" in said
    (tmp_path / "away").rename(store.folder)
    parent.origin_file.unlink()
    parent.write_origin(store.folder)  # another run in its place
    found, (said,) = suggested(two, tmp_path)
    assert found == offered and said.startswith(f"{parent.path} is not there any more; films")


def test_another_film_of_the_same_name_is_another(
    parent: RunFolder, store: Store, tmp_path: Path
) -> None:
    two = goes_on(parent, bare(store)[0], tmp_path / "two")
    new = read_store(two.store)
    films = bare(new)
    known = without_marked(films, new, two, mute)
    assert {film.path for film in known} == {film.path for film in bare(store)[1:]}
    contents = {path: one._replace(sha256="0" * 64) for path, one in new.contents.items()}
    other = dataclasses.replace(new, contents=contents)
    assert without_marked(films, other, two, mute) == films
    unknown = dataclasses.replace(new, contents={})  # of an earlier pcamx
    assert without_marked(films, unknown, two, mute) == known
