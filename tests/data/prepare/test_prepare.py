"""The whole of `pcamx prepare`, on small folders."""

import csv
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pcamx import cli
from pcamx.data.prepare.draw_marks import MarkTally
from pcamx.data.prepare.store_builder import prepare
from pcamx.data.prepare.summary import Summary
from pcamx.data.store import read_store
from pcamx.errors import PcamxError
from pcamx.output import replacing_folder

ROWS = [
    ("a/n1.png", 0, "train", "p1"),
    ("a/n2.png", 0, "train", "p2"),
    ("a/x1.png", 1, "train", "p3"),
    ("a/x2.png", 1, "train", "p4"),
    ("a/n3.png", 0, "valid", "p5"),
    ("a/x3.png", 1, "test", "p6"),
    ("a/bad.png", 1, "train", "p7"),
    ("a/gone.png", 0, "valid", "p8"),
]


def test_no_film_can_be_read(tmp_path: Path) -> None:
    """The commonest mistake: paths written from the working directory."""
    (tmp_path / "f.csv").write_text("path,label,split\nreal/a.png,0,train\nreal/b.png,1,train\n")
    with pytest.raises(PcamxError, match="^(?!.*reshape).*quarantine|no "):
        prepare(tmp_path, tmp_path / "out", table=tmp_path / "f.csv", workers=1)


def films(root: Path, rows: list[tuple[str, int, str, str]]) -> None:
    """Film k is 16 x 12 (upper half of grey 40 k), those named bad are text, gone is missing."""
    for k, (path, *_) in enumerate(rows):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if "bad" in path:
            file.write_text("text")
        elif "gone" not in path:
            levels = np.zeros((12, 16), np.uint8)
            levels[:6] = 40 * k % 256
            Image.fromarray(levels).save(file)
    with (root / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("path", "label", "split", "patient"), *rows])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    films(tmp_path / "set", ROWS)
    return tmp_path / "set"


def mask(file: Path, lit: bool = True) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((12, 16), np.uint8)
    pixels[2:4, 3:5] = lit
    Image.fromarray(pixels).save(file)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_the_store_by_hand(root: Path, tmp_path: Path) -> None:
    for name in ("x1", "x3", "n1", "bad"):
        mask(tmp_path / "masks" / "a" / f"{name}.png")
    mask(tmp_path / "masks" / "a" / "x2.png", lit=False)
    seen: list[tuple[str, int, int]] = []

    def track(work: Iterable[object], what: str, total: int) -> Iterator[object]:
        items = list(work)
        seen.append((what, total, len(items)))
        return iter(items)

    out = tmp_path / "store"
    found = prepare(root, out, marks=tmp_path / "masks", workers=1, track=track)  # type: ignore[arg-type]
    # Half of each film is black, half 0, 40, 80, 120: means 0, 20, 40, 60.
    squares = np.mean([0, 40**2 / 2, 80**2 / 2, 120**2 / 2])
    assert found == Summary(
        counts={"train": (2, 2), "valid": (1, 0), "test": (0, 1)},
        quarantined=2,
        missing={"valid": 1},
        marks=MarkTally(2, ("a/n1.png",), ("a/x2.png",), ("a/bad.png",)),
        mean=30.0,
        std=float(np.sqrt(squares - 30.0**2)),
    )
    assert seen == [("checking films", 8, 8), ("reading marks", 5, 5), ("drawing marks", 5, 5)]
    store = read_store(out)
    assert (store.root, store.mean, store.std) == (root, found.mean, found.std)
    assert [film.path for film in store.films] == [row[0] for row in ROWS[:6]]
    assert [film.mark for film in store.films if film.mark] == [
        "marks/a/x1.png.png",
        "marks/a/x3.png.png",
    ]
    with Image.open(out / "marks/a/x1.png.png") as image:
        drawn = np.asarray(image)
    assert drawn.sum() == 4 * 255 and drawn[2:4, 3:5].all()
    film = store.films[2]
    assert (film.width, film.height, film.white, film.study) == (16, 12, 255, "p3")
    rows = list(csv.reader((out / "quarantine.csv").open()))
    assert rows[1:] == [
        ["a/bad.png", "not an image, or one with a damaged header"],
        ["a/gone.png", "missing"],
    ]


