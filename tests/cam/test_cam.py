"""PositiveCAM on classifiers in the shapes of torchvision's and timm's."""

import copy
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import classifiers
import pytest
import torch
from classifiers import CLASSES, FAMILIES, FOUND, WIDTH, Classifier, build, images
from torch import Tensor, nn

from pcamx import PositiveCAM

PICKED = [3, 0, 4, 0]


def names(cam: PositiveCAM) -> tuple[str, str]:
    known = {layer: name for name, layer in cam.model.named_modules()}
    assert cam.target_layer is not None and cam.fc_layer is not None
    return known[cam.target_layer], known[cam.fc_layer]


def by_hand(model: Classifier, x: Tensor, classes: list[int], positive: bool) -> Tensor:
    """Sum over the channels in float64, from maps that no hook brought."""
    training = model.training
    with torch.no_grad():
        maps = model.eval().maps(x).double()
    model.train(training)
    weight = dict(model.named_modules())[FOUND[type(model)][1]].weight.detach().double().flatten(1)
    if isinstance(
        model, classifiers.ConvNeXt
    ):  # (v - mean v) / spread, of which each channel has its share
        average = maps.mean((2, 3))
        spread = (average.var(1, correction=0) + 1e-5).sqrt()
        maps = maps / spread[:, None, None, None]
        weight = weight - weight.mean(1, keepdim=True)
    if positive:
        weight = weight.clamp(min=0)
    return torch.stack(
        [(weight[c][:, None, None] * m).sum(0) for c, m in zip(classes, maps, strict=True)]
    )


NORMS = {
    "BatchNorm1d": nn.BatchNorm1d(WIDTH),
    "BatchNorm1d, no gain": nn.BatchNorm1d(WIDTH, affine=False),
    "LayerNorm": nn.LayerNorm(WIDTH),
    "LayerNorm, no gain": nn.LayerNorm(WIDTH, elementwise_affine=False),
    "GroupNorm": nn.GroupNorm(1, WIDTH),
    "RMSNorm": nn.RMSNorm(WIDTH, eps=1e-3),
    "RMSNorm, no eps": nn.RMSNorm(WIDTH),
}


class Normed(classifiers.ResNet):
    """Something normalises the average before the linear layer."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = copy.deepcopy(norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.maps(x).mean((2, 3))))


def randomised(norm: nn.Module) -> Normed:
    torch.manual_seed(3)
    model = Normed(norm).double()
    for tensor in [*model.norm.parameters(), *model.norm.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 2)
    return model.eval()


@pytest.mark.parametrize("kind", NORMS)
def test_a_norm_behind_the_average_is_a_part_of_the_weights(kind: str) -> None:
    model, x = randomised(NORMS[kind]), images().double()
    with torch.no_grad():
        average = model.maps(x).mean((2, 3))
        logits = model(x)
        # What does not depend on the place: of an average of zero, and of LayerNorm's mean.
        norm = model.norm
        if isinstance(norm, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm):
            constant = model.fc(
                norm.bias
                if getattr(norm, "bias", None) is not None
                else torch.zeros_like(average[0])
            )
        else:
            constant = model.fc(norm(torch.zeros_like(average)))[0]
    for given in ({}, {"target_layer": "layer4", "fc_layer": "fc"}):
        cam = PositiveCAM(model, positive=False, **given)
        for c in range(CLASSES):
            torch.testing.assert_close(cam(x, c).mean((1, 2)), logits[:, c] - constant[c])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_of_rms_norm_a_half_has_the_epsilon_of_float32(dtype: torch.dtype) -> None:
    """Averages of 0.01: with bfloat16's epsilon, 0.0078, the map would be nine times too low."""
    model = Normed(nn.RMSNorm(WIDTH, elementwise_affine=False)).eval()
    with torch.no_grad():  # the last block alone gives the maps: all of about 0.01
        model.layer4.register_forward_hook(lambda *given: torch.full_like(given[2], 0.01))
        model, x = model.to(dtype), images().to(dtype)
        logits = model(x).float() - model.fc.bias.float()
        found = PositiveCAM(model, "layer4", "fc", positive=False)(x, 2)
    torch.testing.assert_close(found.mean((1, 2)), logits[:, 2], rtol=0.05, atol=0.02)


def test_a_norm_of_several_groups_is_refused() -> None:
    model = Normed(nn.GroupNorm(2, WIDTH)).eval()
    with pytest.raises(ValueError, match="a GroupNorm stands between the average and fc_layer"):
        PositiveCAM(model)(images())


