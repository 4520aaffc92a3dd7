"""Formats x oddities: the files of `test_marks_matrix.py`, each with what it must become."""

from marks_matrix_coco import COCO, STUDIO
from marks_matrix_files import CVAT, LABELME, VIA, VOC, YOLO
from marks_matrix_masks import MASKS

MATRIX = {
    f"{name}: {case.name}": case
    for name, cases in {
        "COCO": COCO,
        "Label Studio": STUDIO,
        "CVAT": CVAT,
        "VOC": VOC,
        "YOLO": YOLO,
        "LabelMe": LABELME,
        "VIA": VIA,
        "masks": MASKS,
    }.items()
    for case in cases
}
