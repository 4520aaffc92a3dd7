"""The cached canvases: right or not there, whoever else runs, whatever the disk does."""

import dataclasses
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from PIL import Image
from torch import distributed as dist

from pcamx.config import Data
from pcamx.data.canvas import cache, provider
from pcamx.data.canvas.decode import decode_batches, who_decodes
from pcamx.data.canvas.provider import Decoded, gathered, held, stream
from pcamx.data.store import Film, Store
from pcamx.distributed import HostRanks
from pcamx.errors import PcamxError

CPU = torch.device("cpu")
SIDE, FILMS = 32, 150  # three chunks of films


@pytest.fixture
def store(tmp_path: Path) -> Store:
    root = tmp_path / "films"
    root.mkdir()
    films = []
    for i in range(FILMS):
        grey = np.random.default_rng(i).integers(0, 256, (20 + i % 9, 30), dtype=np.uint8)
        Image.fromarray(grey).save(root / f"{i}.png")
        films.append(Film(f"{i}.png", 0, "p", "s", "", "train", 30, 20 + i % 9, 255, ""))
    (tmp_path / "store").mkdir()
    return Store(tmp_path / "store", root, tuple(films), 0.0, 1.0)


def data(folder: str = "", side: int = SIDE) -> Data:
    return Data(store="store", canvas=side, cache=folder, threads=1)


def read(store: Store, settings: Data | None = None, **more: Any) -> torch.Tensor:
    """All canvases, in order, as the resident feed has them."""
    open_split = Decoded(settings or data(), store, CPU, **more).split("train")
    ((canvas_N1HW, row_B),) = open_split([np.arange(len(store.films))])
    return canvas_N1HW[row_B]


def decoded(store: Store, side: int = SIDE) -> torch.Tensor:
    (found,) = decode_batches(
        store.root, store.films, [range(len(store.films))], side, device=CPU, threads=1
    )
    return found


def files(store: Store) -> list[Path]:
    return sorted((store.folder / "cache").iterdir())


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse(*_: object, **__: object) -> Iterator[torch.Tensor]:
        raise AssertionError("a film is decoded")

    return lambda: monkeypatch.setattr(provider, "decode_batches", refuse)


def test_the_second_run_decodes_nothing(store: Store, no_decoding: Callable[[], None]) -> None:
    first, said = read(store), []
    assert torch.equal(first, decoded(store))
    (file,) = files(store)
    assert file.stat().st_size == cache.HEAD + FILMS * SIDE**2
    assert file.read_bytes()[cache.HEAD :] == first.numpy().tobytes()
    no_decoding()
    assert torch.equal(read(store, say=said.append), first)
    assert said == [f"train: 0.2 MB of canvases, decoded before: {file}"]


def test_a_split_is_opened_once(store: Store) -> None:
    both = Decoded(data(), store, CPU)
    assert both.split("train") is both.split("train")
    assert list(both.split("valid")([])) == []  # no film is in it


def test_a_stream_keeps_nothing_and_says_so(store: Store) -> None:
    said: list[str] = []
    settings = dataclasses.replace(data(), feed="stream")
    assert torch.equal(read(store, settings, say=said.append), decoded(store))
    assert said == ["train: 150 films, decoded anew each epoch; PNG by 1 CPU thread a rank"]
    assert not (store.folder / "cache").exists()


def touch(store: Store) -> Store:
    path = store.root / "3.png"
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    return store


def rewrite(store: Store) -> Store:
    """Another film, of another length, with the old one's date."""
    path = store.root / "3.png"
    at = path.stat().st_mtime_ns
    shutil.copy(store.root / "4.png", path)
    os.utime(path, ns=(at, at))
    return store


def deepen(store: Store) -> Store:
    films = [dataclasses.replace(store.films[0], white=4095), *store.films[1:]]
    return dataclasses.replace(store, films=tuple(films))


@pytest.mark.parametrize("change", [touch, rewrite, deepen])
def test_another_film_is_another_file(store: Store, change: Callable[[Store], Store]) -> None:
    read(store)
    changed = change(store)
    assert torch.equal(read(changed), decoded(changed))
    assert len(files(store)) == 2


def test_another_canvas_or_decoder_is_another_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(store)
    assert torch.equal(read(store, data(side=48)), decoded(store, 48))
    assert len(files(store)) == 2
    monkeypatch.setattr(cache, "decoder", lambda device: "DALI 99")
    read(store)
    assert len(files(store)) == 3


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def grow(file: Path) -> None:
    os.truncate(file, file.stat().st_size + 1)


def other_head(file: Path) -> None:
    """As if written for other films."""
    file.write_bytes(b"{}".ljust(file.stat().st_size))


@pytest.mark.parametrize("damage", [cut, grow, other_head])
def test_a_damaged_file_is_never_used(store: Store, damage: Callable[[Path], None]) -> None:
    whole = read(store)
    (file,) = files(store)
    damage(file)
    assert torch.equal(read(store), whole)
    assert files(store) == [file] and file.stat().st_size == cache.HEAD + FILMS * SIDE**2


