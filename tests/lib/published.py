"""The published definitions of clovaai/wsolevaluation and CheXlocalize, word for word, in loops.

Written from their formulas as slow and plain as can be: one film, one threshold and one pixel at a
time, and nothing of pcamx. What OpenCV does there (contours, Otsu) is spelled out.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
Floats = NDArray[np.float64]
Box = tuple[int, int, int, int]
EIGHT = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
FOUR = [(-1, 0), (0, -1), (0, 1), (1, 0)]


def normalised(map_HW: Floats) -> Floats:
    """wsolevaluation, normalize_scoremap; CheXlocalize, cam_to_segmentation."""
    shifted = map_HW - map_HW.min()
    return np.asarray(shifted / shifted.max())


def regions(mask_HW: NDArray[np.bool_], steps: Sequence[tuple[int, int]]) -> Iterator[list]:
    """Connected pixels (row, column), by flooding from the first one that is left."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask_HW), strict=True)}
    while left:
        stack = [min(left)]
        left.remove(stack[0])
        found = []
        while stack:
            y, x = stack.pop()
            found.append((y, x))
            for dy, dx in steps:
                if (y + dy, x + dx) in left:
                    left.remove((y + dy, x + dx))
                    stack.append((y + dy, x + dx))
        yield found


def extent(pixels: list[tuple[int, int]], grow: int = 0) -> tuple[int, int, int, int]:
    """OpenCV's boundingRect: x, y, width, height."""
    ys, xs = [y for y, _ in pixels], [x for _, x in pixels]
    x, y = min(xs) - grow, min(ys) - grow
    return x, y, max(xs) + grow - x + 1, max(ys) + grow - y + 1


def contour_boxes(above_HW: NDArray[np.bool_], *, holes: bool) -> list[Box]:
    """compute_bboxes_from_scoremaps: boxes x0 y0 x1 y1 of all contours found with RETR_TREE.

    That mode gives the outer contour of every region of 8-connected pixels, and the contour of
    every hole, which runs over the pixels around it: one more on every side.
    """
    height, width = above_HW.shape
    rects = [extent(region) for region in regions(above_HW, EIGHT)]
    if holes:
        for region in regions(~above_HW, FOUR):
            x, y, w, h = extent(region)
            if x > 0 and y > 0 and x + w < width and y + h < height:
                rects.append(extent(region, grow=1))
    return [(x, y, min(x + w, width - 1), min(y + h, height - 1)) for x, y, w, h in rects]


def box_iou(a: Box, b: Box) -> float:
    """calculate_multiple_iou: the last row and column belong to a box."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    area_a = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    area_b = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return width * height / (area_a + area_b - width * height)


def max_box_acc_v2(
    maps: Sequence[Floats], boxes: Sequence[list[Box]], deltas: Sequence[int] = (30, 50, 70)
) -> float:
    """BoxEvaluator with multi_contour_eval, averaged over its IoU thresholds, as a share."""
    taus = np.arange(0, 1, 0.001)
    correct = {delta: np.zeros(len(taus)) for delta in deltas}
    for map_HW, truth in zip(maps, boxes, strict=True):
        grey = (normalised(map_HW) * 255).astype(np.uint8)
        best_at: dict[int, float] = {}
        for index, tau in enumerate(taus):
            cut = int(tau * grey.max())
            if cut not in best_at:
                found = contour_boxes(grey > cut, holes=True) or [(0, 0, 0, 0)]
                best_at[cut] = max(box_iou(a, b) for a in found for b in truth)
            for delta in deltas:
                correct[delta][index] += best_at[cut] >= delta / 100
    return float(np.mean([(correct[delta] / len(maps)).max() for delta in deltas]))


def largest_component_acc(maps: Sequence[Floats], boxes: Sequence[list[Box]]) -> float:
    """MaxBoxAcc as the paper puts it: the largest-area component, an IoU of 0.5."""
    taus = np.arange(0, 1, 0.001)
    correct = np.zeros(len(taus))
    for map_HW, truth in zip(maps, boxes, strict=True):
        grey = (normalised(map_HW) * 255).astype(np.uint8)
        right_at: dict[int, bool] = {}
        for index, tau in enumerate(taus):
            cut = int(tau * grey.max())
            if cut not in right_at:
                above_HW = grey > cut
                largest_HW = np.zeros_like(above_HW)
                for y, x in max(regions(above_HW, EIGHT), key=len):
                    largest_HW[y, x] = True
                (box,) = contour_boxes(largest_HW, holes=False)
                right_at[cut] = max(box_iou(box, b) for b in truth) >= 0.5
            correct[index] += right_at[cut]
    return float((correct / len(maps)).max())


def pxap(maps: Sequence[Floats], lesions: Sequence[Grey]) -> float:
    """MaskEvaluator without ignored pixels, as a share."""
    edges = [*np.arange(0, 1, 0.001), 1.0, 2.0, 3.0]
    true, false = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for map_HW, lesion_HW in zip(maps, lesions, strict=True):
        score_HW = normalised(map_HW)
        true += np.histogram(score_HW[lesion_HW == 1], bins=edges)[0]
        false += np.histogram(score_HW[lesion_HW == 0], bins=edges)[0]
    area = tp = fp = 0.0
    for bin_ in reversed(range(len(true))):
        recall_before = tp / true.sum()
        tp, fp = tp + true[bin_], fp + false[bin_]
        if tp + fp > 0:
            area += tp / (tp + fp) * (tp / true.sum() - recall_before)
    return area


def hit_rate(maps: Sequence[Floats], lesions: Sequence[Grey]) -> float:
    """CheXlocalize, get_hit_rates."""
    hits = []
    for map_HW, lesion_HW in zip(maps, lesions, strict=True):
        row, column = np.unravel_index(np.argmax(map_HW), map_HW.shape)
        hits.append(float(lesion_HW[row][column] == 1))
    return float(np.mean(hits))


def otsu(grey_HW: Grey) -> int:
    """OpenCV's THRESH_OTSU: the cut after which the two classes lie farthest apart."""
    count = [int((grey_HW == level).sum()) for level in range(256)]
    total, best, cut = sum(count), 0.0, 0
    for level in range(256):
        below, above = sum(count[: level + 1]), sum(count[level + 1 :])
        if below and above:
            low = sum(i * count[i] for i in range(level + 1)) / below
            high = sum(i * count[i] for i in range(level + 1, 256)) / above
            apart = (below / total) * (above / total) * (low - high) ** 2
            if apart > best * (1 + 1e-12):
                best, cut = apart, level
    return cut


def miou(segmentations: Sequence[NDArray[np.bool_]], lesions: Sequence[Grey]) -> float:
    """CheXlocalize, calculate_iou with true_pos_only, averaged without the NaN."""
    ious = []
    for predicted_HW, lesion_HW in zip(segmentations, lesions, strict=True):
        if predicted_HW.any() and lesion_HW.any():
            both = np.logical_and(predicted_HW, lesion_HW).sum()
            ious.append(both / np.logical_or(predicted_HW, lesion_HW).sum())
    return float(np.mean(ious))


def miou_otsu(maps: Sequence[Floats], lesions: Sequence[Grey]) -> float:
    """CheXlocalize, cam_to_segmentation."""
    greys = [np.uint8(255 * normalised(map_HW)) for map_HW in maps]
    return miou([grey > otsu(grey) for grey in greys], lesions)
