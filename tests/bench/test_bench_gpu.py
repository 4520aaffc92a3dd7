"""`make gpu-check` and `make gpu-pack`, without a GPU and without network."""

import subprocess
import sys
from argparse import Namespace
from hashlib import sha256
from pathlib import Path

import pytest

from bench.gpu import __main__ as gpu
from bench.gpu import jobs, pack, work
from bench.gpu.jobs import Job
from bench.gpu.page import page
from bench.gpu.profile import on_device
from pcamx.errors import PcamxError


def job(name: str, code: str) -> Job:
    return Job(name, [sys.executable, "-S", "-c", code])


GOOD = job("A-good", "print('fine')")
BAD = job("B-bad", "import sys; print('what went wrong'); sys.exit(3)")
LONG = job("B-long", "import time; time.sleep(600)")


def test_the_page_shows_what_became_of_each_job(tmp_path: Path) -> None:
    for one in (GOOD, BAD):
        work.do(one, tmp_path)
    work.do(LONG, tmp_path, limit=0.5)
    (tmp_path / "A-good.md").write_text("# Title\n\n## Table\n\nfigures\n")
    lines = page([GOOD, BAD, LONG, job("C-not-run", "")], tmp_path, "A device.").splitlines()
    rows = {line.split(" | ")[0]: line.split(" | ")[1] for line in lines if line.startswith("| ")}
    assert rows["| A-good"] == "passed" and rows["| B-bad"] == "failed (3)"
    assert rows["| B-long"] == "took too long" and rows["| C-not-run"] == "not run"
    assert "#### Table" in lines and "# Title" not in lines  # in the place of a log
    assert "fine" not in lines and "what went wrong" in lines
    assert "## C. A training step beside plain PyTorch's" not in lines


def test_it_goes_on_after_a_failure_and_repeats_only_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def all_jobs(out: Path) -> list[Job]:
        return [BAD, GOOD, job("C-other", "print(1)")]

    monkeypatch.setattr(gpu, "on_cpu", all_jobs)
    options = Namespace(out=tmp_path / "out", parts=["A", "B"])
    for said in ("A-good: passed in", "A-good: passed before"):
        with pytest.raises(PcamxError, match="^B-bad: see the logs in"):
            gpu.run(options)
        printed = capsys.readouterr().out
        assert said in printed and "B-bad: FAILED" in printed and "C-other" not in printed
    assert "| C-other | not run |" in (tmp_path / "out/record.md").read_text()
    # Another command under the same name is another job, and so is another commit.
    assert work.done(job("A-good", "print(2)"), tmp_path / "out") is None
    assert work.done(GOOD, tmp_path / "out") is not None
    monkeypatch.setattr(work.provenance, "commit", lambda: "0123abc")
    assert work.done(GOOD, tmp_path / "out") is None


def test_a_kernel_is_not_counted_with_the_operator_that_launched_it() -> None:
    kinds = [("CPU", False), ("CUDA", False), ("CUDA", True)]
    events = [
        Namespace(device_type=Namespace(name=name), is_user_annotation=annotation)
        for name, annotation in kinds
    ]
    assert [on_device(event) for event in events] == [False, True, False]


@pytest.mark.parametrize("made", [jobs.on_gpu, jobs.on_cpu])
def test_every_part_has_jobs_and_no_two_share_a_log(tmp_path: Path, made: object) -> None:
    found = list(made(tmp_path))  # type: ignore[operator]
    assert {one.part for one in found} == set(jobs.PARTS)
    assert len({one.name for one in found}) == len(found)
    for one in found:
        for word in one.command:
            if word.startswith("tests/"):
                assert (work.PROJECT / word).is_file()
    modules = {one.command[2] for one in found if one.command[1] == "-m"}
    for module in modules - {"pytest"}:
        path = work.PROJECT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or path.is_dir()


def test_wheels_in_parts_are_whole_again(tmp_path: Path) -> None:
    """By the lines of the script that the machine without network runs, up to the installation."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    content = {"large-1.whl": bytes(range(256)) * 9, "small-1.whl": b"small"}
    for name, value in content.items():
        (wheels / name).write_bytes(value)
    lines = pack.split(wheels, largest=1000)
    assert sorted(p.name for p in wheels.iterdir()) == [
        *(f"large-1.whl.part00{i}" for i in range(3)),
        "small-1.whl",
    ]
    assert all(path.stat().st_size <= 1000 for path in wheels.iterdir())
    assert lines == [f"{sha256(value).hexdigest()}  {name}" for name, value in content.items()]
    (tmp_path / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    script, _ = pack.INSTALL.split(f"python{pack.PYTHON} -m venv")
    (tmp_path / "install.sh").write_text(script)
    subprocess.run(["sh", tmp_path / "install.sh"], check=True)
    assert {p.name: p.read_bytes() for p in wheels.iterdir()} == content
    (wheels / "small-1.whl").write_bytes(b"smell")
    damaged = subprocess.run(["sh", tmp_path / "install.sh"], capture_output=True, text=True)
    assert damaged.returncode and "small-1.whl: FAILED" in damaged.stdout


def test_the_pack_holds_all_that_the_project_asks_for() -> None:
    found = pack.requirements()
    for package in ("torch", "deepspeed", "nvidia-dali-cuda130", "pydicom", "pytest"):
        assert sum(line.startswith(package) for line in found) >= 1, package
    assert not any("pcamx" in line for line in found)


def test_a_package_without_a_wheel_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network is needed to find nothing."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(PcamxError, match="No matching distribution found for nothing.*pip wheel"):
        pack.download(["nothing-such==1"], tmp_path)
