"""README.md of an export: a model card, with the front matter that Hugging Face reads."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pcamx import __version__
from pcamx.catalogue import BASELINES, MAPS, SAME_MARKS, trainable
from pcamx.data.patients import FILMS
from pcamx.report import numbers, rows, sentences
from pcamx.run.pretrained import Pretrained
from pcamx.run.report import Report
from pcamx.run.weights import Weights

_HEAD = """\
---
library_name: pcamx
pipeline_tag: image-classification
license: unknown
tags:
- x-ray
- radiography
- class-activation-map
- onnx
- safetensors
---

# Bone X-ray classifier with a map of what it looks at

Says how likely a bone radiograph is abnormal and where that decision rests. The method is that of
Lu & Tong, *Towards to Reasonable Decision Basis in Automatic Bone X-Ray Image Classification: A
Weakly-Supervised Approach* (AAAI-19), {stage}.

**For research only. This is not a medical device: do not use it for diagnosis, triage or any other
decision about a patient.**

## Use

`pcamx explain FOLDER film.png` draws the map over a film, of any depth, and DICOM. In Python, for a
film of 8 bits (Pillow resizes a little differently from the decoder of the training):

```python
import numpy as np
from PIL import Image, ImageOps

film = ImageOps.exif_transpose(Image.open("film.png")).convert("L")
side = max(film.size)
width, height = (max(1, (2 * n * {canvas} + side) // (2 * side)) for n in film.size)
canvas = Image.new("L", ({canvas}, {canvas}))
place = ({canvas} - width) // 2, ({canvas} - height) // 2
canvas.paste(film.resize((width, height), Image.Resampling.BILINEAR), place)
grey = np.asarray(canvas, np.float32)[None, None]
```

with ONNX

```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
{outputs} = session.run(None, {{"image": grey}})
```

or with pcamx

```python
import torch
from pcamx import from_pretrained

model = from_pretrained(".", device="cpu")
probability, maps = model.explain(torch.from_numpy(grey))
```

`model.predict("film.png")` reads a film of any depth, and DICOM, and finds lesion candidates too.
`samples/` holds two drawn films, of no patient, and what this model answers to them: `pcamx export
--check FOLDER` tells whether a copy of this folder is whole and answers the same. The facts of
config.json are in model.onnx as well, as its metadata.
"""

_UNMEASURED = """\
## Figures

Not measured: run `pcamx evaluate` on the run and export it again.
"""

_LIMITS = """\
## Limits

- Films of other hospitals, devices, ages or body parts than those it was trained on: unmeasured,
  expect worse.
- A map scaled by its own minimum and maximum shows a hot spot on every film, normal ones too. Look
  at the probability first, and compare raw maps.
- The map has cells of {stride} pixels of the canvas: it says about where, not how far a lesion
  reaches.
- Whose films these are, and under which terms films and weights may be used, is for whoever
  publishes this model to add here.
