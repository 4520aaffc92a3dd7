"""The store's folder: round trip, refusals, and replacement as a whole."""

import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest

from pcamx.data.csv_files import csv_rows, relative
from pcamx.data.prepare.store_folder import refuse_foreign
from pcamx.data.store import Film, read_store, write_store
from pcamx.errors import PcamxError
from pcamx.output import refuse_anything, replacing_files, replacing_folder, written


def film(path: str = "a/b, c.png", **other: object) -> Film:
    values: dict[str, object] = dict(
        path=path,
        label=1,
        patient="p1",
        study="p1/s1",
        part="XR_WRIST",
        split="train",
        width=12,
        height=9,
        white=4095,
        mark="",
    )
    return Film(**(values | other))  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    films = [film(), film("é.png", label=0, split="valid", white=255, part="")]
    with replacing_folder(tmp_path / "store", refuse_foreign) as draft:
        write_store(draft, tmp_path, films, mean=40.5, std=1 / 3, quarantine=[("x.png", "empty")])
    return tmp_path / "store"


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_store_reads_back_as_written(store: Path) -> None:
    found = read_store(store)
    assert found.films == (
        film(),
        film("é.png", label=0, split="valid", white=255, part=""),
    )
    assert (found.root, found.mean, found.std) == (store.parent, 40.5, 1 / 3)
    assert found.split("valid") == found.films[1:] and found.split("test") == ()
    assert (store / "quarantine.csv").read_text() == "path,reason\nx.png,empty\n"
    counts = json.loads((store / "store.json").read_text())["counts"]
    assert counts == {"train": 1, "valid": 1, "test": 0, "marked": 0, "quarantined": 1}


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("manifest.csv", "4095", "12", "line 2: white is '12'"),
        ("manifest.csv", ",1,p1", ",2,p1", "line 2: label is 2"),
        ("manifest.csv", "valid", "dev", "line 3: split is 'dev'"),
        ("manifest.csv", "a/b, c.png", "../b.png", "line 2: path ../b.png leaves"),
        ("manifest.csv", "4095,\n", "4095,/etc/x.png\n", "line 2: path /etc/x.png leaves"),
        ("manifest.csv", "4095,\n", "4095,marks/x.png\n", "mask marks/x.png is missing"),
        ("manifest.csv", "4095,\n", f"4095,{'x' * 300}.png\n", "mask x+.png is missing"),
        ("manifest.csv", "é.png", "a/b, c.png", "fields expected|twice"),
        ("manifest.csv", "label,", "lable,", "line 1 must be path,label"),
        ("manifest.csv", "é.png,0,p1,p1/s1,,valid,12,9,255,\n", "", "1 films, store.json says 2"),
        ("store.json", '"format": 1', '"format": 9', "format 9, this pcamx reads 1"),
        ("store.json", "40.5", "NaN", "damaged"),
        ("store.json", "{", "[", "damaged"),
    ],
)
def test_a_store_changed_by_hand_is_refused(
    store: Path, file: str, old: str, new: str, message: str
) -> None:
    edit(store / file, old, new)
    with pytest.raises(PcamxError, match=message) as error:
        read_store(store)
    assert "\n" not in str(error.value) and str(store) in str(error.value)


def test_no_store_no_folder_no_root(store: Path, tmp_path: Path) -> None:
    with pytest.raises(PcamxError, match="no such folder; make one with: pcamx prepare"):
        read_store(tmp_path / "none")
    with pytest.raises(PcamxError, match="not a store"):
        read_store(tmp_path)
    edit(store / "store.json", str(tmp_path), str(tmp_path / "gone"))
    with pytest.raises(PcamxError, match="gone: the films of store"):
        read_store(store)
    edit(store / "store.json", "gone", "g" * 300)
    with pytest.raises(PcamxError, match="ggg: the films of store"):
        read_store(store)


def test_replacing_keeps_the_old_store_when_the_block_fails(store: Path) -> None:
    before = {file.name: file.read_bytes() for file in store.iterdir()}
    with pytest.raises(PcamxError, match="No space left on device; nothing was written"):
        with replacing_folder(store, refuse_foreign) as draft:
            (draft / "manifest.csv").write_text("half")
            raise OSError(28, "No space left on device")
    assert {file.name: file.read_bytes() for file in store.iterdir()} == before
    assert [item.name for item in store.parent.iterdir()] == ["store"]


