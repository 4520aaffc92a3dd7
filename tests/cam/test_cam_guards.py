"""PositiveCAM in threads, on layers that run over again, and the model afterwards."""

import copy
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from classifiers import images
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pcamx import PositiveCAM


class Small(nn.Module):
    """Two layers and a head, so that a forward is short and threads meet often."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(8, 8, 3, 1, 1)
        self.fc = nn.Linear(8, 2)

    def maps(self, x: Tensor) -> Tensor:
        maps: Tensor = self.last(self.first(x))
        return maps

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.fc(self.maps(x).mean((2, 3)))
        return answer


def untouched(model: nn.Module, training: bool) -> bool:
    return all(layer.training is training and not layer._forward_hooks for layer in model.modules())


@pytest.mark.parametrize("shared", [True, False])
def test_each_thread_gets_its_own_images_maps_and_classes(shared: bool) -> None:
    model, together = Small().train(), 8
    xs = [images(2, seed=k) for k in range(together)]
    picked = [[k % 2, 1 - k % 2] for k in range(together)]
    want = [PositiveCAM(model)(x, p) for x, p in zip(xs, picked, strict=True)]
    one, start = PositiveCAM(model), threading.Barrier(together)

    def work(k: int) -> int:
        cam = one if shared else PositiveCAM(model)
        start.wait()
        wrong = 0
        for _ in range(40):
            maps = cam(xs[k], picked[k])
            assert cam.class_idx is not None
            wrong += not torch.equal(maps, want[k]) or cam.class_idx.tolist() != picked[k]
        return wrong

    with ThreadPoolExecutor(together) as pool:
        assert list(pool.map(work, range(together))) == [0] * together
    assert untouched(model, training=True)
    assert one.class_idx is None or one.class_idx.tolist() in ([0, 1], [1, 0])


def test_another_threads_forward_is_not_taken_for_ones_own() -> None:
    """The foreign forward falls, for certain, between the target's and the end of one's own."""
    model, x, foreign = Small().eval(), images(2), images(2, seed=9)
    want = PositiveCAM(model)(x, 0)

    def elsewhere(*_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            with ThreadPoolExecutor(1) as pool:
                pool.submit(model, foreign).result()

    handle = model.fc.register_forward_pre_hook(elsewhere)
    assert torch.equal(PositiveCAM(model, "last", "fc")(x, 0), want)
    handle.remove()


class Twice(Small):
    """Two looks at a film, of the same layers."""

    def forward(self, x: Tensor) -> Tensor:
        looks = [self.maps(x), self.maps(x.flip(3))]
        answer: Tensor = sum(self.fc(look.mean((2, 3))) for look in looks)  # type: ignore[assignment]
        return answer


class OneByOne(Small):
    """Spares memory, and so runs its layers as often as there are images."""

    def maps(self, x: Tensor) -> Tensor:
        return torch.cat([self.last(self.first(one)) for one in torch.split(x, 1)])


class Crops(Small):
    """Two crops of each image in one batch."""

    def forward(self, x: Tensor) -> Tensor:
        crops = torch.cat([x[:, :, :16], x[:, :, -16:]])
        answer: Tensor = self.fc(self.maps(crops).mean((2, 3)))
        return answer


@pytest.mark.parametrize(
    ("family", "layers", "message"),
    [
        (Twice, {}, "runs 2 times in one forward"),
        (Twice, {"target_layer": "last", "fc_layer": "fc"}, "target_layer runs 2 times in one"),
        (Twice, {"fc_layer": "fc"}, "runs 2 times in one forward"),
        (OneByOne, {}, "target_layer runs 4 times in one forward"),
        (OneByOne, {"target_layer": "last", "fc_layer": "fc"}, "target_layer runs 4 times"),
        (Crops, {"target_layer": "last", "fc_layer": "fc"}, "maps of 8 images for the 4 of x"),
    ],
)
@pytest.mark.parametrize("class_idx", [1, None])
def test_refuses_a_layer_that_runs_more_than_once(
    family: type[Small], layers: dict[str, Any], message: str, class_idx: int | None
) -> None:
    model = family().train()
    with pytest.raises(ValueError, match=message) as caught:
        PositiveCAM(model, **layers)(images(), class_idx)
    assert "\n" not in str(caught.value) and untouched(model, training=True)


class SharedReLU(Small):
    """One ReLU everywhere, as many write it; the last stands in a block that runs once."""

    def __init__(self) -> None:
        super().__init__()
        relu = nn.ReLU()
        self.first[2] = relu
        self.end = nn.Sequential(nn.Conv2d(8, 8, 1), relu)

    def maps(self, x: Tensor) -> Tensor:
        maps: Tensor = self.end(self.last(self.first(x)))
        return maps


def test_a_shared_activation_is_passed_over_for_the_block_that_runs_once() -> None:
    model, x = SharedReLU().eval(), images()
    cam = PositiveCAM(model)
    expected = torch.einsum("k,bkhw->bhw", model.fc.weight[1].clamp(min=0), model.maps(x))
    torch.testing.assert_close(cam(x, 1), expected)
    assert cam.target_layer is model.end


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 32, 32), r"x is \[3, 32, 32\]; pass a batch of images"),
        (torch.zeros(32, 32), r"x is \[32, 32\]; pass a batch"),
        (torch.zeros(1, 3, 1, 32, 32), r"x is \[1, 3, 1, 32, 32\]; pass a batch"),
        ([torch.zeros(3, 32, 32)], "x is a list; pass images as a tensor"),
    ],
)
def test_refuses_what_is_no_batch_of_images(x: Any, message: str) -> None:
    given: list[dict[str, Any]] = [{}, {"target_layer": "last", "fc_layer": "fc"}]
    for layers in given:
        with pytest.raises(ValueError, match=message) as caught:
            PositiveCAM(Small(), **layers)(x, 0)
        assert "\n" not in str(caught.value)


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """As at a terminal: a process started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _interrupt(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


def _fail(*_: object) -> None:
    raise RuntimeError("out of paper")


@pytest.mark.usefixtures("_ctrl_c")
@pytest.mark.parametrize(
    ("trouble", "error"), [(_interrupt, KeyboardInterrupt), (_fail, RuntimeError)]
)
@pytest.mark.parametrize("layers", [{}, {"target_layer": "last", "fc_layer": "fc"}])
def test_the_model_is_as_it_was_whatever_happens(
    trouble: Callable[..., None], error: type[BaseException], layers: dict[str, Any]
) -> None:
    model = Small().train()
    handle = model.last.register_forward_pre_hook(trouble)
    with pytest.raises(error):
        PositiveCAM(model, **layers)(images(), 0)
    handle.remove()
    assert untouched(model, training=True)
    assert not F.relu(PositiveCAM(model)(images(), 0)).isnan().any()  # and the lock is free


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_while_the_model_is_put_back() -> None:
    """A layer whose mode, as it is put back, brings the Ctrl-C: those behind are put back too."""

    class Slow(nn.Conv2d):
        interrupts = 0

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "training" and value and self.interrupts:
                object.__setattr__(self, "interrupts", self.interrupts - 1)
                signal.raise_signal(signal.SIGINT)

    model = Small().train()
    model.first[0] = Slow(3, 8, 3, 2, 1)
    object.__setattr__(model.first[0], "interrupts", 2)
    with pytest.raises(KeyboardInterrupt):
        PositiveCAM(model)(images(), 0)
    assert untouched(model, training=True)


def test_a_model_that_merges_its_weights_in_eval_is_left_alone() -> None:
    """Low-rank adapters do: eval() has an effect that no flag takes back."""

    class Merging(Small):
        merged = 0

        def train(self, mode: bool = True) -> "Merging":
            self.merged += not mode
            super().train(mode)
            return self

    model = Merging().train()
    PositiveCAM(model)(images(), 0)
    assert model.merged == 0 and untouched(model, training=True)


def test_a_weight_that_is_computed_stays_as_it_was() -> None:
    """Spectral norm moves its vectors wherever the weight is asked for in training mode."""
    model, x = Small(), images()
    model.fc = spectral_norm(model.fc)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = PositiveCAM(model)(x, 1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert untouched(model, training=True)
    model.eval()
    expected = torch.einsum("k,bkhw->bhw", model.fc.weight[1].clamp(min=0), model.maps(x))
    torch.testing.assert_close(found, expected)


class FeaturesFirst(Small):
    """Answers the averages, of which there are more than classes, before the logits."""

    def forward(self, x: Tensor) -> Any:
        average = self.maps(x).mean((2, 3))
        return average, self.fc(average)


def test_numbers_that_are_not_fc_layers_predict_no_class() -> None:
    """The largest average may be the eighth: a class that the linear layer does not have."""
    model, x = FeaturesFirst().eval(), images()
    with pytest.raises(ValueError, match="answers 8 numbers an image, fc_layer has 2 classes"):
        PositiveCAM(model)(x)
    expected = torch.einsum("k,bkhw->bhw", model.fc.weight[1].clamp(min=0), model.maps(x))
    torch.testing.assert_close(PositiveCAM(model)(x, 1), expected)


def test_refuses_what_is_no_model() -> None:
    with pytest.raises(ValueError, match=r"model is a function; pass a torch\.nn\.Module"):
        PositiveCAM(images)  # type: ignore[arg-type]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda cam: pickle.loads(pickle.dumps(cam))])
def test_copies_and_pickles(again: Callable[[PositiveCAM], PositiveCAM]) -> None:
    cam, x = PositiveCAM(Small(), "last", "fc"), images(2)
    want = cam(x)
    other = again(cam)
    assert other.model is not cam.model
    torch.testing.assert_close(other(x), want, rtol=0, atol=0)
    assert other.class_idx is not None and cam.class_idx is not None
    assert torch.equal(other.class_idx, cam.class_idx)


def test_torchscript_is_refused() -> None:
    model = Small()
    traced = torch.jit.trace(model.eval(), images(2))
    with pytest.raises(ValueError, match="whose layers TorchScript does not let be watched"):
        PositiveCAM(traced)(images(2))
    model.last = torch.jit.trace(model.last, torch.zeros(1, 8, 4, 4))  # type: ignore[assignment]
    with pytest.raises(ValueError, match="last is TorchScript, which cannot be watched"):
        PositiveCAM(model, "last", "fc")(images(2))


@pytest.mark.parametrize("name", ["last", "fc"])
def test_refuses_a_layer_that_was_replaced(name: str) -> None:
    """The old layer's weights would make the map, though the new one answers."""
    model = Small()
    cam = PositiveCAM(model)
    cam(images(2), 1)
    setattr(model, name, copy.deepcopy(getattr(model, name)))
    with pytest.raises(ValueError, match="was replaced since it was found"):
        cam(images(2), 1)
    PositiveCAM(model)(images(2), 1)
