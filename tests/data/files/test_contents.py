"""A film, mask or figure that changed after `pcamx prepare` is named before it is used."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcamx import cli
from pcamx.data.canvas.decode import decode_batches
from pcamx.data.contents import check_film, digest_of
from pcamx.data.feed.batches import _masks
from pcamx.data.prepare.store_builder import prepare
from pcamx.data.prepare.verify_store import changed_films
from pcamx.data.store import Store, fingerprint, fingerprints, read_store
from pcamx.errors import PcamxError
from pcamx.run.folder import RunFolder


@pytest.fixture
def folder(phantoms: Path, tmp_path: Path) -> Path:
    """A store of its own films."""
    shutil.copytree(phantoms, tmp_path / "phantoms")
    prepare(
        tmp_path / "phantoms/MURA-v1.1",
        tmp_path / "store",
        marks=tmp_path / "phantoms/marks",
        workers=1,
    )
    return tmp_path / "store"


def decode(store: Store) -> int:
    films = store.split("train")
    batches = [range(i, i + 4) for i in range(0, 8, 4)]
    device = torch.device("cpu")
    decoded = decode_batches(
        store.root, films, batches, 32, device=device, threads=1, contents=store.contents
    )
    return sum(len(canvas_B1HW) for canvas_B1HW in decoded)


def other_pixels(path: Path) -> None:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L")).copy()
    Image.fromarray(255 - pixels).save(path)


def another_size(path: Path) -> None:
    Image.fromarray(np.full((40, 120), 200, np.uint8)).save(path)


def same_size_on_disk(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 255
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


TROUBLE: dict[Callable[[Path], None], str] = {
    other_pixels: "has changed since pcamx prepare",
    another_size: "has changed since pcamx prepare",
    same_size_on_disk: "has changed since pcamx prepare",
    cut_short: "has changed since pcamx prepare",
    lambda path: path.write_bytes(b""): "has changed since pcamx prepare",
    lambda path: path.unlink(): "No such file",
    pipe: "not a file any more",
    folder_instead: "not a file any more",
}


@pytest.mark.parametrize("number", [0, 5])
def test_a_film_that_changed_is_named_before_it_is_decoded(folder: Path, number: int) -> None:
    store = read_store(folder)
    film = store.split("train")[number]
    path = store.root / film.path
    content, times = path.read_bytes(), path.stat()
    for change, message in TROUBLE.items():
        change(path)
        with pytest.raises(PcamxError, match=message) as caught:
            decode(store)
        said = str(caught.value)
        assert said.startswith(f"{path}: ") and said.endswith("run pcamx prepare again")
        assert "\n" not in said
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert decode(store) == 8


def test_a_copied_film_of_another_time_is_known_by_its_content(folder: Path) -> None:
    store = read_store(folder)
    for film in store.films:
        os.utime(store.root / film.path, ns=(1, 1))
    assert decode(store) == 8


def test_films_in_the_store_are_known_as_they_were_written(folder: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "phantoms/MURA-v1.1", tmp_path / "own", transcode="jpeg", workers=1)
    store = read_store(tmp_path / "own")
    assert set(store.contents) == {film.path for film in store.films}
    assert decode(store) == 8
    other_pixels(store.root / store.split("train")[1].path)
    with pytest.raises(PcamxError, match="has changed since pcamx prepare"):
        decode(store)


def test_a_mask_that_changed_or_is_black_is_named(folder: Path) -> None:
    store = read_store(folder)
    film = next(film for film in store.films if film.mark)
    store.check_mark(film)
    mask = store.folder / film.mark
    with Image.open(mask) as image:
        pixels = np.asarray(image)
    Image.fromarray(np.roll(pixels, 1, 0)).save(mask)
    with pytest.raises(PcamxError, match=f"{mask}: has changed since pcamx prepare wrote it"):
        store.check_mark(film)
    Image.fromarray(pixels * 0).save(mask)
    with pytest.raises(PcamxError, match=f"{mask}: all black"):  # also where nothing is known
        _masks(replace(store, contents={}), [film], 32)
    mask.unlink()
    with pytest.raises(PcamxError, match=f"{mask}: not a readable mask"):
        store.check_mark(film)


@pytest.mark.parametrize("key", ["mean", "std"])
def test_numbers_that_do_not_belong_to_the_manifest_are_refused(folder: Path, key: str) -> None:
    head = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(head | {key: head[key] + 1}))
    with pytest.raises(PcamxError, match="do not belong together"):
        read_store(folder)


@pytest.mark.parametrize("name", ["manifest.csv", "content.csv"])
def test_a_table_of_another_store_is_refused(folder: Path, name: str) -> None:
    lines = (folder / name).read_text().splitlines()
    (folder / name).write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    with pytest.raises(PcamxError, match="do not belong together"):
        read_store(folder)


def test_a_damaged_content_table_is_refused(folder: Path) -> None:
    head = json.loads((folder / "store.json").read_text())
    del head["fingerprint"]
    (folder / "store.json").write_text(json.dumps(head))
    for text in ("", "path,bytes\n", "path,bytes,modified_ns,sha256,mark_sha256\na,x,1,,\n"):
        (folder / "content.csv").write_text(text)
        with pytest.raises(PcamxError, match=r"content\.csv: damaged"):
            read_store(folder)


def test_a_store_and_a_run_of_an_earlier_pcamx_are_read(folder: Path, tmp_path: Path) -> None:
    seen = hashlib.sha256((folder / "manifest.csv").read_bytes()).hexdigest()
    head = json.loads((folder / "store.json").read_text())
    assert head.pop("fingerprint") == fingerprint(folder)
    (folder / "store.json").write_text(json.dumps(head))
    (folder / "content.csv").unlink()
    store = read_store(folder)
    assert store.contents == {} and decode(store) == 8
    marked = next(film for film in store.films if film.mark)
    store.check_mark(marked)
    pipe(store.root / store.split("train")[0].path)
    with pytest.raises(PcamxError, match="not a file any more"):
        decode(store)
    (tmp_path / "store.sha256").write_text(seen + "\n")
    RunFolder(tmp_path).check_store(folder)


def test_a_run_knows_its_stores_scale_and_contents(folder: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_origin(folder)
    run.check_store(folder)
    head = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(head | {"mean": head["mean"] + 1}))
    with pytest.raises(PcamxError, match="prepared anew since"):
        run.check_store(folder)


def test_a_store_of_films_that_were_copied_is_the_same(folder: Path, tmp_path: Path) -> None:
    """Prepared anew where the files have other times: what is in them counts."""
    run, before = RunFolder(tmp_path), fingerprint(folder)
    run.write_origin(folder)
    root = read_store(folder).root
    for film in read_store(folder).films:
        os.utime(root / film.path, ns=(1, 1))
    prepare(root, folder, table=None, marks=root.parent / "marks", workers=1)
    assert list(fingerprints(folder))[0] == before != list(fingerprints(folder))[1]
    run.check_store(folder)
    other_pixels(root / read_store(folder).films[0].path)
    prepare(root, folder, table=None, marks=root.parent / "marks", workers=1)
    assert fingerprint(folder) != before
    with pytest.raises(PcamxError, match="prepared anew since"):
        run.check_store(folder)


def test_a_fingerprint_of_an_earlier_pcamx_had_the_times_in_it(
    folder: Path, tmp_path: Path
) -> None:
    head, earlier = json.loads((folder / "store.json").read_text()), list(fingerprints(folder))[1]
    (folder / "store.json").write_text(json.dumps(head | {"fingerprint": earlier}))
    assert read_store(folder).films
    (tmp_path / "store.sha256").write_text(earlier + "\n")
    RunFolder(tmp_path).check_store(folder)


def test_the_digest_of_some_films(folder: Path) -> None:
    """Of which there are and what is in each, in any order; not of when they were changed."""
    contents = read_store(folder).contents
    one, two, *_ = films = sorted(contents)
    whole = digest_of(contents, films)
    assert whole is not None and whole == digest_of(contents, films[::-1])
    assert digest_of(contents, films[1:]) != whole
    swapped = contents | {one: contents[two], two: contents[one]}
    assert digest_of(swapped, films) != whole
    later = {film: content._replace(modified_ns=1) for film, content in contents.items()}
    assert digest_of(later, films) == whole
    assert digest_of({}, films) is None


def test_contents_ride_in_the_store(folder: Path) -> None:
    store = read_store(folder)
    film = store.films[0]
    content = (store.root / film.path).read_bytes()
    known = store.contents[film.path]
    assert known.sha256 == hashlib.sha256(content).hexdigest() and known.bytes == len(content)
    assert replace(store, contents={}).films == store.films


def test_a_mask_replaced_by_a_pipe_is_said(folder: Path) -> None:
    """Opening one would wait for ever."""
    store = read_store(folder)
    film = next(film for film in store.films if film.mark)
    (folder / film.mark).unlink()
    os.mkfifo(folder / film.mark)
    with pytest.raises(PcamxError, match=r"not a readable mask \(not a file\)"):
        store.check_mark(film)


def test_verify_reads_what_size_and_time_do_not_tell(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verify(*words: object) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, "argv", ["pcamx", "prepare", *map(str, words), "--verify"])
        code = cli.main()
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    store = read_store(folder)
    code, lines, _ = verify(folder)
    assert (code, lines) == (0, [f"{folder}: 46 films are as pcamx prepare checked them"])
    one, other = (store.root / store.split(name)[1].path for name in ("train", "valid"))
    for path in (one, other):
        times = path.stat()
        same_size_on_disk(path)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for film in store.films:  # nobody reads gigabytes before each training
        check_film(store.root / film.path, store.contents[film.path])
    film = next(film for film in store.films if film.mark)
    (folder / film.mark).write_bytes(b"")
    code, lines, error = verify("--out", folder)
    assert code == 1 and len(lines) == 3
    for path in (one, other, folder / film.mark):
        assert any(line.startswith(f"{path}: has changed since pcamx prepare") for line in lines)
    said = "3 files have changed since pcamx prepare; put them back, or run it again"
    assert error.endswith(f"\npcamx: error: {folder}: {said}\n")
    for words in ((), (folder, "--transcode", "jpeg")):
        code, lines, error = verify(*words)
        assert (code, lines) == (2, [])
        assert "--verify takes a store and nothing else: pcamx prepare STORE --verify" in error


def test_verify_says_where_nothing_is_known(folder: Path) -> None:
    head = json.loads((folder / "store.json").read_text())
    del head["fingerprint"]
    (folder / "store.json").write_text(json.dumps(head))
    (folder / "content.csv").unlink()
    with pytest.raises(
        PcamxError, match=r"content\.csv: has no digests of the films, .*earlier pca"
    ):
        changed_films(folder)
