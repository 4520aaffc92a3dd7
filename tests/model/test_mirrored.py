"""A mirrored network: means over a film and its mirror image, by hand."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import images, settings
from torch import Tensor, nn

from pcamx import config as configs
from pcamx.catalogue import CAM, SEGMENTER, STAGE_3, Trainable, maps_of
from pcamx.model.maps import explain
from pcamx.model.network import Network, Segmenter, build_network
from pcamx.types import ABNORMAL


def network(entry: Trainable = STAGE_3, *, mirrored: bool) -> Network | Segmenter:
    config = configs.changed(settings(), {"model.mirrored": mirrored})
    torch.manual_seed(0)
    return build_network(entry, config).eval()


class LeftColumn(nn.Module):
    """Sees the mean of each quarter in its first channel, and of those on the left alone."""

    def forward(self, image_B1HW: Tensor) -> list[Tensor]:
        quarters_B122 = F.adaptive_avg_pool2d(image_B1HW, 2) * torch.tensor([1.0, 0.0])
        return [F.pad(quarters_B122, (0, 0, 0, 0, 0, 127))]


def test_by_hand() -> None:
    """Alone the left half, 2, gives a map of 2 and 0 and the logit 1; the mirror image's, of 6 on
    the left, gives 3 and, turned back, 0 and 6.
    """
    seen = network(mirrored=True)
    assert isinstance(seen, Network)
    seen.encoder = LeftColumn()  # type: ignore[assignment]
    seen.head.weight.data.zero_()[ABNORMAL, 0] = 1
    image = torch.tensor([2.0, 2.0, 6.0, 6.0]).expand(1, 1, 4, 4)
    logits, maps = explain(seen, image, [CAM])
    assert logits is not None
    assert logits.tolist() == seen(image).tolist() == [[0.0, 2.0]]
    assert maps[CAM.key].tolist() == [[[1.0, 1.5, 2.5, 3.0]] * 4]


@pytest.mark.parametrize("entry", [STAGE_3, SEGMENTER])
def test_every_map_and_the_logits_are_means(entry: Trainable) -> None:
    """Gradient maps too; a film and its mirror image get the same answer, mirrored."""
    image, kinds = images(2, 1, 64, 64), maps_of(entry)
    alone, seen = network(entry, mirrored=False), network(entry, mirrored=True)
    one, two = (explain(alone, x, kinds) for x in (image, image.flip(-1)))
    logits, maps = explain(seen, image, kinds)
    turned_logits, turned = explain(seen, image.flip(-1), kinds)
    assert list(maps) == [kind.key for kind in kinds]
    for key, found in maps.items():
        expected = torch.stack([one[1][key], two[1][key].flip(-1)]).mean(0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        assert torch.equal(turned[key].flip(-1), found)
        assert not torch.equal(found, one[1][key])
    if entry.classifies:
        assert logits is not None and one[0] is not None and two[0] is not None
        torch.testing.assert_close(logits, (one[0] + two[0]) / 2)
        torch.testing.assert_close(seen(image), logits)
        assert torch.equal(turned_logits, logits) and not torch.equal(logits, one[0])  # type: ignore[arg-type]


def test_training_sees_the_film_alone() -> None:
    image = images(2, 1, 64, 64)
    alone, seen = (network(mirrored=mirrored).train() for mirrored in (False, True))
    assert torch.equal(alone(image), seen(image))
    for one, other in zip(alone.buffers(), seen.buffers(), strict=True):
        assert torch.equal(one, other)