class StopError(Exception):
    pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, StopError])
def test_a_run_that_is_stopped_leaves_nothing(store: Store, error: type[BaseException]) -> None:
    def track(work: Iterable[Any], what: str, total: int) -> Iterator[Any]:
        assert (what, total) == ("decoding train films, 64 at a time", 3)
        for done, item in enumerate(work):
            if done == 2:
                raise error
            yield item

    with pytest.raises(error):
        read(store, track=track)
    assert files(store) == []
    assert torch.equal(read(store), decoded(store))


def test_two_runs_at_the_same_time(store: Store) -> None:
    """The second begins and ends while the first decodes."""
    other: list[torch.Tensor] = []

    def track(work: Iterable[Any], what: str, total: int) -> Iterator[Any]:
        for item in work:
            if not other:
                other.append(read(store))
            yield item

    first = read(store, track=track)
    assert torch.equal(first, other[0]) and torch.equal(first, decoded(store))
    assert len(files(store)) == 1


def test_the_folder_may_be_deleted_at_any_time(store: Store) -> None:
    def track(work: Iterable[Any], what: str, total: int) -> Iterator[Any]:
        for item in work:
            shutil.rmtree(store.folder / "cache", ignore_errors=True)
            yield item

    said: list[str] = []
    first = read(store, track=track, say=said.append)
    assert torch.equal(first, decoded(store))
    assert "the next run decodes train again" in said[-1] and "No such file" in said[-1]
    second = read(store)
    shutil.rmtree(store.folder / "cache")
    assert torch.equal(first, second)


def test_drafts_of_killed_runs(store: Store) -> None:
    folder = store.folder / "cache"
    folder.mkdir()
    for name, age in (("old", 3600), ("young", 60)):
        draft = folder / f".{name}.canvases"
        draft.write_bytes(b"half")
        os.utime(draft, (draft.stat().st_mtime - age,) * 2)
    read(store)
    assert [file.name for file in files(store)][:-1] == [".young.canvases"]
    os.utime(files(store)[0], (0, 0))
    read(store)  # which finds its file
    assert len(files(store)) == 1


def test_the_draft_of_a_killed_process_goes_at_the_next_start(store: Store) -> None:
    folder = store.folder / "cache"
    folder.mkdir()
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = socket.gethostname()
    (folder / f".abc.{host}.{dead.pid}.canvases").write_bytes(b"half")
    (folder / f".abc.{host}.{os.getppid()}.canvases").write_bytes(b"of one that lives")
    read(store)
    assert [f.name for f in files(store)][:-1] == [f".abc.{host}.{os.getppid()}.canvases"]


@pytest.mark.parametrize("where", ["first", "last", "zeros", "digest", "swapped"])
def test_a_damaged_body_is_decoded_anew(store: Store, where: str) -> None:
    said: list[str] = []
    expected = read(store).clone()
    (file,) = files(store)
    content = bytearray(file.read_bytes())
    rest = len(content) - cache.HEAD
    if where == "zeros":
        content[-rest // 2 :] = bytes(rest - rest // 2)
    elif where == "digest":
        content[content.index(b"\n") + 1] ^= 1
    elif where == "swapped":  # the canvases of two films
        one, other = (cache.HEAD + i * SIDE**2 for i in range(2))
        first, second = content[one:other], content[other : other + SIDE**2]
        content[one:other], content[other : other + SIDE**2] = second, first
    else:
        content[cache.HEAD if where == "first" else -1] ^= 1
    file.write_bytes(content)
    assert torch.equal(read(store, say=said.append), expected)
    assert said[0] == f"warning: {file} is damaged, its SHA-256 is another: decoded anew"
    said.clear()
    assert torch.equal(read(store, say=said.append), expected) and "decoded before" in said[0]


def test_a_disk_that_takes_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, said = tmp_path / "memory", list[str]()
    memory.mkdir()
    monkeypatch.setattr(cache, "MEMORY", memory)
    (store.folder / "cache").write_text("a file in the place of the folder")

    def track(work: Iterable[Any], what: str, total: int) -> Iterator[Any]:
        assert list(memory.iterdir()) == []  # a run that is killed leaves nothing there
        yield from work

    assert torch.equal(read(store, track=track, say=said.append), decoded(store))
    assert said[0].startswith("warning: train: 0.2 MB of canvases, decoded once into memory until")
    assert f"{store.folder / 'cache'}: File exists" in said[0]
    shutil.rmtree(memory)
    with pytest.raises(PcamxError, match=r"no room for .* set data\.cache .* or data\.feed") as e:
        read(store)
    assert "\n" not in str(e.value)


def test_no_room_shows_before_a_film_is_decoded(
    store: Store, monkeypatch: pytest.MonkeyPatch, no_decoding: Callable[[], None]
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        assert (offset, length) == (0, cache.HEAD + FILMS * SIDE**2)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    no_decoding()
    with pytest.raises(PcamxError, match=r"No space left on device, and /dev/shm: No space left"):
        read(store)
    assert files(store) == []


def test_cache_in_another_folder(store: Store, tmp_path: Path) -> None:
    read(store, data(str(tmp_path / "a/b")))
    assert len(list((tmp_path / "a/b").iterdir())) == 1 and not (store.folder / "cache").exists()


def test_gathered_in_advance_is_the_same(store: Store) -> None:
    whole = read(store)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, FILMS, size) for size in (7, 7, 1, 7, 7, 3)]
    kept = [canvas[row] for canvas, row in held(whole, CPU)(batches)]
    assert [len(batch) for batch in kept] == [7, 7, 1, 7, 7, 3]
    for where in (gathered(whole, CPU), stream(data(), store, store.films, CPU)):
        found = [canvas[row] for canvas, row in where(batches)]
        assert all(torch.equal(a, b) for a, b in zip(kept, found, strict=True))
    early = gathered(whole, CPU)(batches)
    next(early)
    early.close()  # type: ignore[attr-defined]
    assert list(gathered(whole, CPU)([])) == list(held(whole, CPU)([])) == []