def test_a_store_makes_way_from_one_moment_to_the_next(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two renames, a kill would leave no store."""

    def replace(*_: object) -> None:
        raise AssertionError

    with replacing_folder(store, refuse_foreign) as draft:
        write_store(draft, store.parent, [], mean=1, std=1)
        monkeypatch.setattr("pcamx.output.os.replace", replace)
    assert read_store(store).films == ()
    assert [item.name for item in store.parent.iterdir()] == ["store"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_stop_waits_for_a_store_to_be_replaced(
    store: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:  # as on a network's file system
        monkeypatch.setattr("pcamx.output._exchange", lambda *_: False)
    asked: list[Path] = []

    def may_replace(folder: Path) -> None:
        asked.append(folder)
        if len(asked) == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), replacing_folder(store, may_replace) as draft:
        write_store(draft, store.parent, [], mean=1, std=1)
    assert read_store(store).films == () and written[-1] == store
    assert [item.name for item in store.parent.iterdir()] == ["store"]


def test_replacing_puts_the_old_store_back_when_the_swap_fails(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace
    calls: list[Path] = []

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr("pcamx.output._exchange", lambda *_: False)
    monkeypatch.setattr("pcamx.output.os.replace", replace)
    with (
        pytest.raises(PcamxError, match="Input/output error"),
        replacing_folder(store, refuse_foreign) as draft,
    ):
        write_store(draft, store.parent, [], mean=1, std=1)
    assert len(read_store(store).films) == 2
    assert [item.name for item in store.parent.iterdir()] == ["store"]


@pytest.mark.parametrize("at", ["the end", "the rename"])
def test_what_another_process_put_there_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    out, real = tmp_path / "out", os.replace

    def fill() -> None:
        out.mkdir()
        (out / "run").write_text("another's")

    def replace(source: Path, target: Path) -> None:
        if at == "the rename":
            fill()
        real(source, target)

    monkeypatch.setattr("pcamx.output.os.replace", replace)
    with (
        pytest.raises(PcamxError, match="out: there is something already; name a new folder"),
        replacing_folder(out, refuse_anything),
    ):
        if at == "the end":
            fill()
    assert (out / "run").read_text() == "another's" and os.listdir(tmp_path) == ["out"]


def test_replacing_files_names_the_file_that_was_to_be(tmp_path: Path) -> None:
    for name in ("films.csv", "report.json"):
        with pytest.raises(PcamxError) as caught, replacing_files(tmp_path) as draft:
            if name == "films.csv":
                raise OSError(28, "No space left on device", str(draft / name))
            raise PcamxError(f"cannot write {draft / name}: No space left on device")
        assert str(caught.value) == f"cannot write {tmp_path / name}: No space left on device"


def test_a_stop_waits_for_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that tells readers of a mixture goes first."""
    real, moved = os.replace, []

    def replace(source: Path, target: Path) -> None:
        if source.parent != tmp_path and source.parent.parent == tmp_path:
            moved.append(target.name)
            signal.raise_signal(signal.SIGINT) if len(moved) == 1 else None
        real(source, target)

    (tmp_path / "films").mkdir()
    (tmp_path / "films/old").write_text("")
    monkeypatch.setattr("pcamx.output.os.replace", replace)
    with pytest.raises(KeyboardInterrupt), replacing_files(tmp_path, first="films.csv") as draft:
        (draft / "films").mkdir()
        for name in ("films/new", "films.csv", "a.html"):
            (draft / name).write_text("new")
    assert moved == ["films.csv", "a.html"] and written[-1] == tmp_path / "films"
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")} == {
        *("films", "films/new", "films.csv", "a.html")
    }


@pytest.mark.parametrize("kill_at", range(5))
def test_what_people_look_at_is_never_beside_files_of_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    """A killed process moves no more: then a page is there with its files, or it is not there."""
    for name in ("films.csv", "films.html", "report.html", "report.json", "sheet.png"):
        (tmp_path / name).write_text("old")
    real, moved = os.replace, []

    class KilledError(BaseException):
        pass

    def replace(source: Path, target: Path) -> None:
        if len(moved) == kill_at:
            raise KilledError
        moved.append(target.name)
        real(source, target)

    monkeypatch.setattr("pcamx.output.os.replace", replace)
    seen = ("sheet.png", "films.html", "report.html")  # no sheet this time
    with pytest.raises(KilledError) if kill_at < 4 else nullcontext():
        with replacing_files(tmp_path, "films.csv", seen) as draft:
            for name in ("films.csv", "films.html", "report.html", "report.json"):
                (draft / name).write_text("new")
    assert moved == ["films.csv", "report.json", "films.html", "report.html"][:kill_at]
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    files = {left["films.csv"], left["report.json"]}
    assert all({left[name]} == files for name in seen if name in left)
    assert "sheet.png" not in left and ("films.html" in left) == (kill_at > 2)


def test_a_folder_is_not_lost_to_a_file_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "films.csv").mkdir()
    (tmp_path / "films.csv/mine").write_text("")
    with pytest.raises(PcamxError, match="Is a directory"), replacing_files(tmp_path) as draft:
        (draft / "films.csv").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["films.csv", "mine"]


def test_replacing_touches_nothing_that_is_not_a_store(store: Path, tmp_path: Path) -> None:
    (store / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.csv").write_text("mine")
    for name, message in (("store", "holds notes.txt"), ("file", "is a file"), ("other", "not a")):
        with (
            pytest.raises(PcamxError, match=message),
            replacing_folder(tmp_path / name, refuse_foreign),
        ):
            pass
    assert (store / "notes.txt").read_text() == "mine"
    assert (tmp_path / "other" / "manifest.csv").read_text() == "mine"


def test_a_mask_that_somebody_drew_into_a_store_stays(store: Path) -> None:
    (store / "marks/a").mkdir(parents=True)
    (store / "marks/a/b.png").write_text("the mask")
    with pytest.raises(PcamxError, match=r"not a store \(it holds marks/a/b.png\)"):
        refuse_foreign(store)
    edit(store / "manifest.csv", "4095,\n", "4095,marks/a/b.png\n")
    refuse_foreign(store)


def test_csv_rows_with_bom_blank_lines_and_line_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b'\xef\xbb\xbfx, y\r\n\r\n"1\n2",3\n')
    assert list(csv_rows(file)) == [(1, ["x", "y"]), (4, ["1\n2", "3"])]
    file.write_bytes(b"x\n\xff\n")
    with pytest.raises(PcamxError, match="not UTF-8"):
        list(csv_rows(file))
    file.write_bytes(b'x\n"a"b\n')
    with pytest.raises(PcamxError, match="after line 1: not a valid csv"):
        list(csv_rows(file))
    with pytest.raises(PcamxError, match="No such file"):
        list(csv_rows(tmp_path / "none.csv"))


def test_relative_paths_stay_inside() -> None:
    assert relative("./a//b.png") == "a/b.png"
    for bad in ("", ".", "/a.png", "../a.png", "a/../b.png", "a\0b"):
        with pytest.raises(PcamxError):
            relative(bad)
