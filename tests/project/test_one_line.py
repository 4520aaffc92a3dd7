"""What a file, a folder or a number may be that nobody expects: one line, or read as it stands."""

import csv
import json
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pcamx import cli, metrics
from pcamx import config as configs
from pcamx.data.files import image_header
from pcamx.data.files.file_content import UnfitError, one_line
from pcamx.data.marks import mask_pixels
from pcamx.data.store import Film, csv_text, fingerprint, read_store, write_store
from pcamx.errors import PcamxError
from pcamx.evaluation import rows
from pcamx.evaluation.rows import Rows
from pcamx.explain.workers import Here
from pcamx.output import plain_cell, safe_cell
from pcamx.processes import MEMORY, in_processes
from pcamx.run.folder import RunFolder
from pcamx.run.history import History, read_history
from pcamx.seals import sealed, unsealed

ODD = ["=1+1", "+x", "-x", "@x", "\tx", "'=x", "''=x", "'x", "", "x=1", "-", "=", "'", "''"]


@pytest.mark.parametrize("text", ODD)
def test_a_cell_comes_back_and_no_spreadsheet_runs_it(text: str) -> None:
    assert plain_cell(safe_cell(text)) == text
    assert safe_cell(text)[:1] not in ("=", "+", "-", "@", "\t")


@pytest.mark.parametrize("number", ["-1", "+2.5e-3", "-inf", "-0.25"])
def test_numbers_stay_numbers(number: str) -> None:
    assert safe_cell(number) == number


def test_a_store_of_films_with_such_names(tmp_path: Path) -> None:
    names = ["=a.png", "+b.png", "'=c.png", "-5", "d.png"]
    films = [Film(n, 0, "@p", "=s", "", "train", 9, 9, 255, "") for n in names]
    write_store(tmp_path, tmp_path, films, mean=1.0, std=1.0, quarantine=[("=x.png", "bad")])
    assert list(read_store(tmp_path).films) == films
    raw = list(csv.reader((tmp_path / "manifest.csv").open()))[1:]
    assert [row[0] for row in raw] == ["'=a.png", "'+b.png", "''=c.png", "-5", "d.png"]
    assert "'=x.png,bad" in (tmp_path / "quarantine.csv").read_text()
    assert csv_text(("a",), [(-1.5,)]) == "a\n-1.5\n"


@pytest.mark.parametrize("column", ["label", "width", "white"])
def test_a_manifest_with_a_number_of_thousands_of_digits(tmp_path: Path, column: str) -> None:
    film = Film("a.png", 1, "p", "s", "", "train", 9, 9, 255, "")
    write_store(tmp_path, tmp_path, [replace(film, **{column: 10**4299})], mean=1.0, std=1.0)
    file = tmp_path / "manifest.csv"
    file.write_text(file.read_text().replace("0" * 4299, "0" * 5000))
    with pytest.raises(PcamxError, match=f"manifest.csv, line 2: {column} is '1000") as caught:
        read_store(tmp_path)
    assert len(str(caught.value)) < 300


def test_a_head_with_numbers_beyond_floats(tmp_path: Path) -> None:
    write_store(tmp_path, tmp_path, [], mean=1.0, std=1.0)
    head = json.loads((tmp_path / "store.json").read_text())
    for changes in ({"mean": 10**400}, {"std": float("inf")}, {"counts": {"train": 1e999}}):
        (tmp_path / "store.json").write_text(json.dumps(head | changes))
        with pytest.raises(PcamxError, match="store.json: damaged; run pcamx prepare again"):
            fingerprint(tmp_path)


ODD_LINES = [f'{{"loss": {10**400}}}', f'{{"a": {"[" * 100_000}', "[]"]
ODD_LINES += ['{"step": "x"}', '{"step": 1e999}', '{"step": null}', '{"stage": [1]}']


@pytest.mark.parametrize("line", ODD_LINES)
def test_a_line_of_metrics_that_no_curve_can_show(tmp_path: Path, line: str) -> None:
    run = RunFolder(tmp_path)
    run.history_file.write_text('{"loss": 1, "stage": 1, "step": 1}\n' + line + "\n{}\n")
    with pytest.raises(PcamxError, match="metrics.jsonl: line 2 is not a JSON object, or has too"):
        read_history(run)
    History(run).forget(1, after=5)  # a line without a stage goes as well
    assert read_history(run) == [{"loss": 1, "stage": 1, "step": 1}]


