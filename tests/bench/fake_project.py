"""A project whose train.py and `pcamx evaluate` only write the files that a run leaves.

FAKE_TRAIN and FAKE_PCAMX run as programs of their own; PLAN, JSON beside them, says what to do.
"""

import json
from pathlib import Path

from pcamx.evaluation.film_table import columns

FAKE_TRAIN = """
import json, os, pathlib, signal, sys
import yaml

options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
config = yaml.safe_load(open(options["--config"]))
run = pathlib.Path(config["run"]["folder"])
stage = options["--stage"]
stage = stage if stage == "segmenter" else "stage" + stage
name = f"{run.parent.name} {run.name} {stage}" + (" resumed" if sys.argv[-1] == "--resume" else "")
root = pathlib.Path(__file__).parents[1]
plan = json.loads((root / "plan.json").read_text())

def note(text):
    with open(root / "calls.txt", "a") as file:
        file.write(text + "\\n")

note(name)
(run / stage).mkdir(parents=True, exist_ok=True)
(run / "config.yaml").write_text(open(options["--config"]).read())
if name in plan["fail"]:
    print("epoch 1")
    print("pcamx: error: the loss is nan", file=sys.stderr)
    sys.exit(2)
if name in plan["interrupt"]:
    def stop(*_):
        note(name + " stopped")
        sys.exit(130)
    signal.signal(signal.SIGINT, stop)
    signal.alarm(30)  # its end if nobody stops it
    os.kill(os.getppid(), signal.SIGINT)
    signal.pause()
if name in plan["hold"]:
    open(root / "hold").read()
(run / stage / "weights.pt").write_text("")
"""

FAKE_PCAMX = """
import json, pathlib, sys
import yaml

run = pathlib.Path(sys.argv[2])
root = pathlib.Path(__file__).parents[1]
with open(root / "calls.txt", "a") as file:
    file.write(f"{run.parent.name} {run.name} evaluate\\n")
plan = json.loads((root / "plan.json").read_text())
films = plan["films"][run.parent.name][run.name]
columns = plan["columns"]
stages = [n for n in "123" if (run / f"stage{n}/weights.pt").is_file()]
rival = (run / "segmenter/weights.pt").is_file()
places = [(f"stage {n}", "positive_cam", films) for n in stages]
if rival:  # points at the first film alone
    places += [("stage 3", "decoder", films), ("segmenter", "decoder", [1, 0, 0, 0])]
rows = [",".join(columns)]
for network, name, hits in places:
    for k, hit in enumerate(hits):
        row = {"path": f"f{k}", "patient": f"p{k}", "label": "1", "network": network,
               "map": name, "pointing": str(hit), "miou": str(hit / 2)}
        if "--twins" in sys.argv:
            row |= {"lesion_effect": str(hit), "lesion_flips": str(hit)}
        rows.append(",".join(row.get(c, "") for c in columns))
(run / "films.csv").write_text("\\n".join(rows) + "\\n")
mean = sum(films) / len(films)
figure = lambda value: {"value": value, "low": value, "high": value, "n": len(films)}
at = lambda mean: {"pointing": figure(mean), "miou": figure(mean / 2), "threshold": 0.5}
part = {"classification": {"auroc": figure(0.75)}, "device": "a machine", "ranks": 1,
        "localization": {"positive_cam": at(mean), **({"decoder": at(mean)} if rival else {})}}
data = {}
if "--twins" in sys.argv:
    part["basis"] = {"lesion_effect": figure(mean), "lesion_flips": figure(mean)}
    data["twins"] = sys.argv[sys.argv.index("--twins") + 1]
baselines = {"segmenter": {"localization": {"decoder": at(0.25)}}} if rival else {}
report = {"format": 1, "commit": "0123abc", "stages": {n: part for n in stages},
          "baselines": baselines, "data": data, "config": {}}
(run / "report.json").write_text(json.dumps(report))
"""


def write_project(root: Path, **plan: object) -> Path:
    """The fake project in ``root``: fail, interrupt, hold name calls; films as PLAN's."""
    for name, text in {"launch/train.py": FAKE_TRAIN, "pcamx/__main__.py": FAKE_PCAMX}.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    (root / "pcamx/__init__.py").write_text("")
    nothing: dict[str, object] = {"fail": [], "interrupt": [], "hold": [], "columns": columns()}
    (root / "plan.json").write_text(json.dumps(nothing | plan))
    return root