def test_marks_that_are_not_used_are_named() -> None:
    normal = tuple(f"n{k}.png" for k in range(12))
    named = "; ".join(normal[:10])
    assert MarkTally(on_normal=normal, empty=("x.png",)).dropped() == [
        f"12 marks on films labelled normal, not used: {named} and 2 more",
        "1 empty marks, not used: x.png",
    ]
    assert MarkTally(used=3).dropped() == []


def test_marks_to_look_at_are_named(root: Path, tmp_path: Path) -> None:
    """A mask that is a negative, and marks of films on their head, on which no size tells."""
    for name in ("x1", "x3"):
        mask(tmp_path / "masks" / "a" / f"{name}.png")
    with Image.open(tmp_path / "masks/a/x1.png") as image:
        negative = np.where(np.asarray(image), 0, 255).astype(np.uint8)
    negative[0] = 0
    Image.fromarray(negative).save(tmp_path / "masks/a/x1.png")
    turned = Image.Exif()
    turned[0x0112] = 3
    with Image.open(root / "a/x3.png") as image:
        image.load()
    image.save(root / "a/x3.png", exif=turned)
    notes = prepare(root, tmp_path / "store", marks=tmp_path / "masks", workers=1).marks.notes
    assert notes == (
        "1 masks over half of a film or all of its border, as the negative of one is; look at them "
        "with pcamx marks check, and save them with the lesion in white: a/x1.png, film a/x1.png",
        "1 marked films that EXIF turns, drawn before or after that, which their size does not "
        "tell; look at them with pcamx marks check: a/x3.png",
    )


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path) -> None:
    rows = [(f"{k}.png", k % 2, "train", f"p{k}") for k in range(6)]
    films(tmp_path / "set", rows)
    for workers in (1, 3):
        prepare(tmp_path / "set", tmp_path / f"store{workers}", workers=workers)
    assert snapshot(tmp_path / "store1") == snapshot(tmp_path / "store3")


def test_mura_is_recognised_and_the_store_may_lie_inside(tmp_path: Path) -> None:
    root = tmp_path / "any name"
    for split, patient in (("train", 1), ("valid", 3)):
        images, studies = [], []
        for label, word in enumerate(("negative", "positive")):
            study = f"{split}/XR_HAND/patient{patient + label:05d}/study1_{word}"
            images.append(f"MURA-v1.1/{study}/image1.png")
            studies.append(f"MURA-v1.1/{study}/,{label}")
            (root / study).mkdir(parents=True)
            levels = np.arange(144, dtype=np.uint8).reshape(12, 12)
            Image.fromarray(levels).save(root / study / "image1.png")
        (root / f"{split}_image_paths.csv").write_text("\n".join(images))
        (root / f"{split}_labeled_studies.csv").write_text("\n".join(studies))
    found = prepare(root, root / "store", workers=1)
    assert found.counts == {"train": (1, 1), "valid": (1, 1)}
    assert read_store(root / "store").films[1].study == "train/XR_HAND/patient00002/study1"
    prepare(root, root / "store", workers=1)  # over the old one


