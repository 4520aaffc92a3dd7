"""`pcamx marks suggest --to`: what each tool gets, and what comes back after a person was there."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import random_runs
from PIL import Image, ImageDraw

from pcamx.catalogue import resolve
from pcamx.data.marks import read_marks
from pcamx.data.prepare.store_builder import prepare
from pcamx.data.store import Film, Store, read_store, write_store
from pcamx.errors import PcamxError
from pcamx.marking import package
from pcamx.marking.package import suggest_to
from pcamx.marking.tool_files import ToMark, cvat
from pcamx.marking.tools import TOOLS
from pcamx.output import write_bytes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_config: Any) -> Path:
    """A run of three stages with random weights."""
    folder = tmp_path_factory.mktemp("tools")
    return random_runs.random_run(folder / "run", write_config(folder))


@pytest.fixture(scope="module")
def store(store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The drawn films without any mark."""
    import shutil

    import stores

    folder = Path(shutil.copytree(store_folder, tmp_path_factory.mktemp("bare") / "store"))
    stores.change(folder, lambda row: row | {"mark": ""})
    return read_store(folder)


def made(tool: str, run: Path, store: Store, out: Path) -> list[ToMark]:
    """What ``tool`` was given, as its own folder was written from it."""
    seen: list[ToMark] = []

    def write(films: Any, folder: Path) -> None:
        seen.extend(films)
        resolve(TOOLS[tool])(films, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "resolve", lambda _: write)
        suggest_to(tool, run, 4, out, data=store.folder)
    return seen


def of_label_studio(folder: Path) -> Path:
    """As its JSON export: each prediction accepted, its first region submitted unchanged."""
    tasks = json.loads((folder / "tasks.json").read_text())
    for number, task in enumerate(tasks, 1):
        (prediction,) = task.pop("predictions")
        task |= {"id": number, "annotations": [{"id": number, "result": prediction["result"]}]}
    return written(folder / "export.json", json.dumps(tasks))


def of_cvat(folder: Path) -> Path:
    """As CVAT dumps a task: a zip, with meta of its own."""
    tree = ElementTree.parse(folder / "annotations.xml")
    meta = tree.getroot().find("meta")
    assert meta is not None
    meta.clear()
    ElementTree.SubElement(meta, "task")
    with zipfile.ZipFile(folder / "export.zip", "w") as file:
        file.writestr("annotations.xml", ElementTree.tostring(tree.getroot()))
    return folder / "export.zip"


def of_labelme(folder: Path) -> Path:
    """Saved: LabelMe writes its own version, all else as it was."""
    for path in (folder / "films").rglob("*.json"):
        tree = json.loads(path.read_text()) | {"version": "5.5.0"}
        written(path, json.dumps(tree))
    return folder / "films"


def of_coco(folder: Path) -> Path:
    """With an info of the tool's own."""
    tree = json.loads((folder / "annotations.json").read_text()) | {"info": {"description": ""}}
    return written(folder / "export.json", json.dumps(tree))


def written(path: Path, text: str) -> Path:
    write_bytes(path, text.encode())
    return path


EXPORTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "label-studio": ("tasks.json", of_label_studio),
    "cvat": ("annotations.xml", of_cvat),
    "labelme": ("films", of_labelme),
    "coco": ("annotations.json", of_coco),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_there_and_back(tool: str, run: Path, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    films = made(tool, run, store, out)
    by_path = {film.path: film for film in store.films}
    sizes = {film.path: (film.width, film.height) for film in store.films}
    assert len(films) == 4 and all(film.outlines for film in films)
    for film in films:
        assert by_path[film.name].label == 1 and by_path[film.name].split == "train"
        with Image.open(io.BytesIO(film.png)) as image, Image.open(store.root / film.name) as own:
            assert image.mode == "L" and np.array_equal(np.asarray(image), np.asarray(own))
    readme = (out / "README.txt").read_text().splitlines()
    assert readme[0] == "4 films; the model's candidates are drawn in on 4 of them."
    assert [line[:2] for line in readme[1:]] == ["1.", "2.", "3."]
    assert len((out / "to_mark.csv").read_text().splitlines()) == 5
    untouched, export = EXPORTS[tool]
    with pytest.raises(PcamxError):  # nobody has looked at them
        read_marks(out / untouched, sizes)
    marks = read_marks(export(out), sizes)
    assert marks.problems == () and set(marks.of) == {film.name for film in films}
    assert set(marks.labels()) == {"lesion"}
    for film in films:
        make = marks.masks[film.name]
        assert make is not None
        drawn = Image.new("L", (film.width, film.height))
        for outline in film.outlines:
            ImageDraw.Draw(drawn).polygon([(x - 0.5, y - 0.5) for x, y in outline], fill=255)
        ours, theirs = make() > 0, np.asarray(drawn) > 0
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.7  # Pillow draws the edge thicker


def test_films_that_nobody_has_saved_are_said(run: Path, store: Store, tmp_path: Path) -> None:
    """In LabelMe a candidate is a mark once its film is saved, and not before."""
    films = made("labelme", run, store, tmp_path / "out")
    sizes = {film.path: (film.width, film.height) for film in store.films}
    folder, said = (
        tmp_path / "out/films",
        "films with candidates of pcamx marks suggest that nobody",
    )
    with pytest.raises(PcamxError, match=f"LabelMe, but no mark can be used; {said} has saved"):
        read_marks(folder, sizes)
    saved = (folder / films[0].name).with_suffix(".json")
    written(saved, json.dumps(json.loads(saved.read_text()) | {"version": "5.5.0"}))
    marks = read_marks(folder, sizes)
    assert set(marks.of) == {films[0].name}
    (note,) = (note for note in marks.notes() if said in note)
    assert note.startswith(f"3 {said}") and "candidate" in note


def test_films_for_the_tools(run: Path, store: Store, tmp_path: Path) -> None:
    """Label Studio has them in the tasks, CVAT in a zip under their paths."""
    films = made("label-studio", run, store, tmp_path / "ls")
    for task, film in zip(json.loads((tmp_path / "ls/tasks.json").read_text()), films, strict=True):
        assert task["data"]["image"].startswith("data:image/png;base64,")
        assert task["data"]["film"] == film.name and task["data"]["reason"]
    text = (tmp_path / "ls/label_config.xml").read_text(encoding="utf-8")
    assert text.startswith("<View>")  # Label Studio 1.23 answers an XML declaration with error 500
    config = ElementTree.fromstring(text)
    names = {one.get("name") for one in config.iter() if one.get("toName") == "image"}
    region = json.loads((tmp_path / "ls/tasks.json").read_text())[0]["predictions"][0]["result"][0]
    assert region["from_name"] in names and region["to_name"] == "image"
    films = made("cvat", run, store, tmp_path / "cvat")
    with zipfile.ZipFile(tmp_path / "cvat/films.zip") as file:
        assert file.namelist() == [film.name for film in films]
        assert file.read(films[0].name) == films[0].png


def test_films_too_large_for_one_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred films of 5 MB are 667 MB as base64, of which Label Studio takes 250 MiB at once."""
    monkeypatch.setattr("pcamx.marking.tool_files._UPLOAD", 2000)
    films = [ToMark(f"{n}.png", 9, 9, bytes(600), [], {}) for n in range(5)]
    films.insert(2, ToMark("large.png", 9, 9, bytes(3000), [], {}))  # alone, there is no other way
    resolve(TOOLS["label-studio"])(films, tmp_path)
    parts = sorted(tmp_path.glob("tasks*.json"))
    names = [[task["data"]["film"] for task in json.loads(part.read_text())] for part in parts]
    assert names == [["0.png", "1.png"], ["large.png"], ["2.png", "3.png"], ["4.png"]]
    readme = (tmp_path / "README.txt").read_text()
    assert "1. 4 new projects in Label Studio" in readme
    assert "2. Import one of tasks1.json to tasks4.json into each" in readme
    assert "--marks EXPORT1.json EXPORT2.json EXPORT3.json EXPORT4.json --out" in readme


def test_refusals(run: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    for out in (tmp_path / "mine", tmp_path / "mine/thesis.txt"):
        with pytest.raises(PcamxError, match="there is something already; name a new folder"):
            suggest_to("coco", run, 2, out, data=store.folder)
    out = tmp_path / "unsaved"
    made("labelme", run, store, out)
    with pytest.raises(PcamxError, match="LabelMe, but no mark can be used; films with cand"):
        read_marks(out / "films", {film.path: (film.width, film.height) for film in store.films})


def test_a_store_of_htj2k_gives_the_same_to_the_bit(
    run: Path, store: Store, phantoms: Path, tmp_path: Path
) -> None:
    films = phantoms / "MURA-v1.1"
    prepare(films, tmp_path / "store", table=None, marks=None, transcode="htj2k", workers=1)
    transcoded = read_store(tmp_path / "store")
    assert all(film.path.endswith(".j2c") for film in transcoded.films)
    plain, found = (
        made("coco", run, one, tmp_path / out) for one, out in ((store, "a"), (transcoded, "b"))
    )
    assert [film.name for film in found] == [film.name for film in plain]
    for ours, theirs in zip(found, plain, strict=True):
        assert ours.outlines == theirs.outlines and ours.about == theirs.about
        images = [Image.open(io.BytesIO(film.png)) for film in (ours, theirs)]
        assert np.array_equal(*map(np.asarray, images))


def test_films_that_the_store_holds_are_found_from_the_working_directory(
    run: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their root is below the store's folder, which is named as `data.store` has it, relative."""
    films = phantoms / "MURA-v1.1"
    prepare(films, tmp_path / "store", table=None, marks=None, transcode="htj2k", workers=1)
    monkeypatch.chdir(tmp_path)
    here = made("coco", run, read_store(Path("store")), Path("here"))
    there = made("coco", run, read_store(tmp_path / "store"), Path("there"))
    assert here == there and len(here) == 4


def test_a_deep_film_beside_one_of_8_bits(run: Path, tmp_path: Path) -> None:
    """Each is shown by its own white."""
    ramp_HW = np.arange(32 * 40, dtype=np.uint16).reshape(32, 40) % 256
    for name in ("films", "store"):
        (tmp_path / name).mkdir()
    Image.fromarray(ramp_HW.astype(np.uint8)).save(tmp_path / "films/a.png")
    Image.fromarray(ramp_HW * 16 + 15).save(tmp_path / "films/b.png")
    films = [
        Film(f"{name}.png", 1, name, name, "", "train", 40, 32, white, "")
        for name, white in (("a", 255), ("b", 4095))
    ]
    write_store(tmp_path / "store", tmp_path / "films", films, mean=90, std=50, quarantine=[])
    found = made("coco", run, read_store(tmp_path / "store"), tmp_path / "out")
    assert sorted(film.name for film in found) == ["a.png", "b.png"]
    for film in found:
        with Image.open(io.BytesIO(film.png)) as image:
            assert image.mode == "L"
            levels_HW = (
                ramp_HW if film.name == "a.png" else np.rint((ramp_HW * 16 + 15) * (255 / 4095))
            )
            assert np.array_equal(np.asarray(image), levels_HW)


def test_a_name_that_xml_cannot_hold_is_refused(tmp_path: Path) -> None:
    fine = ToMark("a/b\n\u00e9.png", 4, 4, b"", [[(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]], {})
    for bad in ("a/\x01.png", "\ufffe.png", "\x1b[2J.png"):
        with pytest.raises(PcamxError, match=r"\?.*\.png: its name holds a control character"):
            cvat([fine, fine._replace(name=bad)], tmp_path)
        assert list(tmp_path.iterdir()) == []
    cvat([fine], tmp_path)
    root = ElementTree.parse(tmp_path / "annotations.xml").getroot()
    assert [one.get("name") for one in root.iter("image")] == [fine.name]


@pytest.mark.parametrize("other", ["a/w.jpeg", "a/w.png"])
def test_films_of_one_name_are_refused(other: str) -> None:
    films = ["a/w.jpg", other, "b/w.jpg", "c/scan.1", "c/scan.2"]
    package._check_names(films, ["b/w.jpg", "c/scan.1", "c/scan.2"])
    with pytest.raises(PcamxError, match=f"a/w.jpg and {other} would have one name, as their suf"):
        package._check_names(films, ["a/w.jpg"])


def test_the_command(
    run: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from pcamx import cli

    words = ("marks", "suggest", run, "--count", 2, "--data", store.folder, "--to", "labelme")
    monkeypatch.setattr("sys.argv", ["pcamx", *map(str, words), "--out", str(tmp_path / "out")])
    assert cli.main() == 0
    assert f"{tmp_path / 'out'} is for labelme; " in capsys.readouterr().out
    assert len(list((tmp_path / "out/films").rglob("*.json"))) == 2
