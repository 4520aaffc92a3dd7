"""`prepare --transcode`: what DALI shows of the films afterwards, against what it showed before."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcamx.data.canvas.decode import decode_batches
from pcamx.data.marks.names import Names
from pcamx.data.prepare.parity import compare
from pcamx.data.prepare.store_builder import prepare
from pcamx.data.prepare.summary import Summary
from pcamx.data.prepare.transcode import _names
from pcamx.data.store import Film, Store, read_store
from pcamx.errors import PcamxError
from pcamx.progress import silent

CPU = torch.device("cpu")


def picture(w: int, h: int, seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((w, h), Image.Resampling.BICUBIC))


def turned(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = turn
    return exif


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sound films of every kind, upright 40 x 60 or 60 x 40, and one that is text."""
    root = tmp_path_factory.mktemp("data") / "set"
    (root / "a").mkdir(parents=True)
    grey = Image.fromarray(picture(60, 40, 0))
    colour = Image.merge("RGB", [Image.fromarray(picture(60, 40, k)) for k in (1, 2, 3)])
    grey.save(root / "a/grey.png")
    colour.save(root / "a/colour.png")
    grey.save(root / "a/turned.jpg", quality=90, exif=turned(6))
    colour.save(root / "a/turned.png", exif=turned(8))
    Image.fromarray(picture(60, 40, 4).astype(np.uint16) * 16 + 7).save(root / "a/deep.png")
    Image.fromarray(picture(40, 60, 5)).save(root / "a/x é.png")
    (root / "a/bad.png").write_text("text")
    names = ["grey.png", "colour.png", "turned.jpg", "turned.png", "deep.png", "x é.png", "bad.png"]
    rows = [f"a/{name},{k % 2},{'train' if k < 4 else 'valid'}" for k, name in enumerate(names)]
    (root / "labels.csv").write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    mask = np.zeros((60, 40), np.uint8)
    mask[5:15, 20:30] = 255
    (root.parent / "masks/a").mkdir(parents=True)
    Image.fromarray(mask).save(root.parent / "masks/a/turned.png")
    return root


def prepared(root: Path, out: Path, kind: str | None) -> tuple[Store, Summary]:
    found = prepare(root, out, marks=root.parent / "masks", transcode=kind, workers=1)  # type: ignore[arg-type]
    return read_store(out), found


def canvases(store: Store, split: str, side: int = 48) -> torch.Tensor:
    films = store.split(split)
    (found,) = decode_batches(store.root, films, [range(len(films))], side, device=CPU, threads=1)
    return found


@pytest.fixture(scope="module")
def plain(root: Path) -> Store:
    return prepared(root, root.parent / "plain", None)[0]