@pytest.mark.parametrize("kind", ["BatchNorm1d", "LayerNorm", "RMSNorm"])
def test_gradients_through_a_norm(kind: str) -> None:
    model, x = randomised(NORMS[kind]), images()[:1].double()

    def maps(weight: Tensor, gain: Tensor) -> Tensor:
        held = {"fc.weight": weight, "norm.weight": gain}
        with torch.nn.utils.stateless._reparametrize_module(model, held):
            return PositiveCAM(model)(x, 1)

    given = [p.detach().clone().requires_grad_() for p in (model.fc.weight, model.norm.weight)]
    assert torch.autograd.gradcheck(maps, given)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("positive", [True, False])
def test_maps_of_a_class_per_image(family: type[Classifier], positive: bool) -> None:
    model, x = build(family), images()
    with PositiveCAM(model, positive=positive) as cam:
        maps = cam(x, class_idx=PICKED)
    assert names(cam) == FOUND[family]
    assert maps.dtype == torch.float32
    expected = by_hand(model, x, PICKED, positive)
    torch.testing.assert_close(maps.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_by_name_and_as_modules(family: type[Classifier]) -> None:
    model, x = build(family), images()
    target, fc = FOUND[family]
    found = PositiveCAM(model)(x, 1)
    layers = dict(model.named_modules())
    for kind in (str, layers.__getitem__):
        for given in ({"target_layer": kind(target)}, {"fc_layer": kind(fc)}):
            cam = PositiveCAM(model, **given)
            assert torch.equal(cam(x, 1), found)
            assert names(cam) == (target, fc)
        assert torch.equal(PositiveCAM(model, kind(target), kind(fc))(x, 1), found)


def test_plain_map_averages_to_the_logit() -> None:
    model, x = build(classifiers.ResNet).eval(), images()
    maps = PositiveCAM(model, positive=False)(x, PICKED)
    logits = model(x).gather(1, torch.tensor(PICKED)[:, None])[:, 0]
    torch.testing.assert_close(maps.mean((1, 2)) + model.fc.bias[PICKED], logits)


@pytest.mark.parametrize(
    ("class_idx", "classes"),
    [
        (2, [2, 2, 2, 2]),
        (torch.tensor(2), [2, 2, 2, 2]),
        (PICKED, PICKED),
        (tuple(PICKED), PICKED),
        (torch.tensor(PICKED), PICKED),
        (torch.tensor(PICKED, dtype=torch.uint8), PICKED),
    ],
)
def test_ways_to_name_classes(class_idx: Any, classes: list[int]) -> None:
    model, x = build(classifiers.ResNet), images()
    cam = PositiveCAM(model)
    maps = cam(x, class_idx)
    assert cam.class_idx is not None and cam.class_idx.tolist() == classes
    torch.testing.assert_close(maps.double(), by_hand(model, x, classes, True))


def test_predicted_class() -> None:
    model, x = build(classifiers.ResNet).eval(), images(8)
    model.fc.bias.data -= model(x).mean(0)  # so that no class wins throughout
    predicted = model(x).argmax(1).tolist()
    assert len(set(predicted)) > 1
    cam = PositiveCAM(model.train())
    assert torch.equal(cam(x), cam(x, predicted))


@pytest.mark.parametrize(
    "answer",
    [
        dict,
        SimpleNamespace,
        lambda logits: (logits, "aux"),
    ],
)
def test_logits_out_of_other_answers(answer: Any) -> None:
    inner, x = build(classifiers.ResNet), images()
    model = classifiers.HuggingFace(inner, answer)
    assert torch.equal(PositiveCAM(model)(x), PositiveCAM(inner)(x))


def test_answers_without_logits_need_a_class() -> None:
    inner, x = build(classifiers.ResNet), images()
    cam = PositiveCAM(classifiers.HuggingFace(inner, lambda logits: {"scores": logits}))
    assert torch.equal(cam(x, 1), PositiveCAM(inner)(x, 1))
    with pytest.raises(ValueError, match=r"no logits in the model's output: pass class_idx"):
        cam(x)


def test_gradient_reaches_features_and_weight() -> None:
    model, x = build(classifiers.DenseNet).double().eval(), images().double()
    maps = PositiveCAM(model)(x, PICKED)
    assert maps.dtype == torch.float64
    side = torch.randn(maps.shape, generator=torch.Generator().manual_seed(2)).double()
    (maps * side).sum().backward()
    ours = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    weight = model.classifier.weight.clamp(min=0)[PICKED]
    (torch.einsum("bk,bkhw->bhw", weight, model.maps(x)) * side).sum().backward()
    assert ours.pop("classifier.bias") is None
    for name, parameter in model.named_parameters():
        if name != "classifier.bias":
            assert parameter.grad is not None and parameter.grad.any()
            torch.testing.assert_close(ours[name], parameter.grad)


def test_no_graph_under_no_grad() -> None:
    model, x = build(classifiers.ResNet), images()
    with torch.no_grad():
        assert not PositiveCAM(model)(x).requires_grad
    with torch.inference_mode():
        assert not PositiveCAM(model)(x).requires_grad
    assert PositiveCAM(model)(x).requires_grad


def test_half_precision_sums_in_float32() -> None:
    model, x = build(classifiers.ResNet), images()
    with torch.autocast("cpu", torch.bfloat16):
        maps = PositiveCAM(model)(x, PICKED)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.double(), by_hand(model, x, PICKED, True), rtol=0.1, atol=0.1)


