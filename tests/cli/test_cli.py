"""Mistakes on the command line, in configs and in data: one line that names what to mend, rc 2."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
from one_line import assert_one_line

from pcamx import cli
from pcamx import config as configs
from pcamx.data.store import Film, Store, read_store
from pcamx.errors import PcamxError
from pcamx.run.folder import RunFolder
from pcamx.training import preflight


@pytest.fixture
def pcamx(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """``pcamx(words...)``: the command in this process; its code and what it wrote to stderr."""

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pcamx", *map(str, words)])
        code = cli.main()
        return code, capsys.readouterr().err

    return run


# pcamx


def test_evaluate_something_else(pcamx: Any, tmp_path: Path) -> None:
    code, text = pcamx("evaluate", tmp_path)
    assert code == 2
    assert_one_line(text, f"{tmp_path}: not a run's folder", "config.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("films", ["-1", "many", "1.5"])
def test_evaluate_with_no_number_of_films(pcamx: Any, tmp_path: Path, films: str) -> None:
    with pytest.raises(SystemExit) as caught:
        pcamx("evaluate", tmp_path, f"--faithful={films}")
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trian",), "'export'); did you mean train?"),
        (("marks", "chek", "a.json"), "'suggest'); did you mean check?"),
        (
            ("prepare", "films", "--tabel", "films.csv", "--out", "s"),
            "prepare: error: unrecognized arguments: --tabel films.csv; did you mean --table?",
        ),
        (("prepare", "films", "more", "--out", "s"), "unrecognized arguments: more\n"),
        # No abbreviation: what a later version adds may begin alike.
        (("prepare", "films", "--tab", "films.csv", "--out", "s"), "did you mean --table?"),
    ],
)
def test_a_misspelt_word(
    pcamx: Any, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        pcamx(*words)
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_a_table_instead_of_a_config(pcamx: Any, tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text("path,label\n" + "a.png,0\n" * 1000)
    code, text = pcamx("train", tmp_path / "films.csv", "--stage", "1")
    assert code == 2 and text.endswith(
        "films.csv: no config, which has keys such as data.store; pcamx init writes one\n"
    )


def test_evaluate_before_a_stage_is_finished(pcamx: Any, tmp_path: Path, write_config: Any) -> None:
    run = tmp_path / "run"
    (run / "stage1/checkpoints").mkdir(parents=True)
    shutil.copy(write_config(tmp_path), run / "config.yaml")
    code, text = pcamx("evaluate", run)
    assert code == 2
    assert_one_line(text, f"{run}: none of stages 1, 2, 3 is finished", "--resume")


def test_evaluate_when_the_store_has_gone(pcamx: Any, tmp_path: Path, write_config: Any) -> None:
    gone = tmp_path / "gone"
    path = write_config(tmp_path / "run", {"data.store": str(gone)})
    path.rename(path.with_name("config.yaml"))
    code, text = pcamx("evaluate", tmp_path / "run")
    assert code == 2
    assert_one_line(text, f"the store of its films is not at {gone}", "bring it back")


def test_prepare_a_folder_without_films(pcamx: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, text = pcamx("prepare", tmp_path / "empty", "--out", tmp_path / "store")
    assert code == 2
    assert_one_line(text, str(tmp_path / "empty"))
    assert not (tmp_path / "store").exists()


def test_prepare_writes_films_anew(pcamx: Any, tmp_path: Path, phantoms: Path) -> None:
    out = tmp_path / "store"
    code, _ = pcamx("prepare", phantoms / "MURA-v1.1", "--out", out, "--transcode", "jpeg")
    assert code == 0
    store = read_store(out)
    assert store.root == out / "films" and all(f.path.endswith(".jpg") for f in store.films)
    assert (out / "transcode_report.md").is_file()


def test_phantom_into_a_file(pcamx: Any, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    code, text = pcamx("phantom", tmp_path / "out", "--train", 8, "--valid", 4, "--size", 32)
    assert code == 2
    assert_one_line(text, str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


def test_ctrl_c(pcamx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pcamx.evaluation.evaluate.evaluate", interrupted)
    code, text = pcamx("evaluate", tmp_path)
    assert code == 130
    assert "Traceback" not in text and text.startswith("pcamx: stopped")


def test_ctrl_c_that_a_library_swallows(
    pcamx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swallow(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise ValueError("drawing failed") from None

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("pcamx.evaluation.evaluate.evaluate", swallow)
    assert pcamx("evaluate", tmp_path) == (130, "pcamx: stopped; nothing was written\n")
    assert signal.getsignal(signal.SIGTERM) is before


class _Stops:
    """What is told to stop as it goes."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):  # so that the stop comes within
            pass


