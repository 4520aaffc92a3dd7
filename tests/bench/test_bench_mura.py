"""The bench of MURA's size: its numbers by hand, its rows, and how a failed step is told."""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench import mura
from bench.lib import mura_rows
from bench.lib.mura_plan import plan_mura
from bench.lib.record import Row
from pcamx.data.phantom.temptations import THE_LETTER
from pcamx.data.phantom.write import draw_plans
from pcamx.data.sets.mura import read_mura
from pcamx.errors import PcamxError
from pcamx.report.rows import MAPS

OPTIONS = argparse.Namespace(share=1.0, size=512, canvas=320, epochs=10, batch=None, precision=None)


def test_the_numbers_are_muras() -> None:
    plans = plan_mura(1.0)
    for split, films, studies, patients in ((0, 36_808, 13_457, 11_184), (1, 3_197, 1_199, 783)):
        own = [plan for plan in plans if plan.split == split]
        assert len(own) == len({(p.patient, p.study, p.image) for p in own}) == films
        assert len({(p.patient, p.study) for p in own}) == studies
        assert len({p.patient for p in own}) == patients
        of_study = {(p.patient, p.study, p.part, p.positive, p.marker) for p in own}
        assert len(of_study) == studies  # one part, label and letter each
    assert not {p.patient for p in plans if p.split} & {p.patient for p in plans if not p.split}
    count = Counter((p.split, p.part, p.positive) for p in plans)
    assert (count[0, "ELBOW", True], count[0, "ELBOW", False]) == (2006, 2925)
    assert (count[1, "WRIST", True], count[1, "WRIST", False]) == (295, 364)
    assert [sum(p.positive for p in plans if p.split == s) for s in (0, 1)] == [14_873, 1_530]


def test_a_letter_goes_with_the_label_in_training_only() -> None:
    plans = plan_mura(1.0)
    for split, follows in ((0, THE_LETTER.follows), (1, 0.5)):
        studies = {(p.patient, p.study): p for p in plans if p.split == split}.values()
        marked = [p for p in studies if p.marker]
        assert len(marked) / len(studies) == pytest.approx(THE_LETTER.share, abs=0.05)
        right = sum((p.marker == "R") == p.positive for p in marked)
        assert right / len(marked) == pytest.approx(follows, abs=0.06)


def test_a_share_of_them() -> None:
    count = Counter((p.split, p.part, p.positive) for p in plan_mura(0.01))
    assert count[0, "ELBOW", False] == 29 and count[0, "ELBOW", True] == 20
    assert count[1, "HUMERUS", True] == 1
    assert len(count) == 2 * 7 * 2
    assert (
        len({(p.patient, p.study) for p in plan_mura(0.01) if p.part == "HAND"}) == 15 + 5 + 1 + 1
    )
    assert set(Counter((p.split, p.part, p.positive) for p in plan_mura(1e-6)).values()) == {1}


def test_the_layout_is_muras(tmp_path: Path) -> None:
    plans = plan_mura(1e-6)
    draw_plans(tmp_path / "set", plans, size=32, workers=1)
    entries = read_mura(tmp_path / "set/MURA-v1.1")
    assert Counter((e.split == "valid", e.part, e.label) for e in entries) == Counter(
        (bool(p.split), f"XR_{p.part}", int(p.positive)) for p in plans
    )


def figure(value: float | None) -> dict[str, float | None]:
    return {"value": value, "low": value, "high": None}


def stage(seconds: float) -> dict[str, object]:
    maps = {"positive_cam": {"pointing": figure(0.5), "miou": figure(None)}}
    of_class = {"classification": {"auroc": figure(0.75)}, "localization": maps}
    return of_class | {"seconds": seconds, "epochs": 2}


