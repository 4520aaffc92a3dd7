"""launch/slurm.sh with a Slurm of a dozen lines, a pod's command, and what the Dockerfile takes.

The commands run as they are, ranks are real processes. How Slurm itself and an image did stands in
bench/results/cpu_2026-11_tools.md.
"""

import json
import os
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import processes
import pytest
import stores
import yaml

from pcamx.run.weights import load_weights

SCRIPT, DOCKERFILE = (processes.PROJECT / "launch" / name for name in ("slurm.sh", "Dockerfile"))
SCONTROL = "#!/bin/bash\n[ \"$*\" = 'show hostnames nodes' ] && printf '127.0.0.1\\nother\\n'\n"
SRUN = """#!/bin/bash
shift
for n in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_PROCID=$n SLURM_LOCALID=$n "$@" & pids+=($!)
done
code=0
for pid in "${pids[@]}"; do wait $pid || code=$?; done
exit $code
"""
ECHO = '#!/bin/bash\necho "$MASTER_ADDR:$MASTER_PORT ${@: -3}"\n'


@pytest.fixture
def slurm(tmp_path: Path) -> Any:
    """``slurm(srun, *words, **env)`` runs the script in ``tmp_path`` as a job of two tasks."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()

    def run(srun: str, *words: object, **env: str) -> processes.Ended:
        for name, text in (("srun", srun), ("scontrol", SCONTROL)):
            (bin_ / name).write_text(text)
            (bin_ / name).chmod(0o755)
        path = f"{bin_}:{processes.BIN}:{os.environ['PATH']}"
        job = {"SLURM_JOB_ID": "12345", "SLURM_JOB_NODELIST": "nodes", "SLURM_NTASKS": "2"}
        return processes.command("bash", SCRIPT, *words, cwd=tmp_path, PATH=path, **(job | env))

    return run


def test_two_tasks_train_together(tmp_path: Path, write_config: Any, slurm: Any) -> None:
    write_config(tmp_path)
    words = ("run.yaml", "--stage", 1, "--set", "stages.stage1.epochs=1")
    slurm(SRUN, *words, MASTER_PORT=str(processes.free_port())).ok()
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if x["kind"] == "train"] == [1, 2, 3, 4]
    assert load_weights(tmp_path / "run/stage1/weights.pt").world == 2


@pytest.mark.parametrize(
    ("words", "restarts", "expected"),
    [
        (("c.yaml", "--stage", "all"), "0", "c.yaml --stage all"),
        (("c.yaml", "--stage", "all"), "1", "--stage all --resume"),
        (("c.yaml", "--resume", "--stage", "all"), "1", "--resume --stage all"),
    ],
)
def test_what_every_rank_is_told(
    words: tuple[str, ...], restarts: str, expected: str, slurm: Any
) -> None:
    said = slurm(ECHO, *words, SLURM_RESTART_COUNT=restarts).ok().text
    assert said.split(" ", 1) == ["127.0.0.1:20345", expected + "\n"]


def test_the_image_takes_what_there_is() -> None:
    text = DOCKERFILE.read_text()
    taken = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for word in line.split()]
    links = {p.readlink().name for p in (processes.PROJECT / "pcamx").iterdir() if p.is_symlink()}
    assert {"pyproject.toml", "pcamx"} | links < set(taken) and links == {"kernels", "configs"}
    assert all((processes.PROJECT / name).exists() for name in taken)
    project = tomllib.loads((processes.PROJECT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"/src\[([\w,]+)\]", text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert project["readme"] in taken and set(project["license-files"]) <= set(taken)


def test_what_a_pod_runs(tmp_path: Path, write_config: Any, store_folder: Path) -> None:
    """The pod's own command, with a torchrun that starts two processes of one node: it trains.

    And a validation split of one class, for which there is no AUROC.
    """
    service, job = yaml.safe_load_all((DOCKERFILE.parent / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    nodes = str(job["spec"]["completions"])
    assert f"--nnodes {nodes} " in container["command"][2]
    assert (
        f"--master_addr {job['metadata']['name']}-0.{pod['subdomain']} " in container["command"][2]
    )
    assert pod["subdomain"] == service["metadata"]["name"]
    assert {v["name"] for v in pod["volumes"]} == {v["name"] for v in container["volumeMounts"]}
    told = tmp_path / "bin/torchrun"
    told.parent.mkdir()
    torchrun = shlex.quote(str(processes.BIN / "torchrun"))
    told.write_text(
        f'#!/bin/bash\necho "$6" > node\nshift 10\nexec {torchrun} --nnodes 1 --nproc_per_node 2 '
        f'--master_addr 127.0.0.1 --master_port {processes.free_port()} "$@"\n'
    )
    told.chmod(0o755)
    shutil.copytree(store_folder, tmp_path / "store")
    stores.change(tmp_path / "store", stores.abnormal_validation_only)
    config = write_config(tmp_path, {"stages.stage1.epochs": 1, "data.store": "store"})
    words = [*container["command"], config.name, "--stage", "1"]
    path = f"{told.parent}:{processes.BIN}:{os.environ['PATH']}"
    ended = processes.command(*words, cwd=tmp_path, PATH=path, JOB_COMPLETION_INDEX="0").ok()
    assert (tmp_path / "node").read_text() == "0\n" and "Traceback" not in ended.text
    assert load_weights(tmp_path / "run/stage1/weights.pt").world == 2
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["kind"] == "valid" and "accuracy" in last and "auroc" not in last