@pytest.mark.gpu
def test_too_large_for_the_gpu_is_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    device, said, found = torch.device("cuda", 0), list[str](), []
    for room in (10**9, 0):
        monkeypatch.setattr(provider, "_room", lambda device, room=room: room)
        ready = Decoded(data(), store, device, say=said.append).split("train")
        found.append([canvas[row] for canvas, row in ready([np.arange(9), np.arange(5, 8)])])
    assert all(torch.equal(a, b) and a.is_cuda for a, b in zip(*found, strict=True))
    assert "kept on the GPU" in said[1] and "host memory" in said[-1]


def test_who_decodes() -> None:
    films = [
        Film(f"a/{name}", 0, "p", "s", "", "train", 9, 9, 255, "")
        for name in ("x.png", "y.JPG", "z.png.j2c", "w.jpeg")
    ]
    gpu = torch.device("cuda", 0)
    assert who_decodes(films, CPU, 4) == "HTJ2K, JPEG, PNG by 4 CPU threads a rank"
    assert who_decodes(films[1:], gpu, 4) == "HTJ2K, JPEG on the GPU"
    assert who_decodes(films[:2], gpu, 1) == (
        "JPEG on the GPU, PNG by 1 CPU thread a rank; JPEG or HTJ2K (pcamx prepare --transcode) "
        "would be decoded on the GPU"
    )


# Several ranks


def rank_main(rank: int, folder: str, store: Store, expected: torch.Tensor) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    two_hosts(rank, folder, store, expected)
    if rank == 0:
        shutil.rmtree(store.folder / "cache")
    dist.barrier()
    one_host(rank, store, expected)
    dist.destroy_process_group()
    Path(folder, f"passed{rank}").touch()


def two_hosts(rank: int, folder: str, store: Store, expected: torch.Tensor) -> None:
    """First with one cache for both, then with one each, of which one is there already."""
    name, said = socket.gethostname, list[str]()
    socket.gethostname = lambda: f"host {rank}"
    host = HostRanks()
    assert (host.leader, host.leads, host.leaders) == (rank, True, [0, 1])
    assert host.share(FILMS) == range(FILMS)
    assert torch.equal(read(store, say=said.append), expected)
    dist.barrier()
    assert "decoded once" in said[0] and len(said) == len(files(store)) == 1
    own = f"{folder}/host{rank}"
    if rank == 0:
        shutil.copytree(store.folder / "cache", own)
    assert torch.equal(read(store, data(own), say=said.append), expected)
    assert ("decoded before" if rank == 0 else "decoded once") in said[1]
    socket.gethostname = name
    dist.barrier()


def one_host(rank: int, store: Store, expected: torch.Tensor) -> None:
    """Each decodes a half; what one cannot decode stops both."""
    host = HostRanks()
    assert (host.leader, host.leads, host.leaders) == (0, rank == 0, [0])
    assert (host.share(FILMS), host.share(1)) == (
        (range(75), range(0)) if rank == 0 else (range(75, FILMS), range(1))
    )
    ready = Decoded(data(), store, CPU).split("train")
    assert torch.equal(next(ready([np.arange(FILMS)]))[0], expected)
    (file,) = files(store)
    # Mapped, so that the host holds it once.
    assert str(file) in Path("/proc/self/maps").read_text()
    dist.barrier()
    for name, spoil in (("140.png", spoil_film), ("0.png", Path.unlink)):
        if rank == 0:
            spoil(store.root / name)
        dist.barrier()
        with pytest.raises(PcamxError, match=rf"/{name}: cannot be decoded"):
            read(store)
        dist.barrier()
        assert files(store) == [file]
        dist.barrier()


def spoil_film(path: Path) -> None:
    path.write_bytes(b"the second half's rank decodes this one")


@pytest.mark.slow
def test_ranks_of_one_host_and_of_two(store: Store, tmp_path: Path) -> None:
    processes.on_ranks(rank_main, str(tmp_path), store, decoded(store))
    assert {path.name for path in tmp_path.glob("passed*")} == {"passed0", "passed1"}
