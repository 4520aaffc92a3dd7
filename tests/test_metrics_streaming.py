"""Metrics batch by batch: as from all films at once, in constant memory, over two real ranks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import processes
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from pcamx import metrics
from pcamx.metrics import FilmMean, MaxBoxAcc, PixelAveragePrecision, SizeMeans

FILMS = 7
FOUND = (0, 2, 3, 5)  # films whose map is hottest on the lesion: by size 1 of 1, 2 of 3, 1 of 3
MAKE: dict[str, Callable[[], Metric]] = {
    "pointing": lambda: FilmMean(metrics.pointing),
    "energy": lambda: FilmMean(metrics.energy),
    "relevance_rank": lambda: FilmMean(metrics.relevance_rank),
    "miou_otsu": lambda: FilmMean(metrics.iou_otsu),
    "pxap": PixelAveragePrecision,
    "maxboxacc_v2": MaxBoxAcc,
    "maxboxacc": partial(MaxBoxAcc, largest=True, iou_levels=(0.5,)),
    "by_size": lambda: SizeMeans(metrics.pointing),
}


def some_films() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    map_BHW = torch.rand(FILMS, 30, 30, generator=generator, dtype=torch.float64)
    lesion_BHW = torch.zeros(FILMS, 30, 30)
    for film in range(FILMS):
        lesion_BHW[film, 4 : 5 + film, 5:7] = 1  # 2 to 14 of 900 pixels: all three sizes
        map_BHW[film] += 2 * lesion_BHW[film] * (film in FOUND)
    return map_BHW, lesion_BHW


def whole(map_BHW: Tensor, lesion_BHW: Tensor) -> dict[str, float]:
    """The same figures from the functions, all films at once."""
    hit = metrics.box_hits(metrics.box_iou_curve(map_BHW, lesion_BHW))
    largest = metrics.box_iou_curve(map_BHW, lesion_BHW, largest=True)
    pixels = metrics.pixel_counts(map_BHW, lesion_BHW)
    pointing, share = metrics.pointing(map_BHW, lesion_BHW), metrics.lesion_share(lesion_BHW)
    found = {
        "pointing": pointing.mean().item(),
        "energy": metrics.energy(map_BHW, lesion_BHW).mean().item(),
        "relevance_rank": metrics.relevance_rank(map_BHW, lesion_BHW).mean().item(),
        "miou_otsu": metrics.iou_otsu(map_BHW, lesion_BHW).mean().item(),
        "pxap": metrics.pixel_average_precision(pixels).value,
        "maxboxacc_v2": metrics.max_box_acc(hit).mean(),
        "maxboxacc": metrics.max_box_acc(metrics.box_hits(largest, (0.5,))).mean(),
    }
    sizes = {f"by_size_{s}": pointing[metrics.in_slice(share, s)].mean() for s in metrics.SIZES}
    return {k: float(v) for k, v in {**found, **sizes}.items() if v is not None}


def flat(computed: dict[str, Tensor]) -> dict[str, float]:
    sizes = {k if k not in metrics.SIZES else f"by_size_{k}": v for k, v in computed.items()}
    return {key: float(value) for key, value in sizes.items()}


def test_batches_of_any_size_give_the_same() -> None:
    map_BHW, lesion_BHW = some_films()
    expected = whole(map_BHW, lesion_BHW)
    assert len(expected) == 10 and min(expected.values()) > 0
    by_size = [expected[f"by_size_{size}"] for size in ("small", "medium", "large")]
    assert by_size == pytest.approx([1, 2 / 3, 1 / 3])
    for sizes in ([7], [1] * 7, [3, 0, 4]):
        collection = MetricCollection({name: make() for name, make in MAKE.items()})
        for batch in zip(map_BHW.split(sizes), lesion_BHW.split(sizes), strict=True):
            collection.update(*batch)
        assert flat(collection.compute()) == pytest.approx(expected, abs=1e-12)
        collection.reset()
        collection.update(map_BHW[:2], lesion_BHW[:2])
        assert collection.compute()["pointing"] == metrics.pointing(*some_films())[:2].mean()


def test_false_activation_over_normal_films() -> None:
    map_BHW, _ = some_films()
    rate = FilmMean(lambda maps: metrics.false_activation(metrics.peak(maps), 1.5))
    rate.update(map_BHW[:4])
    rate.update(map_BHW[4:])
    assert rate.compute().item() == pytest.approx(4 / 7)


@pytest.mark.parametrize("name", MAKE)
def test_nothing_seen_is_not_a_number(name: str) -> None:
    metric = MAKE[name]()
    with pytest.warns(UserWarning, match="before the ``update``"):
        found = metric.compute()
    assert all(v.isnan() for v in (found.values() if isinstance(found, dict) else [found]))


@pytest.mark.parametrize("name", MAKE)
def test_memory_does_not_grow_with_films_or_canvas(name: str) -> None:
    def kept(size: int, times: int) -> int:
        metric = MAKE[name]()
        lesion_BHW = torch.zeros(2, size, size)
        lesion_BHW[:, : size // 5, : size // 4] = 1
        for _ in range(times):
            metric.update(torch.rand(2, size, size), lesion_BHW)
        states = [getattr(metric, state) for state in metric._defaults]
        assert all(isinstance(state, Tensor) for state in states)
        return sum(state.numel() * state.element_size() for state in states)

    assert kept(16, 1) == kept(32, 12) <= 17_000


def _rank(rank: int, port: int, folder: str) -> None:
    """Rank 0 sees films 0, 1, 2, rank 1 the others; then a rank without a film at all."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    map_BHW, lesion_BHW = some_films()
    own = slice(0, 3) if rank == 0 else slice(3, FILMS)
    collection = MetricCollection({name: make() for name, make in MAKE.items()})
    collection.update(map_BHW[own], lesion_BHW[own])
    found = [flat(collection.compute())]
    collection.reset()
    own = slice(0, FILMS) if rank == 0 else slice(0, 0)
    collection.update(map_BHW[own], lesion_BHW[own])
    found.append(flat(collection.compute()))
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_add_up(tmp_path: Path) -> None:
    processes.on_ranks(_rank, processes.free_port(), str(tmp_path))
    expected = whole(*some_films())
    for rank in range(2):
        for found in torch.load(tmp_path / f"{rank}.pt"):
            assert found == pytest.approx(expected, abs=1e-12)
