"""Who may import whom, which library lives where, and the command line that is fixed."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

from pcamx.cli.init import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
ORDER = [  # imports point down, or stay on their line
    "pcamx",  # names what it offers, and imports it on first use
    "launch bench tests pcamx.cli pcamx.__main__",
    "pcamx.compare",
    "pcamx.training pcamx.evaluation pcamx.explain pcamx.export pcamx.marking",
    "pcamx.run pcamx.report",
    "pcamx.engine",
    "pcamx.metrics pcamx.model pcamx.data pcamx.cam",
    "pcamx.ops",
    "pcamx.config pcamx.distributed pcamx.processes",
    "pcamx.catalogue pcamx.types pcamx.errors pcamx.output pcamx.progress pcamx.provenance "
    "pcamx.devices pcamx.seals pcamx.stops",
    "pcamx.kernels",
]
LEVEL = {name: -depth for depth, line in enumerate(ORDER) for name in line.split()}
HOME = {  # everything else in pcamx, kernels and launch does without
    "triton": "pcamx.kernels",
    "nvidia.dali": "pcamx.data.canvas",
    "nvidia.nvimgcodec": "pcamx.data",
    "imagecodecs": "pcamx.data.prepare",
    "deepspeed": "pcamx.engine",
    "yaml": "pcamx.config",
    "rich": "pcamx.report",
    "matplotlib": "pcamx.report",
    "jinja2": "pcamx.report.html",
    "pydicom": "pcamx.data.files",
    "highdicom": "pcamx.explain",
    "safetensors": "pcamx.run",
    "onnx": "pcamx.export",
    "onnxruntime": "pcamx.export",
    "torchmetrics": "pcamx.metrics",
    "cv2": "pcamx.evaluation",
}


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def level(module: str) -> int | None:
    """Of the longest known package that holds ``module``; None outside the project."""
    known = [package for package in LEVEL if inside(module, package) and package != "pcamx"]
    return LEVEL[max(known, key=len)] if known else LEVEL["pcamx"] if module == "pcamx" else None


def imports(source: str) -> Iterator[str]:
    """Dotted names of all imports, those inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module}.{alias.name}" for alias in node.names)


def offences(module: str, source: str) -> list[str]:
    ours, found = level(module), []
    if ours is None:
        return [f"{module} has no place in the order"]
    for name in imports(source):
        if name.startswith("."):
            found.append(f"{module} imports {name} by a relative path")
        theirs = level(name) if name.startswith(("pcamx.", "launch.", "bench.", "tests.")) else None
        if theirs is not None and theirs > ours:
            found.append(f"{module} imports {name} from above")
        for library, home in HOME.items():
            bound = not module.startswith(("bench.", "tests."))
            if bound and inside(name, library) and not inside(module, home):
                found.append(f"{module} imports {name}, whose home is {home}")
    return found


def modules() -> dict[str, str]:
    found = {}
    for top in ("pcamx", "kernels", "launch", "bench"):
        for path in (ROOT / top).rglob("*.py"):
            relative = path.relative_to(ROOT)
            if relative.parts[:2] == ("pcamx", "kernels"):
                continue  # the link
            parts = (("pcamx",) if top == "kernels" else ()) + relative.with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


def arrows(tree: Mapping[str, str]) -> dict[str, set[str]]:
    """Rooms, and the rooms that each imports from; a room and one within it count as one."""
    packages = {m for m in tree if any(other.startswith(m + ".") for other in tree)}

    def room(module: str) -> str:
        inner = module if module in packages else module.rpartition(".")[0]
        # A module of the top floor is a room of its own.
        return module if inner == "pcamx" else inner

    found: dict[str, set[str]] = {}
    for module, source in tree.items():
        for name in imports(source):
            while name and name not in tree:
                name = name.rpartition(".")[0]
            here, there = room(module), room(name)
            if name and name != "pcamx" and not inside(here, there) and not inside(there, here):
                found.setdefault(here, set()).add(there)
    return found


def test_no_rooms_import_each_other() -> None:
    found = arrows(modules())
    assert "pcamx.data.canvas" in found["pcamx.data.feed"]
    tuple(TopologicalSorter(found).static_order())


def test_a_circle_is_seen() -> None:
    tree = {"pcamx.a.x": "from pcamx.b.y import f", "pcamx.b.y": "", "pcamx.a": "", "pcamx.b": ""}
    tuple(TopologicalSorter(arrows(tree)).static_order())
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(arrows(tree | {"pcamx.b.z": "import pcamx.a.x"})).static_order())