def test_home_is_written_out(write_config: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    path = write_config(
        tmp_path,
        {"run.folder": "~/run", "data.store": "~", "stages.stage2.init_from": "~/weights.pt"},
    )
    config = configs.load(path)
    assert config.run.folder == str(tmp_path / "me/run")
    assert config.data.store == str(tmp_path / "me") and config.data.cache == ""
    found = config.stages["stage2"]
    assert found is not None and found.init_from == str(tmp_path / "me/weights.pt")


def test_the_home_of_nobody_is_no_folder(
    write_config: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_config(tmp_path, {"run.folder": "~nobody-here/run"})
    with pytest.raises(PcamxError, match="run.folder: ~nobody-here/run: ~ names no user's folder"):
        configs.load(path)
    monkeypatch.setattr(sys, "argv", ["pcamx", "phantom", "~nobody-here/films"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert "~nobody-here/films: ~ names no user's folder here" in capsys.readouterr().err


def test_home_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind --out= no shell writes it out; a file of such a name, which * finds, stays itself."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    Path("~x.png").touch()
    parser = cli._parser()
    found = parser.parse_args(["explain", "run", "~x.png", "~/y.png", "--out=~/out"])
    assert [found.out, *found.films] == [tmp_path / "me/out", Path("~x.png"), tmp_path / "me/y.png"]


@pytest.mark.parametrize("read", [image_header.open_image, mask_pixels.upright_size])
def test_a_message_names_no_address(read: Any, tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(b"no picture")
    with pytest.raises((UnfitError, PcamxError)) as caught:
        read(file if read is mask_pixels.upright_size else file.read_bytes())
    assert "0x" not in str(caught.value) and "<" not in str(caught.value)
    assert one_line(ValueError("bad <_io.BytesIO object at 0x7f00aa> here")) == "bad here"


@pytest.mark.parametrize("command", ["evaluate", "explain", "export", "prepare", "compare"])
def test_a_path_that_is_too_long(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"explain": ["film.png"], "compare": ["other"]}.get(command, [])
    monkeypatch.setattr(sys, "argv", ["pcamx", command, "a" * 300, *words, "--out", "out"])
    if command == "evaluate":
        monkeypatch.setattr(sys, "argv", sys.argv[:-2])
    assert cli.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("pcamx: error: ") and said.count("\n") == 1


def test_a_seal_holds_what_json_holds() -> None:
    facts = {"a": (1, 2.5), "b": {"c": None, "d": [True, "x"]}, "e": 1e-300}
    back = json.loads(json.dumps(sealed(facts)))
    assert unsealed(back) == json.loads(json.dumps(facts))
    for change in ({"a": [1, 2]}, {"b": {}}, {"f": 0}, {"self_sha256": "0" * 64}):
        with pytest.raises(ValueError, match="SHA-256"):
            unsealed(back | change)
    with pytest.raises(ValueError, match="no JSON object"):
        unsealed([1])
    assert unsealed({"an": "earlier pcamx"}) == {"an": "earlier pcamx"}


def _take(size: int) -> str:
    try:
        return str(np.zeros(size, np.uint8).nbytes)
    except MemoryError:
        return "refused"


def test_a_reading_process_may_take_so_much_memory() -> None:
    found = list(in_processes(_take, [1 << 20, MEMORY + 1], [Path("a"), Path("b")], 1))
    assert found == [str(1 << 20), "refused"]


def test_a_film_that_is_read_in_this_process_may_take_no_more() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    for size, said in ((1 << 20, str(1 << 20)), (2 * MEMORY, "refused")):
        assert Here().submit(_take, size).result() == said
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize("shape", [(), (3,), (2, 1001), (3, 256)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.bool, torch.float64])
def test_rows_come_back_wide_or_narrow(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randint(0, 2, (size, *shape), generator=generator).to(dtype) for size in (2, 0, 5)
    ]
    found = Rows()
    for batch in batches:
        found.add(batch)
    assert torch.equal(found.read(), torch.cat(batches)) and found.read().dtype == dtype
    found.add(batches[0])
    whole = torch.cat([*batches, batches[0]])
    assert torch.equal(found.read(), whole)
    table = found.table()
    assert table.shape == whole.shape
    for part in (slice(0, 4), slice(3, 100), slice(9, 9), slice(20, 30)):
        assert np.array_equal(table[part], whole[part].numpy())


def test_only_empty_rows() -> None:
    found = Rows()
    found.add(torch.zeros(0, 2, 1001))
    assert found.read().shape == found.table().shape == (0, 2, 1001)


def test_wide_rows_take_no_memory_of_ours() -> None:
    found = Rows()
    for _ in range(100):
        found.add(torch.ones(32, 2, 1001, dtype=torch.int32))
    assert len(found._memory) == 0 and found.read().sum() == 3200 * 2002


def test_a_figure_of_wide_rows_holds_a_part_of_them() -> None:
    """200 MB of counts of which a draw of patients is weighed; they were mapped whole."""
    found, count = Rows(), torch.zeros(500, 2, 1001, dtype=torch.int32)
    count[:, 0, 100], count[:, 1, 900] = 3, 1
    for _ in range(50):
        found.add(count)
    started = int(Path("/proc/self/statm").read_text().split()[1])
    pages: list[int] = []

    class Watched:
        shape = found.table().shape

        def __getitem__(self, rows: slice) -> NDArray[Any]:
            part = found.table()[rows]
            pages.append(int(Path("/proc/self/statm").read_text().split()[1]) - started)
            return part

    figure = metrics.pixel_average_precision(Watched())
    assert figure.value == 1 and figure.n == 25_000
    assert max(pages) * 4096 < 60e6


def test_rows_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rows.tempfile, "TemporaryFile", full)
    with pytest.raises(PcamxError, match="No space left on device; point TMPDIR to a folder"):
        Rows().add(torch.zeros(1, 1000))