def test_a_stop_within_a_destructor_is_heeded(
    pcamx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by stopping commands at random: Python says that it ignores it, and goes on."""

    went_on = []

    def goes_on(*_: object, **__: object) -> None:
        _Stops()
        went_on.append(signal.sigtimedwait([], 20))

    hook = sys.unraisablehook
    monkeypatch.setattr("pcamx.evaluation.evaluate.evaluate", goes_on)
    assert pcamx("evaluate", tmp_path) == (130, "pcamx: stopped; nothing was written\n")
    assert went_on == [] and sys.unraisablehook is hook


def test_a_stop_after_the_last_rename_says_what_was_written(
    pcamx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        real(source, target)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pcamx.output.os.replace", replace)
    words = ("init", "--copy", "demo", "--out", "demo.yaml")
    assert pcamx(*words) == (130, "pcamx: stopped; demo.yaml was written\n")
    assert os.listdir() == ["demo.yaml"]


def test_a_name_of_two_lines_is_said_in_one(pcamx: Any, tmp_path: Path) -> None:
    code, text = pcamx("evaluate", tmp_path / "a\nb")
    assert code == 2 and text.count("\n") == 1 and "a?b: not a run's folder" in text


@pytest.mark.parametrize(
    ("out", "code", "said"),
    [
        (">(true); wait $!", 141, ""),  # a pipe that nobody reads
        ("/dev/full", 2, "pcamx: error: No space left on device\n"),
    ],
)
def test_an_output_that_takes_nothing(tmp_path: Path, out: str, code: int, said: str) -> None:
    script = f"exec 3> {out}; {sys.executable} -m pcamx init --copy demo >&3"
    path = str(processes.PROJECT)
    ended = processes.command(
        "bash", "-c", script, cwd=tmp_path, PYTHONPATH=path, PYTHONUNBUFFERED=""
    )
    assert (ended.code, ended.text) == (code, said)


# launch/train.py, as a process: what a person sees


@pytest.mark.parametrize(
    ("changes", "words", "parts"),
    [
        ({"runtime.batch_sise": 8}, ["--stage", "1"], ["run.yaml: unknown key", "batch_size?"]),
        ({"data.store": "nowhere"}, ["--stage", "1"], ["nowhere: no such folder", "pcamx prepare"]),
    ],
)
def test_train_py_says_it_in_one_line(
    tmp_path: Path, write_config: Any, changes: Any, words: list[str], parts: list[str]
) -> None:
    write_config(tmp_path, changes)
    ended = processes.ranks(1, *words, "--config", "run.yaml", cwd=tmp_path)
    assert ended.code == 2
    assert_one_line(ended.text, *parts)
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


def test_two_ranks_say_it_once(tmp_path: Path) -> None:
    ended = processes.ranks(2, "--stage", "1", "--config", "missing.yaml", cwd=tmp_path)
    assert ended.code == 2
    assert_one_line(
        ended.text, "missing.yaml: No such file or directory", "a config is a YAML file"
    )


def test_two_ranks_show_the_usage_once(tmp_path: Path) -> None:
    ended = processes.ranks(2, "--stage", "4", "--config", "run.yaml", cwd=tmp_path)
    assert ended.code == 2
    assert ended.text.count("invalid choice: '4'") == 1


def test_three_ranks_for_a_batch_of_eight(tmp_path: Path, write_config: Any) -> None:
    ended = processes.train(3, write_config(tmp_path), "all")
    assert ended.code == 2
    assert_one_line(ended.text, "runtime.batch_size: 8 cannot be split over 3 ranks")
    assert not (tmp_path / "run").exists()


# What train() checks before anything else, in this process


@pytest.fixture
def check(write_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``check([1], changes, store=...)``: the checks before a run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(
        numbers: list[int], changes: Any = None, *, store: Store | None = None, resume: bool = False
    ) -> None:
        config = configs.load(write_config(tmp_path, changes))
        found = store or read_store(Path(config.data.store))
        preflight.check(config, found, numbers, world=1, resume=resume)

    return run


def _replaced(store: Store, **changes: Any) -> Store:
    import dataclasses

    return dataclasses.replace(store, **changes)


def _unmarked(film: Film) -> Film:
    import dataclasses

    return dataclasses.replace(film, mark="")


def test_all_is_well(check: Any, tmp_path: Path) -> None:
    """What every refusal below changes one thing of; and checking leaves nothing behind."""
    check([1, 2, 3])
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_stage_3_without_marks_is_said_before_stage_1(check: Any, store_folder: Path) -> None:
    store = read_store(store_folder)
    store = _replaced(store, films=tuple(map(_unmarked, store.films)))
    with pytest.raises(PcamxError, match="stage 3 needs .* lesion mark.*prepare with --marks"):
        check([1, 2, 3], store=store)
    check([1, 2], store=store)


def test_stage_3_with_no_marks_allowed(check: Any) -> None:
    with pytest.raises(PcamxError, match=r"data\.marked: 0 leaves stage 3 no lesion"):
        check([3], {"data.marked": 0, "stages.stage3.init_from": "scratch"})


def test_stage_2_without_stage_1(check: Any, tmp_path: Path) -> None:
    with pytest.raises(PcamxError, match="stage 2 starts from run/stage1/weights.pt, .*init_from"):
        check([2])
    assert not (tmp_path / "run").exists()


def test_start_that_is_no_weights(check: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.pt").write_bytes(b"photo")
    with pytest.raises(PcamxError, match="photo.pt: not a stage's weights"):
        check([1], {"stages.stage1.init_from": "photo.pt"})


def test_one_film_less_than_a_batch(check: Any, store_folder: Path) -> None:
    check([1], {"runtime.batch_size": 32})
    with pytest.raises(PcamxError, match="batch_size: 33 is more than the 32 .* lower it to 32"):
        check([1], {"runtime.batch_size": 33})


@pytest.mark.parametrize("split", ["train", "valid"])
def test_empty_split(check: Any, store_folder: Path, split: str) -> None:
    store = read_store(store_folder)
    store = _replaced(store, films=tuple(f for f in store.films if f.split != split))
    with pytest.raises(PcamxError, match=f"no film is in the {split} split"):
        check([1], store=store)


def test_resume_with_nothing_to_resume(check: Any, tmp_path: Path) -> None:
    with pytest.raises(PcamxError, match="run holds nothing of stage 1 to resume; leave out --res"):
        check([1], resume=True)


def test_a_job_that_slurm_starts_anew_resumes_what_there_is(
    check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node may have been lost before the first step."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    check([1], resume=True)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    with pytest.raises(PcamxError, match="nothing of stage 1 to resume"):
        check([1], resume=True)


def test_run_folder_that_is_a_file(check: Any, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(PcamxError, match="run.folder: run is a file; set it to a new folder"):
        check([1])
    assert (tmp_path / "run").read_text() == "mine"


def test_second_run_in_the_same_folder(check: Any, tmp_path: Path) -> None:
    (tmp_path / "run/stage1").mkdir(parents=True)
    with pytest.raises(PcamxError, match="run already holds stage 1: add --resume .* new folder"):
        check([1])
    check([1], resume=True)


def test_another_config_in_the_same_folder(
    check: Any, tmp_path: Path, write_config: Any, store_folder: Path
) -> None:
    (tmp_path / "run/stage1").mkdir(parents=True)
    shutil.copy(write_config(tmp_path), tmp_path / "run/config.yaml")
    with pytest.raises(PcamxError, match=r"another config \(runtime.batch_size: 4 here, 8 there"):
        check([1], {"runtime.batch_size": 4, "objective.marked_per_batch": 2}, resume=True)
    check([1], {"run.folder": "./run", "data.store": f"{store_folder}/."}, resume=True)
    (tmp_path / "run").rename(tmp_path / "moved")
    check([1], {"run.folder": "moved"}, resume=True)
    (tmp_path / "moved").rename(tmp_path / "run")
    # What changes no figure may change.
    check([1], {"data.cache": "elsewhere", "data.feed": "stream", "data.threads": 3}, resume=True)


def test_config_of_a_run_that_never_began_does_not_bind(
    check: Any, tmp_path: Path, write_config: Any, store_folder: Path
) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(write_config(tmp_path), tmp_path / "run/config.yaml")
    with pytest.raises(PcamxError, match="config.yaml is of no run and would be replaced"):
        check([1])  # somebody's own
    RunFolder(tmp_path / "run").write_origin(store_folder)
    check([1], {"runtime.batch_size": 4})  # raises PcamxError if it binds
    (tmp_path / "run/stage1").mkdir()
    with pytest.raises(PcamxError, match="another config"):
        check([1], {"runtime.batch_size": 4}, resume=True)


def test_resume_with_a_damaged_checkpoint(check: Any, tmp_path: Path) -> None:
    root = tmp_path / "run/stage1/checkpoints"
    root.mkdir(parents=True)
    (root / "latest").write_text("step00000004")
    with pytest.raises(PcamxError, match="step00000004: its progress.json cannot be read"):
        check([1], resume=True)


# Errors that come while training, with two ranks


@pytest.fixture
def own_films(phantoms: Path, tmp_path: Path) -> Path:
    """A prepared store of a copy of the films, to be damaged."""
    from pcamx.data.prepare.store_builder import prepare

    shutil.copytree(phantoms / "MURA-v1.1", tmp_path / "films")
    marks = phantoms / "marks"
    prepare(tmp_path / "films", tmp_path / "store", table=None, marks=marks, workers=1)
    return tmp_path / "store"


def test_vanished_film(own_films: Path, write_config: Any, tmp_path: Path) -> None:
    store = read_store(own_films)
    # The second film is rank 1's to decode.
    lost = store.root / store.split("train")[1].path
    lost.unlink()
    path = write_config(tmp_path / "work", {"data.store": str(own_films)})
    ended = processes.train(2, path, 1)
    assert ended.code == 2
    assert_one_line(ended.text, f"{lost}: cannot be decoded", "No such file", "pcamx prepare again")
    assert not (tmp_path / "work/run").exists()


def test_film_damaged_while_streaming_ends_all_ranks(
    own_films: Path, write_config: Any, tmp_path: Path
) -> None:
    from pcamx.data.feed.order import epoch_order

    store = read_store(own_films)
    # The film that rank 1 needs last in the first epoch.
    index = epoch_order(32, 8, seed=0, epoch=0)[3, 7]
    hurt = store.root / store.split("train")[index].path
    hurt.write_bytes(hurt.read_bytes()[:100])
    changes = {"data.store": str(own_films), "data.feed": "stream"}
    ended = processes.train(2, write_config(tmp_path / "work", changes), 1)
    assert ended.code in (2, -9)
    lines = [line for line in ended.text.splitlines() if line.startswith("pcamx: error:")]
    assert f"{hurt}: has changed since pcamx prepare (100 bytes, were" in lines[0]
    assert all("another rank has ended" in line for line in lines[1:])
    assert "Traceback" not in ended.text


FULL_DISK = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from pcamx.run import checkpoints
original, saves = checkpoints.save, []
def save(*arguments):
    saves.append(1)
    if len(saves) == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    original(*arguments)
checkpoints.save = save
sys.argv = [sys.argv[1], *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, write_config: Any) -> None:
    config = write_config(tmp_path)
    words = ("--stage", 1, "--config", config.name)
    ended = processes.python("-c", FULL_DISK, processes.TRAIN, *words, cwd=tmp_path)
    assert ended.code == 2, ended.text
    assert_one_line(ended.text, "cannot write checkpoint run/stage1/checkpoints/step00000004")
    root = tmp_path / "run/stage1/checkpoints"
    assert (root / "latest").read_text() == "step00000003"
    assert [p.name for p in root.iterdir() if p.is_dir()] == ["step00000003"]
    processes.train(1, config, 1, "--resume").ok()
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 9))


def test_folder_that_cannot_be_made(tmp_path: Path, write_config: Any) -> None:
    # A file in the way: root may write into read-only folders.
    (tmp_path / "file").write_text("")
    ended = processes.train(1, write_config(tmp_path, {"run.folder": "file/run"}), 1)
    assert ended.code == 2
    assert_one_line(ended.text, "cannot lock file/run: Not a directory")


def test_full_disk_of_metrics(tmp_path: Path) -> None:
    from pcamx.run.history import History

    with pytest.raises(PcamxError, match="cannot write .*metrics.jsonl: No such file"):
        History(RunFolder(tmp_path / "gone")).add({"stage": 1})


def test_cut_off_line_of_metrics_is_dropped(tmp_path: Path) -> None:
    from pcamx.run.history import History

    history = History(RunFolder(tmp_path))
    for stage, step in ((1, 1), (1, 2), (2, 1), (2, 2)):
        history.add({"stage": stage, "step": step})
    with history.path.open("a") as file:
        file.write('{"stage": 2, "st')
    history.forget(2, after=1)
    kept = [json.loads(line) for line in history.path.read_text().splitlines()]
    assert [(k["stage"], k["step"]) for k in kept] == [(1, 1), (1, 2), (2, 1)]


def test_python_m_pcamx(tmp_path: Path) -> None:
    ended = processes.command(
        *(sys.executable, "-m", "pcamx", "evaluate", "nothing"),
        cwd=tmp_path,
        PYTHONPATH=str(processes.PROJECT) + os.pathsep,
    )
    assert ended.code == 2
    assert_one_line(ended.text, "nothing: not a run's folder")