@pytest.fixture(scope="module")
def made(root: Path) -> dict[str, tuple[Store, Summary]]:
    before = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    made = {kind: prepared(root, root.parent / kind, kind) for kind in ("htj2k", "jpeg")}
    assert before == {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    return made


@pytest.mark.parametrize("split", ["train", "valid"])
def test_htj2k_gives_the_same_canvases_to_the_bit(
    plain: Store, made: dict[str, tuple[Store, Summary]], split: str
) -> None:
    store, found = made["htj2k"]
    for side in (48, 160):
        assert torch.equal(canvases(plain, split, side), canvases(store, split, side))
    parity = found.parity
    assert parity is not None and parity.on_films is parity.on_canvas is None
    assert (parity.format, parity.films, parity.deeper_than_8_bits) == ("htj2k", 6, 1)


@pytest.mark.parametrize(("kind", "suffix"), [("htj2k", ".j2c"), ("jpeg", ".jpg")])
def test_only_the_path_and_jpegs_depth_change(
    plain: Store, made: dict[str, tuple[Store, Summary]], kind: str, suffix: str
) -> None:
    store, found = made[kind]
    assert store.root == store.folder / "films" and store.folder != plain.folder
    white = 255 if kind == "jpeg" else None
    names = ("grey", "colour", "turned.jpg", "turned.png", "deep", "x é")
    assert store.films == tuple(
        dataclasses.replace(film, path=f"a/{name}{suffix}", white=white or film.white)
        for film, name in zip(plain.films, names, strict=True)
    )
    assert (store.mean, store.std) == (plain.mean, plain.std)
    assert (found.quarantined, found.marks.used) == (1, 1)
    assert [film.path for film in store.films if film.mark] == [f"a/turned.png{suffix}"]
    on_disk = sorted(path.relative_to(store.root).as_posix() for path in store.root.rglob("*.*"))
    assert on_disk == sorted(film.path for film in store.films)
    parity = found.parity
    assert parity is not None
    assert parity.bytes_before == sum((plain.root / f.path).stat().st_size for f in plain.films)
    assert parity.bytes_after == sum((store.root / f.path).stat().st_size for f in store.films)


def test_jpegs_are_grey_and_baseline(
    made: dict[str, tuple[Store, Summary]], tmp_path: Path
) -> None:
    store, _ = made["jpeg"]
    Image.new("L", (8, 8)).save(tmp_path / "95.jpg", quality=95)
    with Image.open(tmp_path / "95.jpg") as image:
        tables = image.quantization  # type: ignore[attr-defined]
    for film in store.films:
        data = (store.root / film.path).read_bytes()
        with Image.open(store.root / film.path) as image:
            assert (image.format, image.mode, image.size) == (
                "JPEG",
                "L",
                (film.width, film.height),
            )
            assert image.quantization == tables  # type: ignore[attr-defined]
        assert b"\xff\xc0" in data and b"\xff\xc2" not in data  # SOF0, not the progressive SOF2


def upright(path: Path) -> np.ndarray:
    """By Pillow; deep greys scaled to 8 bits."""
    with Image.open(path) as image:
        deep = image.mode.startswith("I")
        grey = np.asarray(image if deep else image.convert("L")).astype(float)
        turn = image.getexif().get(0x112, 1)
    if deep:
        grey = np.rint(grey * 255 / 4095)
    return np.rot90(grey, {1: 0, 6: -1, 8: 1}[turn])


def test_jpegs_error_by_hand(plain: Store, made: dict[str, tuple[Store, Summary]]) -> None:
    store, found = made["jpeg"]
    pairs = zip(plain.films, store.films, strict=True)
    apart = [upright(plain.root / a.path) - upright(store.root / b.path) for a, b in pairs]
    off = np.abs(np.concatenate([one.ravel() for one in apart]))
    assert found.parity is not None and found.parity.on_films is not None
    # Pillow's luma of a colour film, and its inverse cosine transform, round in their own way.
    assert 0.1 < found.parity.on_films.mean == pytest.approx(off.mean(), abs=0.1)
    assert found.parity.on_films.p999 == pytest.approx(np.quantile(off, 0.999), abs=1)
    assert found.parity.on_films.max == pytest.approx(off.max(), abs=1)
    on_canvas = [np.abs(canvases(s, "valid").int().numpy()) for s in (plain, store)]
    assert 0 < np.abs(on_canvas[0] - on_canvas[1]).max() <= 8
    tree = json.loads((store.folder / "transcode_report.json").read_text())
    assert tree["on_films"]["mean"] == found.parity.on_films.mean
    page = (store.folder / "transcode_report.md").read_text()
    assert "1 films deeper than 8 bits were scaled" in page and "pcamx evaluate RUN" in page


def test_a_grey_level_off_in_a_copy_is_found(
    plain: Store, made: dict[str, tuple[Store, Summary]], tmp_path: Path
) -> None:
    """One pixel of the deep film, by one of its 4096 levels."""
    import imagecodecs

    store, _ = made["htj2k"]
    shutil.copytree(store.root, tmp_path / "films")
    copy = dataclasses.replace(store, root=tmp_path / "films", contents={})
    assert compare(plain, copy, "htj2k", silent).on_films is None
    deep = next(film for film in store.films if film.white == 4095)
    grey = imagecodecs.htj2k_decode((copy.root / deep.path).read_bytes()).copy()
    grey[3, 5] += 1
    (copy.root / deep.path).write_bytes(imagecodecs.htj2k_encode(grey))
    with pytest.raises(PcamxError, match=r"a/deep\.png: DALI decodes other grey levels"):
        compare(plain, copy, "htj2k", silent)


def test_difference_by_hand(tmp_path: Path) -> None:
    """One pixel in 2,000 off by 9, half of the others by 1; the canvases' error is its own."""
    grey = np.full((40, 50), 100, np.uint8)
    other = grey.copy()
    other[:20] += 1
    other[30, 7] += 9
    for folder, levels in (("before", grey), ("after", other)):
        (tmp_path / folder).mkdir()
        Image.fromarray(levels).save(tmp_path / folder / "a.png")
    film = Film("a.png", 0, "p", "s", "", "train", 50, 40, 255, "")
    before, after = (
        Store(tmp_path, tmp_path / name, (film,), 0.0, 1.0) for name in ("before", "after")
    )
    found = compare(before, after, "jpeg", silent).on_films
    assert found is not None
    assert (found.mean, found.p999, found.max) == (pytest.approx((1000 + 9) / 2000), 1, 9)


def test_names_are_never_two_films() -> None:
    found = _names(["a.png", "a.jpg", "b/a.png", "c", "d.1", "d.2"], ".j2c")
    assert found == ["a.png.j2c", "a.jpg.j2c", "b/a.j2c", "c.j2c", "d.1.j2c", "d.2.j2c"]
    mean = ["a.png", "a.jpg", "a.png.tif"]
    assert _names(mean, ".j2c") == [name + ".j2c" for name in mean]


def test_marks_of_the_films_before_find_them(made: dict[str, tuple[Store, Summary]]) -> None:
    store, _ = made["htj2k"]
    names = Names(film.path for film in store.films)
    assert names.find("a/x é.png")[0] == ["a/x é.j2c"]
    assert names.find("grey.png")[0] == ["a/grey.j2c"]


def test_the_store_may_be_moved_and_prepared_over(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    prepared(root, out, "htj2k")
    (out / "cache").mkdir()
    (out / "cache/x.canvases").write_bytes(b"")
    moved = out.rename(tmp_path / "moved")
    store = read_store(moved)
    assert len(canvases(store, "train")) == 4
    assert len(prepared(root, moved, None)[0].films) == 6
    assert not (moved / "films").exists() and not (moved / "cache").exists()


def test_folders_of_these_names_that_are_not_the_stores(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    for folder, name in (("films", "mine.png"), ("cache", "mine.txt")):
        prepared(root, out, None)
        (out / folder).mkdir()
        (out / folder / name).write_text("mine")
        with pytest.raises(PcamxError, match=f"not a store .it holds {folder}"):
            prepared(root, out, None)
        assert (out / folder / name).read_text() == "mine"
        shutil.rmtree(out)


def test_films_of_the_store_itself(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    store, _ = prepared(root, out, "jpeg")
    with pytest.raises(PcamxError, match="holds the data folder"):
        prepare(store.root, out, workers=1)
    assert all((store.root / film.path).is_file() for film in store.films)


def test_htj2k_without_its_library(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    with pytest.raises(PcamxError, match=r"pip install 'pcamx\[htj2k\]'"):
        prepared(root, tmp_path / "store", "htj2k")
    assert not (tmp_path / "store").exists()