def assert_refused(message: str, *args: Path, **options: object) -> str:
    with pytest.raises(PcamxError, match=message) as error:
        prepare(*args, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_patients_in_two_splits(tmp_path: Path) -> None:
    rows = [
        (f"{split}{k}.png", 0, split, f"p{k}") for split in ("train", "valid") for k in range(7)
    ]
    films(tmp_path / "set", rows)
    text = assert_refused(
        "7 patients are in more than one split", tmp_path / "set", tmp_path / "out"
    )
    assert "p0, p1, p2, p3, p4 and 2 more; of p0 train0.png is in train (" in text
    assert "line 2) and valid0.png in valid (" in text and "line 9); put all films" in text
    assert not (tmp_path / "out").exists()


def test_one_class_or_nothing_to_train_on(tmp_path: Path) -> None:
    root = tmp_path / "set"
    films(root, [("n.png", 0, "train", "p"), ("bad.png", 1, "train", "q")])
    text = assert_refused("no abnormal film is left to train on", root, tmp_path / "out", workers=1)
    assert f"(1 unusable, the first: {root / 'bad.png'}: not an image" in text
    films(root, [("flat.png", 0, "train", "p"), ("flat2.png", 1, "train", "q")])
    Image.new("L", (16, 12)).save(root / "flat2.png")
    assert_refused("one flat grey", root, tmp_path / "out", workers=1)
    assert list(tmp_path.iterdir()) == [root]


def test_folders_that_cannot_be(root: Path, tmp_path: Path) -> None:
    assert_refused("no such folder", tmp_path / "none", tmp_path / "out")
    assert_refused("is the data folder itself", root, root)
    (tmp_path / "plain").mkdir()
    assert_refused(
        "neither a MURA-v1.1 folder .* nor one with labels.csv; .* path and label, .*--table",
        tmp_path / "plain",
        tmp_path / "out",
    )
    assert_refused("No such file", root, tmp_path / "out", table=tmp_path / "none.csv")
    assert_refused("workers is 0", root, tmp_path / "out", workers=0)
    before = snapshot(root)
    assert_refused("not empty and not a store", root, root / "a")
    assert_refused("is a file", root, root / "labels.csv")
    assert_refused("holds the data folder", root, tmp_path)
    assert snapshot(root) == before


def test_links_that_lead_out(root: Path, tmp_path: Path) -> None:
    Image.new("L", (16, 12)).save(tmp_path / "secret.png")
    (root / "a" / "n2.png").unlink()
    (root / "a" / "n2.png").symlink_to("n1.png")  # inside: fine
    (root / "a" / "x1.png").unlink()
    (root / "a" / "x1.png").symlink_to(tmp_path / "secret.png")
    assert_refused("line 4: a/x1.png is a link that leaves", root, tmp_path / "out")
    (root / "a" / "x1.png").unlink()
    (root / "a").rename(tmp_path / "b")
    (root / "a").symlink_to(tmp_path / "b")
    assert_refused("line 2: a/n1.png is a link that leaves", root, tmp_path / "out")


def test_a_wrong_mark_leaves_the_old_store(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    prepare(root, out, workers=1)
    before = snapshot(out)
    mask(tmp_path / "masks" / "a" / "n9.png")
    assert_refused(
        "not films of this data set, not used: a/n9.png",
        root,
        out,
        marks=tmp_path / "masks",
        workers=1,
    )
    assert snapshot(out) == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["masks", "set", "store"]


def test_another_store_in_its_place_is_said(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    assert prepare(root, out, workers=1).notes == prepare(root, out, workers=1).notes
    mask(tmp_path / "masks" / "a" / "x1.png")
    marked = prepare(root, out, marks=tmp_path / "masks", workers=1)
    assert f"warning: {out} held a store of other films, splits or marks" in marked.notes[-1]
    (out / "store.json").write_text("{")  # damaged: nothing is known of it
    assert not any("held a store" in note for note in prepare(root, out, workers=1).notes)


def test_what_is_to_be_known_of_the_marks(root: Path, tmp_path: Path) -> None:
    images = [
        {"id": k, "file_name": name, "width": width, "height": 28 - width}
        for k, (name, width) in enumerate((("x1.png", 16), ("x2.png", 12), ("y.png", 16)))
    ]
    marks = [{"id": k, "image_id": k, "bbox": [3, 2, 2, 2]} for k in range(3)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": marks}))
    found = prepare(root, tmp_path / "store", marks=tmp_path / "coco.json", workers=1)
    assert found.marks.used == 1
    boxes, unknown, frame = found.marks.notes
    assert boxes == "boxes taken as filled rectangles: 1"
    assert unknown == "1 images that are not films of this data set, not used: y.png"
    assert "EXIF" in frame and "x2.png is 12 x 16 there" in frame
    with Image.open(tmp_path / "store/marks/a/x1.png.png") as image:
        drawn = np.asarray(image)
    assert drawn.sum() == 4 * 255 and drawn[2:4, 3:5].all()


def test_several_marks_and_chosen_classes_as_a_user_gives_them(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "yolo").mkdir()
    box = f"{4 / 16} {3 / 12} {2 / 16} {2 / 12}"
    (tmp_path / "yolo" / "x1.txt").write_text(f"3 {box}\n8 0.9 0.9 0.1 0.1\n")
    mask(tmp_path / "masks" / "a" / "x3.png")

    def pcamx(*words: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["pcamx", "prepare", str(root), *map(str, words)])
        code = cli.main()
        return code, "".join(capsys.readouterr())

    out, marks = ("--out", tmp_path / "store"), ("--marks", tmp_path / "yolo")
    code, said = pcamx(*out, "--labels", "3")
    assert code == 2 and "--labels chooses among the classes of marks" in said
    code, said = pcamx(*out, *marks)
    assert code == 2 and "yolo: marks of 2 classes, 3 1, 8 1; say which are lesions" in said
    code, said = pcamx(*out, *marks, "--marks", tmp_path / "masks", "--labels", "3")
    assert code == 0 and "marked: 2;" in said, said
    assert "classes taken as lesions: 3 1" in said and "not chosen, not used: 8 1" in said
    for name in ("x1", "x3"):
        with Image.open(tmp_path / "store" / "marks" / "a" / f"{name}.png.png") as image:
            drawn = np.asarray(image)
        assert drawn.sum() == 4 * 255 and drawn[2:4, 3:5].all()


FULL_DISK = """
import resource, sys
from pathlib import Path
from pcamx.data.prepare.store_builder import prepare
from pcamx.errors import PcamxError
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
    try:
        prepare(Path(sys.argv[1]), Path(sys.argv[2]), workers=1)
    except PcamxError as error:
        sys.exit(str(error))
"""


def test_a_full_disk_leaves_the_old_store(root: Path, tmp_path: Path) -> None:
    out, script = tmp_path / "store", tmp_path / "script.py"
    prepare(root, out, workers=1)
    before = snapshot(out)
    script.write_text(FULL_DISK)
    run = subprocess.run(
        [sys.executable, script, root, out], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr == f"{out}: File too large; nothing was written to {out}\n"
    assert snapshot(out) == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["script.py", "set", "store"]


def test_a_checking_process_that_dies(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory runs out the system kills a worker; the message says where it stood."""
    monkeypatch.setattr("pcamx.processes.begin", _die)
    assert_refused("n1.png: a process died", root, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def _die() -> None:
    os._exit(1)


def test_what_a_killed_process_left(tmp_path: Path) -> None:
    """Killed between two renames, the folder is put back; another's drafts stay."""
    with subprocess.Popen(["true"]) as gone:
        pass
    host = socket.gethostname()
    for name in (f"{host}.{gone.pid}.old", f"{host}.{gone.pid}.draft", f"{host}.1.draft"):
        (tmp_path / f".out.{name}").mkdir()
    (tmp_path / f".out.{host}.{gone.pid}.old/file").write_text("kept")
    (tmp_path / f".out.else.{gone.pid}.draft").mkdir()
    with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "out", lambda folder: None):
        raise KeyboardInterrupt
    assert (tmp_path / "out/file").read_text() == "kept"
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"out", f".out.{host}.1.draft", f".out.else.{gone.pid}.draft"}