def hooks(model: nn.Module) -> int:
    return sum(
        len(layer._forward_hooks) + len(layer._forward_pre_hooks) + len(layer._backward_hooks)
        for layer in model.modules()
    )


def test_the_model_stays_as_it_was() -> None:
    model, x = build(classifiers.ResNet).train(), images()
    model.layer4.eval()  # frozen, as people do
    modes = [layer.training for layer in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with PositiveCAM(model) as cam:
        cam(x)
        assert hooks(model) == 0 and [layer.training for layer in model.modules()] == modes
        assert model.fc(torch.zeros(2, WIDTH)).shape == (2, CLASSES)  # usable meanwhile
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_the_model_stays_as_it_was_after_an_exception() -> None:
    model, x = build(classifiers.ResNet).train(), images()

    def fail(*_: object) -> None:
        raise RuntimeError("out of paper")

    cam = PositiveCAM(model)
    for _ in range(2):  # in the trial, then in a call
        handle = model.avgpool.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="out of paper"), cam:
            cam(x)
        handle.remove()
        assert hooks(model) == 0 and all(layer.training for layer in model.modules())
        cam(x)


def test_nothing_is_kept_between_calls() -> None:
    model, x = build(classifiers.ResNet), images()
    with PositiveCAM(model) as cam:
        maps = cam(x)
        kept = weakref.ref(maps)
        del maps
        assert kept() is None  # no cycle: it goes without the collector
        gc.collect()
        before = _tensors()
        for _ in range(200):
            cam(x, PICKED)
        assert _tensors() <= before
    gone = weakref.ref(model)
    del cam, model
    assert gone() is None


def _tensors() -> int:
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def test_random_numbers_are_left_alone() -> None:
    model, x = build(classifiers.MobileNet), images()
    state = torch.get_rng_state()
    PositiveCAM(model)(x)
    assert torch.equal(torch.get_rng_state(), state)


def test_empty_batch() -> None:
    model = build(classifiers.ResNet)
    assert PositiveCAM(model)(images(4)[:0]).shape == (0, 8, 8)


# Wrapped models


