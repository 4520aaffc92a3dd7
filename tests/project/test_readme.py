"""Every command of README.md, in its order, in one folder of small data.

Training and what follows runs as it stands there; the benches, whose own tests run them, are asked
for their help, and make's targets are looked up.
"""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import processes
import pytest
from PIL import Image

from pcamx import config as configs

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].split()
    for line in re.findall(r"^ {4,}(\S.*)$", README, re.MULTILINE)
    if line.startswith(("pcamx ", "deepspeed ", "make ", "python "))
]


def _coco(marks: Path) -> dict[str, Any]:
    """Boxes around every second lesion of the phantoms, under the films' names."""
    images, annotations = [], []
    for number, path in enumerate(sorted(marks.rglob("*.png"))[::2], 1):
        with Image.open(path) as mask:
            size, box = mask.size, mask.getbbox()
        assert box is not None
        left, top, right, bottom = box
        name = path.relative_to(marks).as_posix()
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        bbox = [left, top, right - left, bottom - top]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": bbox})
    categories = [{"id": 1, "name": "lesion"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, phantoms: Path, write_config: Any) -> Path:
    """The data that README speaks of, under the names that it gives them."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "launch").symlink_to(ROOT / "launch")
    films = phantoms / "MURA-v1.1"
    shutil.copytree(films, desk / "MURA-v1.1")
    shutil.copytree(films, desk / "films")
    (desk / "marks.json").write_text(json.dumps(_coco(phantoms / "marks")))
    with (desk / "films.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split", "patient"])
        for path in sorted((desk / "films").rglob("image*.png")):
            name = path.relative_to(desk / "films")
            table.writerow(
                [name, int("positive" in str(name)), name.parts[0], "/".join(name.parts[:3])]
            )
    shutil.copy(path, desk / "film.png")
    for name in ("mura", "mine"):
        changes = {"run.folder": f"runs/{name}", "data.store": f"stores/{name}"}
        changes |= {f"stages.stage{n}.epochs": 1 for n in (1, 2, 3)}
        write_config(desk, changes).replace(desk / f"{name}.yaml")
    (desk / "configs").mkdir()
    (desk / "mura.yaml").rename(desk / "configs/mura.yaml")
    return desk


def _init(words: list[str], desk: Path) -> processes.Ended:
    """The config that it writes is right, and too long to train here: the short one comes back."""
    path = desk / words[-1]
    short = path.read_text()
    path.unlink()
    ended = processes.python("-m", *words, cwd=desk)
    assert configs.load(path).run.folder == "runs/mine"
    path.write_text(short)
    return ended


def _run(words: list[str], desk: Path, *, first: bool) -> processes.Ended:
    """As it stands the first time that its program comes, then without what starts it."""
    if words[:2] == ["pcamx", "init"]:
        return _init(words, desk)
    program, *rest = words
    if words[:2] == ["python", "-m"]:
        return processes.python("-m", words[2], "--help", cwd=ROOT)
    if program == "deepspeed":  # whose launcher tests/training/test_launch.py starts
        return processes.ranks(1, *rest[1:], cwd=desk)
    if not first:
        return processes.python("-m", "pcamx", *rest, cwd=desk)
    return processes.command(processes.BIN / program, *rest, cwd=desk)


def test_every_command_works(desk: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    ran: list[str] = []
    programs: set[str] = set()
    for words in COMMANDS:
        if words[0] == "make":
            assert words[1] in targets
            continue
        ended = _run(words, desk, first=words[0] not in programs)
        programs.add(words[0])
        assert ended.code == 0, f"{' '.join(words)}\n{ended.text}"
        ran.append(" ".join(words[:2]))
    assert {"pcamx prepare", "pcamx marks", "pcamx explain", "pcamx export"} <= set(ran)
    assert (desk / "runs/mine/report.html").is_file()
    assert list((desk / "explained").rglob("*.png"))
    assert (desk / "mine-model/model.safetensors").is_file()


def test_every_subcommand_shows_an_example() -> None:
    said = processes.command(processes.BIN / "pcamx", "--help", cwd=ROOT).ok().text
    names = re.findall(r"^    (\w+) ", said, re.MULTILINE)
    assert {"prepare", "marks", "evaluate", "explain", "export", "phantom"} <= set(names)
    for name in names:
        words = [name, "check"] if name == "marks" else [name]
        said = processes.command(processes.BIN / "pcamx", *words, "--help", cwd=ROOT).ok().text
        assert f"example: pcamx {' '.join(words)} " in said
