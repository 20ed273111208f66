"""Where and in what precision to compute."""

import contextlib
import ctypes
import platform
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import Tensor, nn

CORES = torch.get_num_threads()


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is faster there than float32. x86 needs AMX: AVX-512's dot product takes twice as long."""
    if device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_amx_tile_supported()
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 autocast where it pays, nothing elsewhere."""
    return torch.autocast(device.type, torch.bfloat16) if has_fast_bf16(device) else contextlib.nullcontext()


def for_inference(network: nn.Module) -> "Frozen":
    """The network, changed in place, as sampling is fastest: channels last, frozen, in bfloat16 where that is faster.

    Rounding once here instead of in every call, and no reordering inside convolutions: about twice as fast on CPUs.
    """
    network.to(memory_format=torch.channels_last)
    if has_fast_bf16(next(network.parameters()).device):
        network.bfloat16()
    return Frozen(network)


class Frozen(nn.Module):
    """A network in evaluation mode as one program: the same operations, with no Python between them.

    Saves a tenth of the time, and threads that call it at once do not wait for each other's turn in Python. Made when
    first called; the weights must not change afterwards. The results are the network's, bit for bit (tested).
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.classes = network, network.classes
        self._programs: dict[tuple[int, bool], Callable[..., Tensor]] = {}
        self._lock = threading.Lock()

    def forward(self, *inputs: Tensor) -> Tensor:
        """The network's answer to tensors that share a batch axis."""
        kind = len(inputs), torch.is_autocast_enabled(inputs[0].device.type)
        with self._lock:
            if kind not in self._programs:
                self._programs[kind] = _program(self.network, inputs)
        return self._programs[kind](*inputs)


def _program(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """TorchScript, of which torch warns that it will go; the network itself where it has gone."""
    warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
    try:
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        return torch.jit.freeze(torch.jit.trace(network, inputs, check_trace=False))
    except (RuntimeError, AttributeError):
        return network


def device(name: str) -> torch.device:
    """The device of that name; ValueError where there is none (with argparse: a sentence).

    "cuda" stays without a number: under torchrun it is every worker's own, which is set later.
    """
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"there is no device {name!r} here: {str(error).splitlines()[0]}") from error


def device_name(device: torch.device) -> str:
    """For who reads of a training: the model of a GPU where torch knows it, the threads of a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    n = torch.get_num_threads()
    return f"{n} CPU thread{'s' * (n > 1)}" if device.type == "cpu" else device.type.upper()


def best_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


@lru_cache(maxsize=1)
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CORES, "dd-core", initializer=torch.set_num_threads, initargs=(1,))


def spread(function: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    """function(*batches) of tensors that share a batch axis; on the CPU, a piece of the batch a core.

    A piece takes one thread from end to end, so that cores meet once a call. Threads that share every operation meet
    hundreds of times, and whenever another process has one of the cores, the other core waits for it.
    """
    n = min(CORES, len(batches[0])) if batches[0].device.type == "cpu" else 1
    if n == 1:
        return function(*batches)
    pieces = zip(*(batch.tensor_split(n) for batch in batches), strict=True)
    return torch.cat(list(_workers().map(lambda piece: function(*piece), pieces)))


def keep_freed_memory() -> None:
    """Let glibc keep 256 MB of freed memory, instead of asking the kernel for the same pages at every network call.

    In as many arenas as there are cores. By default there are eight a core, one after the other as threads come to
    serve visitors, and what is free in one is of no use to the threads of another.
    """
    if platform.libc_ver()[0] == "glibc":
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, 256 * 2**20)
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, CORES)