class DeepSpeedEngine(nn.Module):
    """Stands in for DeepSpeed's: known by its name, calls by its own rules."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("not to be called")


@pytest.mark.parametrize("wrap", [nn.DataParallel, DeepSpeedEngine])
def test_inside_a_wrapper(wrap: Any) -> None:
    model, x = build(classifiers.ResNet), images()
    expected = PositiveCAM(model)(x)
    assert torch.equal(PositiveCAM(wrap(model))(x), expected)
    assert torch.equal(PositiveCAM(wrap(wrap(model)), "layer4", model.fc)(x), expected)


def test_own_wrapper_with_work_of_its_own_is_called() -> None:
    class Halved(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x / 2)

    model, x = build(classifiers.ResNet), images()
    assert torch.equal(PositiveCAM(Halved(model))(x, 1), PositiveCAM(model)(x / 2, 1))


@contextmanager
def compiled() -> Iterator[None]:
    torch.compiler.reset()
    try:
        yield
    finally:
        torch.compiler.reset()


def test_compiled_and_compiled_in_place() -> None:
    model, x = build(classifiers.ResNet).eval(), images()
    expected = PositiveCAM(model)(x)
    with compiled():
        whole = torch.compile(model, backend="eager")
        whole(x)
        assert torch.equal(PositiveCAM(whole)(x), expected)
        model.compile(backend="eager")
        logits = model(x)
        assert torch.equal(PositiveCAM(model)(x), expected)
        assert torch.equal(model(x), logits)


# What is no such model, no such layer, no such class


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (classifiers.vgg, "not a pooled linear head: 2 layers follow the last maps, '3', '5'"),
        (classifiers.mobilenet_v3, "not a pooled linear head: 2 layers .*, '3', '5'"),
        (classifiers.ViT, "not a pooled linear head: .* layers follow the last maps, .*'head'"),
        (classifiers.MaxPooled, "'fc' is not fed the average of any layer's maps"),
        (classifiers.TwoHeads, "several heads: pass fc_layer, one of 'finding', 'age'"),
        (lambda: classifiers.conv(3, 4), "no linear layer follows the last maps"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), "'1' is not fed the average"),
        (
            lambda: nn.Sequential(classifiers.conv(3, 4), nn.Conv2d(4, 4, 16), nn.Flatten()),
            r"convolution '1' follows the last maps of more than one cell \(images too small",
        ),
    ],
)
def test_refuses_what_is_no_pooled_linear_head(model: Any, message: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=message) as caught:
        PositiveCAM(model())(images(), 0)
    assert "\n" not in str(caught.value)


def test_one_of_two_heads() -> None:
    torch.manual_seed(0)
    model, x = classifiers.TwoHeads().eval(), images()
    cam = PositiveCAM(model, fc_layer="age")
    expected = torch.einsum("k,bkhw->bhw", model.age.weight[1].clamp(min=0), model.maps(x))
    torch.testing.assert_close(cam(x, 1), expected)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"target_layer": "layer5"}, "target_layer 'layer5' is not in the model; near it: 'layer"),
        ({"fc_layer": "classifier"}, "fc_layer 'classifier' is not in the model"),
        ({"fc_layer": nn.Linear(2, 2)}, "fc_layer is not a layer of this model"),
        ({"target_layer": "layer3"}, "'fc' averages the maps of 'layer4', not of .* 'layer3'"),
        ({"fc_layer": "avgpool"}, "fc_layer is a AdaptiveAvgPool2d, neither linear nor a 1x1"),
        ({"target_layer": "fc", "fc_layer": "fc"}, r"target_layer gives \[4, 5\], fc_layer takes"),
        ({"target_layer": "layer4", "fc_layer": "conv1.0"}, "fc_layer is a Conv2d, neither"),
    ],
)
def test_refuses_layers(layers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PositiveCAM(build(classifiers.ResNet), **layers)(images(), 0)


def test_refuses_a_layer_that_is_not_used() -> None:
    model = build(classifiers.ResNet)
    model.spare = nn.Linear(WIDTH, CLASSES)
    with pytest.raises(ValueError, match="fc_layer 'spare' takes no part in the model's forward"):
        PositiveCAM(model, fc_layer="spare")(images(), 0)
    with pytest.raises(ValueError, match="target_layer gives nothing in the model's forward"):
        PositiveCAM(model, target_layer="spare", fc_layer="fc")(images(), 0)


def test_refuses_a_sharded_weight() -> None:
    model = build(classifiers.ResNet)
    model.fc.weight.data = torch.empty(0)
    model.fc.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"fc_layer's weight is not here \(ZeRO-3\?\)"):
        PositiveCAM(model, "layer4", "fc")(images(), 0)


@pytest.mark.parametrize(
    ("class_idx", "message"),
    [
        (5, r"outside 0 \.\.\. 4"),
        (-1, r"outside 0 \.\.\. 4"),
        ([0, 1, 2], "3 classes for 4 images"),
        ([0, 1, 2, 9], r"outside 0 \.\.\. 4"),
        (1.0, "expected None, a class or one class per image"),
        (torch.tensor([True] * 4), "expected None, a class or one class per image"),
        ([[0, 1], [2, 3]], "expected None, a class or one class per image"),
        ([True, False, 1, 2], "expected None, a class or one class per image"),
        ([None, 1, 2, 3], "expected None, a class or one class per image"),
        ([[0, 1], [2]], "expected None, a class or one class per image"),
    ],
)
def test_refuses_classes(class_idx: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"class_idx: {message}"):
        PositiveCAM(build(classifiers.ResNet))(images(), class_idx)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "convnext_tiny"])
def test_torchvision_agrees_with_torchcam(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    methods = pytest.importorskip("torchcam.methods")
    torch.manual_seed(0)
    model = models.get_model(name, weights=None).cuda().eval()
    x = torch.rand(4, 3, 128, 128, device="cuda")
    cam = PositiveCAM(model, positive=False)
    maps = cam(x, PICKED)
    with methods.CAM(model, *names(cam)) as theirs, torch.no_grad():
        model(x)
        expected = theirs(PICKED, normalized=False)[0]
    assert maps.is_cuda
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "regnety_002", "convnext_atto"])
def test_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).cuda().eval()
    x = torch.rand(4, 3, 128, 128, device="cuda")
    maps = PositiveCAM(model)(x, PICKED)
    with torch.no_grad():
        weight = model.get_classifier().weight.clamp(min=0)[PICKED]
        expected = torch.einsum("bk,bkhw->bhw", weight, model.forward_features(x))
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
