"""Every key of a run, a frozen dataclass a section, whose defaults are those that ship."""

import difflib
from dataclasses import dataclass
from typing import Literal, get_args

from pcamx.config.checks import ConfigError, in_range, not_empty

Layout = Literal["bottleneck", "basic", "bottleneck_stride8"]
"""Of the paper's 23 layers, see `pcamx.model.encoder`."""
Pooling = Literal["mean", "lse", "top"]
TIMM = "timm:"
"""How an encoder begins that is a backbone of timm."""
ONLY_TIMM = "only a timm backbone has it; leave it out"


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Where a run lives and what makes it repeatable."""

    folder: str
    """Checkpoints, metrics and reports go here; relative to the working directory."""
    seed: int = 0

    def __post_init__(self) -> None:
        not_empty("run.folder", self.folder)
        in_range("run.seed", self.seed, 0, 2**31 - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """The prepared store and how its films reach the device."""

    store: str
    """Folder that `pcamx prepare` wrote."""
    canvas: int = 320
    """Side of the square canvas in pixels; a multiple of 16, the network's stride."""
    feed: Literal["resident", "stream"] = "resident"
    """resident: decode once, keep uint8 canvases, on the GPU if it has room, else in the host's
    memory, once for all its ranks. stream: decode each epoch."""
    cache: str = ""
    """Folder that keeps resident's canvases, one byte a pixel, for the next run; relative to the
    working directory, STORE/cache if empty. It may be deleted."""
    balanced: Literal["off", "on", "parts", "markers"] = "off"
    """Whether half of a batch is abnormal, whatever the split's share; an epoch stays as long.
    Stage 3's marked films are among them, and where they are more than half the rest is normal.
    With parts, half of the films of each body part are, over an epoch; with markers, half of those
    with the same markers and of those with none (markers.csv in the data folder, or what the set
    itself names), so that a plate that goes with a label in the data no longer does in training."""
    marked: int = 100
    """How many marked training films stage 3 may learn from, drawn by the seed."""
    watched: int = 0
    """On how many further marked training films, whose marks nothing learns from, pointing and mIoU
    are measured after each epoch; not with ZeRO-3."""
    threads: int = 2
    """CPU threads of the decoder, per rank."""

    def __post_init__(self) -> None:
        not_empty("data.store", self.store)
        in_range("data.canvas", self.canvas, 32, 4096)
        if self.canvas % 16:
            raise ConfigError(f"data.canvas: {self.canvas} is not a multiple of 16")
        in_range("data.marked", self.marked, 0, 10**9)
        in_range("data.watched", self.watched, 0, 10**6)
        in_range("data.threads", self.threads, 1, 1024)


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """Random changes of a training film; each figure is the largest change, 0 turns it off."""

    flip: bool = True
    """Mirror left and right with probability 1/2."""
    rotate: float = 15.0
    """Degrees to either side."""
    scale: float = 0.1
    """Relative: 0.1 zooms by 0.9 to 1.1."""
    shift: float = 0.05
    """Of the canvas side, along each axis."""
    brightness: float = 0.2
    """Relative: grey levels times 0.8 to 1.2."""

    def __post_init__(self) -> None:
        in_range("augment.rotate", self.rotate, 0, 180)
        for name in ("scale", "shift", "brightness"):
            in_range(f"augment.{name}", getattr(self, name), 0, 0.9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """The network, which ends in 128 filters and a pooled linear classifier."""

    encoder: str = "bottleneck"
    """Of the paper's 23 layers bottleneck, basic or bottleneck_stride8, whose maps are twice as
    fine each way; or timm:NAME, a backbone of timm such as timm:resnet18 (pcamx[encoders])."""
    weights: str = ""
    """What a timm backbone starts from where a stage's init_from is scratch: nothing if empty, a
    local safetensors file or state dict, or timm, which fetches its own."""
    frozen: Literal[0, 4, 8, 16] = 0
    """The stride up to whose maps a timm backbone stays as it came; 0 trains all of it."""
    pooling: Pooling = "mean"
    """Of each class's map to its logit: the paper's mean over the cells, the logarithm of the mean
    exponential, or the mean of the top 2 % of the cells."""
    mirrored: bool = False
    """Whether an answer is the mean over a film and its mirror image, at twice the time: of the
    logits, and of the maps, the mirror image's turned back. Training is the same either way, so a
    trained run's config.yaml may change it; evaluate the run anew then."""

    @property
    def timm(self) -> bool:
        """Whether the encoder is a backbone of timm."""
        return len(self.encoder) > len(TIMM) and self.encoder.startswith(TIMM)

    def __post_init__(self) -> None:
        if not self.timm and self.encoder not in (layouts := get_args(Layout)):
            near = difflib.get_close_matches(self.encoder, layouts, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"model.encoder: {self.encoder!r} is not one of {', '.join(layouts)}, or a timm "
                f"backbone such as timm:resnet18{hint}"
            )
        for key in ("weights", "frozen"):
            if getattr(self, key) and not self.timm:
                raise ConfigError(f"model.{key}: {ONLY_TIMM}")
        if self.frozen and not self.weights:
            raise ConfigError("model.frozen: fresh weights would stay so; name model.weights")


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """From the class activation map to the masked image."""

    mask_class: Literal["abnormal", "predicted", "label"] = "abnormal"
    """Whose map masks the image. `label` leaks the label into the mask: for comparison only."""
    mask_from: Literal["map", "decoder"] = "map"
    """What masks the image in stage 3: the class's map, or the decoder's answer."""
    shown: Literal["inside", "outside"] = "inside"
    """What the second pass sees: the film inside the attended area, as in the paper, or outside it
    (adversarial erasing), which asks for evidence that the first pass did not use."""
    omega: float = 10.0
    """Slope of the mask M = sigmoid(omega (A - sigma)); A is the min-max normalised map."""
    sigma: float = 0.5
    mask_grad: bool = True
    """Whether gradients flow through the mask into features and weights."""
    batch_norm: Literal["batch", "running", "updated"] = "batch"
    """How the second pass normalises: by its own batch, by the running statistics, or by its own
    batch and into the running statistics, as an ordinary forward does."""

    def __post_init__(self) -> None:
        in_range("attention.omega", self.omega, 1e-3, 1e4)
        in_range("attention.sigma", self.sigma, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """Eq. (3) and (4): L = (1 - lambda) L1 + lambda L2 + lambda' L3."""

    schedule: Literal["rescaled", "paper", "constant", "none"] = "rescaled"
    """lambda of the running training accuracy P. paper: e^(P-1). rescaled: 0 at chance.
    constant: 1/2. none: 0, so that only L1 counts: stage 1 trained on, the control."""
    lesion_weight: float = 10.0
    """lambda', the weight of L3; `configs/paper.yaml` has 1."""
    lesion_loss: Literal["mse", "bce_dice"] = "bce_dice"
    """L3 of a film: squared error, or binary cross-entropy plus the soft Dice loss."""
    lesion_share: float = 0.0
    """Share of the pixels' weight that lies on lesion pixels; 0 is the plain mean over pixels."""
    normal_films: bool = False
    """Whether normal films teach the decoder an empty answer: half of L3 is then theirs."""
    marked_per_batch: int = 4
    """Marked films in each global batch of stage 3, at least 1."""
    outside_weight: float = 0.0
    """Weight of the share of the map that lies outside the mask, of abnormal films; no mark is
    needed, so stage 2 has it as well."""
    map_weight: float = 0.5
    """Weight of a loss between the marks and the classifier's own map in stage 3."""
    map_loss: Literal["pointing", "energy", "bce", "l1", "gain"] = "pointing"
    """Which: -log of the softmax's mass inside the mark, 1 - share of the positive map inside it,
    cross-entropy of each cell, absolute or squared error of the normalised map."""
    erase_weight: float = 1.0
    """Weight of: a marked film with its lesion erased is normal, with another patch abnormal."""
    agreement_weight: float = 0.0
    """Weight of the divergence of map and decoder on abnormal films, which moves the map alone."""
    reasons_weight: float = 0.0
    """Weight of the squared input gradients outside the marks (right for the right reasons)."""

    def __post_init__(self) -> None:
        in_range("objective.lesion_weight", self.lesion_weight, 0, 1e6)
        in_range("objective.lesion_share", self.lesion_share, 0, 1)
        in_range("objective.marked_per_batch", self.marked_per_batch, 1, 10**6)
        for name in ("outside", "map", "erase", "agreement", "reasons"):
            in_range(f"objective.{name}_weight", getattr(self, f"{name}_weight"), 0, 1e6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Length, step size and start of one stage."""

    epochs: int
    lr: float = 1.0e-3
    """Peak of the one-cycle schedule."""
    backbone_lr: float = 1.0
    """Step size of a timm backbone, as a share of `lr`."""
    init_from: str = "scratch"
    """scratch, the section of an earlier stage of this run such as stage1, or the path of a
    weights.pt."""

    def __post_init__(self) -> None:
        in_range("epochs", self.epochs, 1, 10**6)
        in_range("lr", self.lr, 1e-9, 1e3)
        in_range("backbone_lr", self.backbone_lr, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """How the run is spread over devices."""

    batch_size: int
    """Of all ranks together; a multiple of the number of ranks."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO; what is sharded over the ranks: 1 optimizer, 2 + gradients, 3 + weights."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 runs through autocast: weights and batch norm stay float32."""
    impl: Literal["auto", "triton", "reference"] = "auto"
    """Which implementation of the operations in `pcamx.ops` runs; auto: Triton's on a GPU."""
    compile: Literal["off", "on", "reduce-overhead", "whole-step"] = "off"
    """on: torch.compile makes one graph of a stage's forward; not with ZeRO-3. For few films a
    rank, where the host takes longer than the GPU: reduce-overhead also has the GPU replay that as
    a CUDA graph, whole-step the whole update, uncompiled, with ZeRO-0 and 1."""
    sync_batch_norm: bool = False
    """Whether training normalises by the batch of all ranks instead of each rank's own part."""
    gradient_clipping: float = 1.0
    """Largest norm of the whole gradient; 0 leaves it as it is."""
    weight_decay: float = 1.0e-2
    log_every: int = 10
    """Steps between two lines of metrics.jsonl; the only steps that wait for the device."""
    save_every: int = 200
    """Steps between two checkpoints; each epoch's end is one as well."""
    timeout: float = 120.0
    """Seconds without progress in the midst of steps (10 times the slowest step, if that is more)
    after which all ranks end; half of it after one of them has given its last sign of life all
    have. Decoding, compiling, validation and checkpoints may go half an hour without progress. At
    the start the ranks have to meet within it, half a minute at least."""

    def __post_init__(self) -> None:
        in_range("runtime.batch_size", self.batch_size, 1, 10**7)
        in_range("runtime.gradient_clipping", self.gradient_clipping, 0, 1e6)
        in_range("runtime.weight_decay", self.weight_decay, 0, 10)
        in_range("runtime.log_every", self.log_every, 1, 10**9)
        in_range("runtime.save_every", self.save_every, 1, 10**9)
        in_range("runtime.timeout", self.timeout, 1, 10**6)
        if self.sync_batch_norm and self.compiled:
            raise ConfigError(
                "runtime.sync_batch_norm: its sums over the ranks cannot be in torch.compile's "
                "graph; set it to false, or runtime.compile to off"
            )
        if self.compile == "whole-step" and self.zero_stage > 1:
            raise ConfigError(
                f"runtime.compile: whole-step is not made for ZeRO-{self.zero_stage}, whose hooks "
                "change a backward; set runtime.zero_stage to 0 or 1"
            )
        if self.compiled and self.zero_stage == 3:
            raise ConfigError(
                "runtime.compile: ZeRO-3 gathers weights around each module, which leaves nothing "
                "to compile; set runtime.zero_stage to 0, 1 or 2"
            )

    @property
    def compiled(self) -> bool:
        """Whether torch.compile is asked for, which whole-step does without."""
        return self.compile not in ("off", "whole-step")
