"""The sampling network's fast paths answer as the plain network does."""

import platform
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dd import device
from dd.device import Frozen, for_inference, has_fast_bf16, spread
from dd.networks.unet import EvidenceUNet, NoiseUNet
from dd.samplers import Denoiser

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def network():
    return random(EvidenceUNet(2, (16, 32), (1, 1), classes=10))


def random(network: torch.nn.Module) -> torch.nn.Module:
    """With weights everywhere, also where training starts from zero."""
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=generator) * (0.5 / max(1, p[0].numel()) ** 0.5)
    return network.eval()


def evidence(n: int, K: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, K, 12, 12, generator=torch.Generator().manual_seed(n)), torch.arange(n) % 11


def test_a_device_is_named_as_a_card_may_say_it(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert device.device_name(CPU) == "1 CPU thread"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert device.device_name(CPU) == "2 CPU threads"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda which: f"GPU {which.index}")
    assert device.device_name(torch.device("cuda", 1)) == "GPU 1"
    assert device.device_name(torch.device("mps")) == "MPS"


@torch.inference_mode()
def test_a_frozen_network_answers_bit_for_bit_at_every_batch_size(network):
    frozen = Frozen(network)
    for n in (3, 1, 8):
        l, label = evidence(n)
        assert torch.equal(frozen(l, label), network(l, label))
    assert frozen(l, label).std() > 0.01


@torch.inference_mode()
def test_a_frozen_network_without_classes_and_the_noise_network_too():
    plain, noise = random(EvidenceUNet(3, (16, 32), (1, 1))), random(NoiseUNet((16, 32), (1, 1), classes=10))
    frozen_plain, frozen_noise = Frozen(plain), Frozen(noise)
    for n in (2, 5):
        l, label = evidence(n, 3)
        assert torch.equal(frozen_plain(l), plain(l))
        assert torch.equal(frozen_noise(l[:, :2], label), noise(l[:, :2], label))


@torch.inference_mode()
def test_a_frozen_network_asked_without_a_label_takes_every_batch_size(network):
    noise = random(NoiseUNet((16, 32), (1, 1), classes=10))
    frozen, frozen_noise = Frozen(network), Frozen(noise)
    for n in (3, 1, 5):
        l, _ = evidence(n)
        assert torch.equal(frozen(l), network(l))
        assert torch.equal(frozen_noise(l), noise(l))


@torch.inference_mode()
def test_where_torchscript_is_gone_the_network_itself_answers(network, monkeypatch):
    def gone(*_, **__):
        raise RuntimeError("torch.jit.trace has been removed")

    monkeypatch.setattr(torch.jit, "trace", gone)
    l, label = evidence(3)
    assert torch.equal(Frozen(network)(l, label), network(l, label))


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_a_batch_spread_over_cores_is_the_batch(cores, monkeypatch):
    monkeypatch.setattr(device, "CORES", cores)
    device._workers.cache_clear()
    seen = set()

    def double(x, y):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return 2 * x + y

    x, y = torch.arange(7.0), torch.ones(7)
    assert torch.equal(spread(double, x, y), 2 * x + 1)
    assert torch.equal(spread(double, x[:1], y[:1]), torch.ones(1))
    if cores > 1:
        assert len(seen) > 1
        assert all(threads == 1 for thread, threads in seen if thread != threading.get_ident())
    device._workers.cache_clear()


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("labelled", [False, True])
def test_the_sampling_network_is_the_trained_one_within_a_tolerance(network, guidance, labelled):
    """|f - f_float32| <= 1e-4 in float32, 0.1 in bfloat16 (where the hardware has it), of numbers of order one."""
    l, label = evidence(6)
    label = label % 10 if labelled else None
    with torch.inference_mode():
        anyone = network(l, torch.full((6,), 10))
        f = network(l, label) if labelled else anyone
        wanted = anyone + (guidance if labelled else 1.0) * (f - anyone)
    answer = Denoiser(for_inference(network), label, guidance)(l)
    assert wanted.std() > 0.01
    assert (answer - wanted).abs().max() <= (0.1 if has_fast_bf16(CPU) else 1e-4)


SERVE = """
import ctypes, threading
import torch
from dd.device import CORES, keep_freed_memory
keep_freed_memory()
meet = threading.Barrier(CORES + 8)
def serve():
    meet.wait()  # all at once: by default every thread would get an arena of its own
    tensors = [torch.ones(10**5) for _ in range(20)]
    meet.wait()
threads = [threading.Thread(target=serve) for _ in range(CORES + 8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("cores:", CORES, flush=True)
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's allocator")
def test_threads_share_as_many_arenas_as_there_are_cores():
    """Each keeps 256 MB of its own, so that the app's memory grew with every thread that served a visitor."""
    done = subprocess.run([sys.executable, "-c", SERVE], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    cores = int(re.search(r"cores: (\d+)", done.stdout)[1])
    assert 1 <= done.stdout.count("<heap nr=") <= cores, done.stderr


def test_where_torch_has_no_mkldnn_there_is_no_fast_bf16(monkeypatch):
    """As in its builds for Apple's processors, where the operator that would know is missing, too."""
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_fast_bf16(CPU)


def test_emulated_bfloat16_is_not_fast(monkeypatch):
    """As on Turing: torch calls it supported where a tensor of it can be made."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not has_fast_bf16(torch.device("cuda"))


def test_cuda_stays_every_worker_s_own(monkeypatch):
    """A tensor on "cuda" is on number 0 until torchrun's workers have chosen theirs."""
    monkeypatch.setattr(torch, "empty", lambda *_, device: SimpleNamespace(device=torch.device(device, 0)))
    assert device.device("cuda").index is None


def test_a_device_that_is_not_there_is_said():
    assert device.device("cpu") == CPU
    with pytest.raises(ValueError, match="there is no device 'abacus' here"):
        device.device("abacus")