"""


def model_card(
    model: Pretrained, weights: Weights, report: Report | None, onnx: Mapping[str, Any]
) -> str:
    """Return the card of an exported stage as Markdown.

    ``report`` is the run's report.json, None where it was not measured; ``onnx`` the parity.
    """
    outputs = ", ".join(onnx["max_abs_diff"])
    parts = [
        _HEAD.format(stage=trainable(model.stage).title, canvas=model.canvas, outputs=outputs),
        "\n".join(_interface(model, report)),
        "\n".join(_figures(model, report)) if report else _UNMEASURED,
        _making(model, weights, onnx),
        _LIMITS.format(stride=model.network.encoder.stride),
    ]
    return "\n".join(parts)


def _interface(model: Pretrained, report: Report | None) -> Iterator[str]:
    side, cells = model.canvas, model.canvas // model.network.encoder.stride
    yield "| | shape | what |\n|---|---|---|"
    yield (
        f"| image | [B, 1, {side}, {side}] float32 | grey levels 0 to 255, bone bright, aspect "
        "kept, centred on black; standardisation is inside the graph |"
    )
    both = ", the mean over the film and its mirror image, as are the maps" * model.mirrored
    yield f"| probability | [B] | of abnormal{both} |"
    yield (
        f"| map | [B, {cells}, {cells}] | positive class activation map of the abnormal class, "
        "raw: comparable between films |"
    )
    entry = trainable(model.stage)
    if entry.decoder:
        marked = f"{report['data']['marked_used']} marked" if report else "marked"
        yield (
            f"| lesion | [B, {side}, {side}] | the decoder's lesion map, 0 to 1, learned from "
            f"{marked} films |"
        )
    titles = {kind.key: kind.title for kind in MAPS}
    thresholds = (
        f"{titles[name]} {t.value:g}{'' if t.tuned else ' (not tuned)'}"
        for name, t in model.thresholds.items()
    )
    levels = (
        f"{titles[name]} {t.level:.4g}"
        for name, t in model.thresholds.items()
        if t.level is not None
    )
    yield (
        f"\nMean {model.mean:.3f}, std {model.std:.3f} grey levels. A pixel counts as lesion where "
        f"a map, upsampled and scaled to [0, 1] per film, reaches: {', '.join(thresholds)}. A "
        "lesion candidate's peak reaches, not scaled, what few of the normal training films do: "
        f"{', '.join(levels) or 'not measured'}.\n"
    )


def _figures(model: Pretrained, report: Report) -> Iterator[str]:
    kept = (trainable(model.stage).title, *(baseline.title for baseline in BASELINES))
    other_maps = {kind.title for kind in MAPS if kind.key not in model.thresholds}
    located = [
        (f"{group.title}, {row.name}", row.figures)
        for group in rows.localization(report)
        for row in group.rows
        if group.title in kept and row.name not in other_maps
    ]
    classified = [(r.name, r.figures) for r in rows.classification(report) if r.name in kept]
    valid = report["data"]["splits"]["valid"]
    over, segmenter = sentences.over(report), ""
    of = "" if over == FILMS else f" of {valid['patients']} {over}"
    if trainable(model.stage).decoder and SAME_MARKS.key in report["baselines"]:
        segmenter = ", and a segmenter trained on the same marks alone"
    yield "## Figures\n"
    yield (
        f"On the validation split: {valid['films']} films{of}, "
        f"{valid['abnormal']} abnormal, {valid['marked']} with a marked lesion. In brackets the "
        f"95 % bootstrap interval over {over}. Baselines: a Gaussian at the centre of every film, "
        f"the same network untrained{segmenter}.\n"
    )
    yield from _table("classification", rows.titles("decision", "first"), classified)
    yield from _table("where the map lies", rows.titles("map", "first"), located)
    commit = report["commit"] or "unknown"
    yield (
        f"{report['device']}; {_listed(report['versions'])}; commit {commit}; "
        f"{report['created']}.\n"
    )


def _table(
    corner: str,
    columns: Mapping[str, str],
    lines: Sequence[tuple[str, Mapping[str, rows.Estimate]]],
) -> Iterator[str]:
    yield f"| {corner} | {' | '.join(columns.values())} | n |"
    yield "|---" * (len(columns) + 2) + "|"
    for name, figures in lines:
        cells = (f"{figures[key].text()} {figures[key].interval()}".strip() for key in columns)
        yield f"| {name} | {' | '.join(cells)} | {rows.counts(figures)} |"
    yield ""


def _making(model: Pretrained, weights: Weights, onnx: Mapping[str, Any]) -> str:
    differences = ", ".join(f"{name} {d:.1e}" for name, d in onnx["max_abs_diff"].items())
    count = sum(parameter.numel() for parameter in model.network.parameters())
    return (
        "## How it was made\n\n"
        f"{trainable(weights.stage).title.capitalize()}, {weights.epochs} epochs in "
        f"{numbers.duration(weights.seconds)}; "
        f"ranks: {weights.world}, device: {weights.device}. Encoder {weights.encoder}, {count:,} "
        f"weights. Exported by pcamx {__version__}.\n\n"
        f"`model.onnx` (opset {onnx['opset']}; {_listed(onnx['versions'])}) and PyTorch differ on "
        f"eight test canvases by at most: {differences} (CPU).\n"
    )


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
