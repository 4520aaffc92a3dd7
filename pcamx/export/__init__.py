"""`pcamx export RUN`: a folder that other programs and other people read.

FOLDER/config.json, model.safetensors   what `pcamx.from_pretrained` and `pcamx explain` read
FOLDER/model.onnx, onnx.json            the same network for other runtimes, and its parity
FOLDER/README.md                        model card
FOLDER/samples/                         two drawn films, the answers to them, all digests

A finished run comes in; `pcamx export` alone calls it.
"""

import json
from pathlib import Path
from typing import Any

from pcamx.catalogue import StageId
from pcamx.export.card import model_card
from pcamx.export.graph import ONNX, require_packages, write_onnx
from pcamx.export.samples import check_copy, write_samples
from pcamx.output import refuse_anything, replacing_folder
from pcamx.run.folder import RunFolder
from pcamx.run.pretrained import from_pretrained, save_pretrained
from pcamx.run.report import read_report_of

__all__ = ["check_copy", "export"]


def export(run: Path, out: Path, *, stage: StageId | None = None) -> dict[str, Any]:
    """Write the last finished stage of ``run``, or ``stage``, into the new folder ``out``.

    All of it or nothing. Returns what onnx.json says. Raises PcamxError where the run has no such
    stage, ``out`` is not empty, a package is missing, or ONNX and PyTorch disagree.
    """
    refuse_anything(out)
    folder = RunFolder(run)
    folder.read_config()
    require_packages()
    model = from_pretrained(run, stage=stage, device="cpu")
    weights = folder.load_weights(model.stage)
    report = read_report_of(folder, weights)
    with replacing_folder(out, refuse_anything) as draft:
        save_pretrained(model, draft)
        onnx = write_onnx(model, draft / ONNX)
        (draft / "onnx.json").write_text(json.dumps(onnx, indent=1) + "\n", encoding="utf-8")
        card = model_card(model, weights, report, onnx)
        (draft / "README.md").write_text(card, encoding="utf-8")
        write_samples(model, draft)
    return onnx