def test_rows_by_hand(tmp_path: Path) -> None:
    options = argparse.Namespace(canvas=320, epochs=2, batch=32, precision="bf16")
    config = mura.config_of(options, mura.Folder(tmp_path), "cpu", threads=1)
    assert config.objective.marked_per_batch == 2
    assert config.runtime.precision == "bf16"  # on a CPU only where asked for
    report = {
        "data": {"splits": {"train": {"films": 95}}},
        "stages": {"1": stage(4.0), "3": stage(8.0)},
        "baselines": {"untrained": stage(0.0), "centre": stage(0.0)},
    }
    # 95 films: two batches of 32, or three of 30 and 2 marked ones; two epochs of 32 films each.
    assert list(mura_rows.stage_rows("c", report, config)) == [
        Row("c", "stage 1", "time", 4.0, "s"),
        Row("c", "stage 1", "rate", 2 * 2 * 32 / 4.0, "images/s"),
        Row("c", "stage 3", "time", 8.0, "s"),
        Row("c", "stage 3", "rate", 2 * 3 * 32 / 8.0, "images/s"),
        Row("c", "three stages", "time", 12.0, "s"),
    ]
    rows = list(mura_rows.learning_rows("c", report))
    assert rows[:3] == [
        Row("c", "stage 1", "AUROC", 0.75, ""),
        Row("c", "stage 1", "AUROC low", 0.75, ""),
        Row("c", "stage 1, positive CAM", "pointing", 0.5, ""),
    ]
    assert [row.impl for row in rows[-4:]] == ["untrained, positive CAM"] * 2 + ["centre"] * 2
    assert not [row for row in rows if row.metric.startswith("mIoU")]
    timed = list(mura_rows.time_rows("c", {"prepare": 2.0, "training": 3.0}, 100))
    assert [(row.impl, row.metric, row.value) for row in timed] == [
        ("prepare", "time", 2.0),
        ("prepare", "rate", 50.0),
        ("training", "time", 3.0),
    ]


def test_rows_of_a_real_report(evaluated_run: Path) -> None:
    """Every map that `evaluate` measures has a name here."""
    report = json.loads((evaluated_run / "report.json").read_text())
    rows = list(mura_rows.learning_rows("c", report))
    impls = {row.impl for row in rows if row.metric == "pointing"}
    maps = {f"stage {n}, {name}" for n in (1, 2, 3) for name in (kind.title for kind in MAPS)}
    assert impls == maps - {f"stage {n}, decoder" for n in (1, 2)} | {
        "untrained, positive CAM",
        "centre",
    }


def test_settings_are_those_of_mura_yaml(tmp_path: Path) -> None:
    config = mura.config_of(OPTIONS, mura.Folder(tmp_path), "cuda", threads=4)
    base = mura.configs.load(mura.BASE)
    assert config.runtime == base.runtime and config.objective == base.objective
    assert config.stage(3).epochs == 10
    assert config.stage(3).init_from == "stage2"
    assert config.data.store == str(tmp_path / "store")


def test_a_failed_step_names_its_log(tmp_path: Path) -> None:
    folder = mura.Folder(tmp_path)
    words = [sys.executable, "-c", "print('out of films'); raise SystemExit(3)"]
    with pytest.raises(PcamxError) as caught:
        folder.call("prepare", words, threads=1)
    log = tmp_path / "prepare.log"
    assert str(caught.value) == f"prepare ended with exit code 3; see {log}"
    assert log.read_text() == "out of films\n"


def test_nothing_is_written_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> dict[str, float]:
        raise PcamxError("training ended with exit code 1; see training.log")

    monkeypatch.setattr(mura, "take_steps", fails)
    monkeypatch.setattr(mura, "draw_plans", lambda *_, **__: None)
    files = {"markdown": tmp_path / "a.md", "json": tmp_path / "a.json"}
    options = argparse.Namespace(**vars(OPTIONS) | files | {"folder": tmp_path / "there"})
    options.share = 1e-6
    with pytest.raises(PcamxError, match="see training.log"):
        mura.run(options)
    assert not (tmp_path / "a.md").exists() and not (tmp_path / "a.json").exists()
    options.share = 1.5
    with pytest.raises(PcamxError, match="--share 1.5: expected more than 0 and at most 1"):
        mura.run(options)


def test_films_are_kept_and_what_came_of_them_is_not(tmp_path: Path) -> None:
    folder, plan = mura.Folder(tmp_path / "there"), {"share": 0.5, "size": 64}
    folder.open(plan)
    for made in (folder.films, folder.run, folder.store, folder.path / "cache"):
        made.mkdir()
    folder.open(plan)
    assert sorted(path.name for path in folder.path.iterdir()) == ["phantom", "plan.json"]
    with pytest.raises(PcamxError, match=r"holds films of .*'size': 64.*; name another folder"):
        folder.open(plan | {"size": 128})


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(PcamxError, match="holds something else; name another folder"):
        mura.Folder(tmp_path).open({"share": 1.0})
    assert (tmp_path / "run").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(PcamxError, match="file: .*; name another with --folder"):
        mura.Folder(tmp_path / "file").open({"share": 1.0})