def test_the_tree_keeps_the_order() -> None:
    tree = modules()
    assert {
        "pcamx.ops",
        "pcamx.kernels.reference",
        "launch.train",
        "pcamx.data.feed.batches",
    } <= set(tree)
    assert [line for module, source in tree.items() for line in offences(module, source)] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pcamx.data.feed.batches", "from pcamx.report.console import track"),
        ("pcamx.data.feed.batches", "from pcamx import report"),
        ("pcamx.run.folder", "def f():\n    import pcamx.training.trainer"),
        (
            "pcamx.model.head",
            "from pcamx.kernels import reference\nfrom pcamx.training import stages",
        ),
        ("pcamx.kernels.attend", "from pcamx import types"),
        ("pcamx.ops", "from pcamx.model.head import Head"),
        ("pcamx.config", "from . import ops"),
        ("pcamx.ops", "import triton.language as tl"),
        ("pcamx.training.trainer", "def f():\n    from deepspeed import comm"),
        ("pcamx.run.checkpoints", "import yaml"),
        ("pcamx.cli", "from rich.console import Console"),
        ("pcamx.model.head", "from nvidia import dali"),
        ("pcamx.report.page", "import nvidia.nvimgcodec"),
        ("pcamx.report.page", "from jinja2 import Environment"),
        ("launch.train", "from matplotlib.figure import Figure"),
        ("pcamx.newcomer", ""),
    ],
)
def test_the_check_can_fail(module: str, source: str) -> None:
    assert offences(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pcamx.kernels.attend", "import triton\nfrom pcamx.kernels.reference import attend"),
        ("pcamx.data.canvas.decode", "from nvidia import dali\nfrom pcamx.types import Batch"),
        ("pcamx.evaluation.evaluate", "from pcamx import __version__, checkpoint"),
        ("launch.train", "from pcamx.training.trainer import train"),
        ("pcamx.engine", "import deepspeed.ops, richer"),
    ],
)
def test_the_check_lets_the_rest_pass(module: str, source: str) -> None:
    assert offences(module, source) == []


def test_markup_stands_in_templates() -> None:
    """A closing tag in Python is HTML or SVG that belongs into pcamx/report/templates/."""
    tags = {module: re.findall(r"</\w+>", source) for module, source in modules().items()}
    assert {module: found for module, found in tags.items() if found} == {}


def test_the_wheel_takes_every_template_and_config_along() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["pcamx"]
    shipped = {path for pattern in patterns for path in (ROOT / "pcamx").glob(pattern)}
    templates = {path for path in (ROOT / "pcamx/report/templates").rglob("*") if path.is_file()}
    assert {"base.html", "page.css"} <= {path.name for path in templates}
    assert templates <= shipped
    assert {ROOT / "pcamx/configs" / f"{name}.yaml" for name in SHIPPED} <= shipped
    assert ROOT / "pcamx/py.typed" in shipped  # by which mypy reads the types of an installed pcamx


def test_folders() -> None:
    link = ROOT / "pcamx" / "kernels"
    assert link.is_symlink() and link.readlink() == Path("../kernels")
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert (ROOT / "pcamx/configs").readlink() == Path("../configs")
    assert {path.stem for path in (ROOT / "configs").iterdir()} == set(SHIPPED)
    kept = {p.name for p in (ROOT / "launch").iterdir() if p.name != "__pycache__"}
    assert kept == {"train.py", "slurm.sh", "kubernetes.yaml", "Dockerfile"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import pcamx; assert pcamx.__version__", {"torch", *HOME}),
        ("from pcamx import PositiveCAM; assert PositiveCAM", set(HOME)),
        ("import pcamx; assert pcamx.from_pretrained", set(HOME) - {"yaml", "safetensors"}),
    ],
)
def test_imports_are_light(code: str, absent: set[str]) -> None:
    code = f"import sys; {code}; print({absent} & set(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "set()"


@pytest.fixture(name="launch", scope="module")
def _launch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("launch_train", ROOT / "launch" / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line_of_launch_is_frozen(launch: ModuleType) -> None:
    calls = [n for n in ast.walk(ast.parse(modules()["launch.train"])) if isinstance(n, ast.Call)]
    added = [
        n for n in calls if isinstance(n.func, ast.Attribute) and n.func.attr == "add_argument"
    ]
    names = [ast.literal_eval(argument) for call in added for argument in call.args]
    assert names == ["--stage", "--config", "--resume", "--local_rank"]
    least = vars(launch.parse(["--stage", "all", "--config", "a.yaml"]))
    assert least == {"stage": "all", "config": "a.yaml", "resume": False, "local_rank": None}
    most = ["--local_rank=1", "--stage", "3", "--config", "a.yaml", "--resume"]
    assert vars(launch.parse(most)) == least | {"stage": "3", "resume": True, "local_rank": "1"}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--stage", "1"],
        ["--config", "a.yaml"],
        ["--stage", "4", "--config", "a.yaml"],
        ["--stage", "1", "--config", "a.yaml", "--lr", "1"],
    ],
)
def test_launch_refuses(launch: ModuleType, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        launch.parse(arguments)
    assert caught.value.code == 2
