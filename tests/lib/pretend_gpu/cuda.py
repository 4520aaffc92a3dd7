"""What is asked of torch.cuda, of the kernels' launcher and of NCCL, answered by a pretended GPU.

`switch_on` before anything imports pcamx, and with the driver loaded before torch.
"""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pretend_gpu.device import DEVICE, OnDevice, Pretend, asked_by, counts

NAME = "NVIDIA H100 80GB HBM3"
H100 = {"major": 9, "minor": 0, "name": NAME, "multi_processor_count": 132, "warp_size": 32}
H100 |= {"total_memory": 80 << 30, "L2_cache_size": 50 << 20}


def _wait(*_: object) -> None:
    counts.waits[asked_by()] += 1


class _Stream:
    cuda_stream = 0
    synchronize = _wait

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def wait_stream(self, *_: object) -> None:
        """The device waits, not the host."""

    def wait_event(self, *_: object) -> None:
        """As `wait_stream`."""

    def record_event(self, *_: object) -> "_Event":
        return _Event()


class _Event:
    synchronize = _wait

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def record(self, *_: object) -> None:
        """Nothing is to be measured."""

    def query(self) -> bool:
        return True


class _Within(nullcontext[None]):
    """The one stream, or the one device."""

    def __init__(self, *_: object) -> None:
        super().__init__()


class _Generator(torch.Generator):
    """Of random numbers of the one device."""

    def __new__(cls, device: object = "cpu") -> "_Generator":
        return super().__new__(cls, "cpu")


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def _torch_cuda() -> None:
    cuda: Any = torch.cuda
    torch.version.cuda = "13.0"
    for name in ("is_available", "is_initialized", "is_bf16_supported"):
        setattr(cuda, name, _always(True))
    for name in [name for name in dir(cuda) if name.startswith(("memory_", "max_memory_"))]:
        setattr(cuda, name, _always(0))
    for name in [name for name in dir(cuda) if name.startswith("reset_")]:
        setattr(cuda, name, _always(None))
    for name in ("set_device", "empty_cache", "manual_seed", "manual_seed_all"):
        setattr(cuda, name, _always(None))
    cuda.memory_stats = _always({})
    torch.Generator = _Generator  # type: ignore[misc]
    cuda.current_device, cuda.device_count = _always(0), _always(1)
    cuda.Stream, cuda.Event, cuda.synchronize = _Stream, _Event, _wait
    cuda.current_stream = cuda.default_stream = _always(_Stream())
    cuda.stream = cuda.device = _Within
    cuda.get_device_name, cuda.get_device_capability = _always(NAME), _always((9, 0))
    cuda.get_device_properties = _always(SimpleNamespace(**H100))
    cuda.mem_get_info = _always((70 << 30, 80 << 30))
    cuda.set_rng_state = _always(None)
    cuda.get_rng_state = lambda *_: torch.zeros(16, dtype=torch.uint8)


class Launched:
    """A kernel whose launches are counted; it computes nothing, for its tests are elsewhere."""

    def __init__(self, kernel: Any) -> None:
        self.name = kernel.fn.__name__

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        def launch(*args: Any, **options: Any) -> None:
            strange = [a for a in args if isinstance(a, Tensor) and not isinstance(a, OnDevice)]
            if strange:
                raise RuntimeError(f"{self.name}: a tensor of the CPU, {list(strange[0].shape)}")
            counts.kernels[self.name] += 1

        return launch


def _kernels() -> None:
    from pcamx.kernels import attend, class_activation, gather_affine_normalise

    for module in (attend, class_activation, gather_affine_normalise):
        for name in [name for name in dir(module) if name.endswith("_kernel")]:
            setattr(module, name, Launched(getattr(module, name)))


def _moving() -> None:
    """`Module.to` makes each parameter anew, but leaves a module that is there as it is."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    move = nn.Module.to

    def to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        to_device = torch._C._nn._parse_to(*args, **kwargs)[0]
        held = [*self.parameters(), *self.buffers()]
        if to_device == DEVICE and all(isinstance(t, OnDevice) for t in held):
            return self
        return move(self, *args, **kwargs)

    nn.Module.to = to  # type: ignore[assignment]


def _nccl() -> None:
    """Gloo in its place: its calls come through the dispatcher, which hands over CPU tensors."""
    init = dist.init_process_group

    def init_process_group(*args: Any, **kwargs: Any) -> None:
        named = {"backend": "gloo"} if kwargs.get("backend") == "nccl" else {}
        init(
            *("gloo" if a == "nccl" else a for a in args), **(kwargs | named | {"device_id": None})
        )

    dist.init_process_group = init_process_group


def _dali() -> None:
    """Films are decoded by the CPU, and then lie on the device."""
    from pcamx.data.canvas import decode

    from_dlpack = decode.from_dlpack
    decode._numbered = lambda device: torch.device("cpu")
    decode.from_dlpack = lambda output: OnDevice(from_dlpack(output))


def switch_on() -> Pretend:
    """Have PyTorch find a GPU; returns the mode to do it in."""
    _torch_cuda()
    _moving()
    _nccl()
    _kernels()
    _dali()
    return Pretend()
