"""What a model found is no person's mark: trained on it, the model would learn what it does."""

from typing import Any
from xml.etree.ElementTree import Element

EXPLAIN = "lesion candidates of pcamx explain"
"""How `pcamx explain` describes its coco.json."""
SUGGESTED = "candidates of pcamx marks suggest, which nobody has looked at yet"
"""How `pcamx marks suggest --to` describes what it writes; a tool's export says something else."""
SUGGESTED_TAG = "pcamx"
"""In the meta of its CVAT file."""
LABELME_VERSION = "0.pcamx-suggests"
"""In its LabelMe files; LabelMe puts its own there when a person saves."""
_FACTS = {"probability", "candidates", "map"}
"""Of `pcamx explain`'s json of one film."""
_REMEDY = "marks are what a person drew; correct them in a tool and export them from there"


def refusal(tree: Any) -> str:
    """Say why the content of a json or xml file is not read as marks; "" if it may be."""
    if isinstance(tree, Element):
        suggested = tree.find(f"meta/{SUGGESTED_TAG}") is not None
        return f"{SUGGESTED}; {_REMEDY}" if suggested else ""
    if isinstance(tree, list):
        if tree and all(_is_scored(item) and "image_id" in item for item in tree):
            return f"COCO results, the predictions of a model; {_REMEDY}"
        if tree and all(map(_is_to_import, tree)):
            return f"tasks to import, with predictions that nobody has looked at yet; {_REMEDY}"
        return ""
    if not isinstance(tree, dict):
        return ""
    info = tree.get("info")
    told = info.get("description") if isinstance(info, dict) else None
    if told == SUGGESTED:
        return f"{SUGGESTED} (so its info.description says); {_REMEDY}"
    if told == EXPLAIN or set(tree) >= _FACTS:
        return f"predictions of pcamx explain; {_REMEDY}"
    drawn = tree.get("annotations")
    if isinstance(drawn, list) and drawn and all(map(_is_scored, drawn)):
        return f"every annotation has a score: the predictions of a model; {_REMEDY}"
    return ""


def _is_to_import(item: Any) -> bool:
    """Whether this is a task as Label Studio imports it: what it exports has a number."""
    is_task = isinstance(item, dict) and "data" in item and "predictions" in item
    return is_task and not item.keys() & {"id", "annotations"}


def _is_scored(item: Any) -> bool:
    return isinstance(item, dict) and type(item.get("score")) in (int, float)
