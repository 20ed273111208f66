"""The DDPM on pixel intensities."""

import math
from collections.abc import Callable

import pytest
import torch

from dd.networks.unet import NoiseUNet
from dd.processes import make_process
from dd.samplers import default_schedule, frames, generate, reverse, time_grid
from tests.toys import Toy, three_cells


@pytest.fixture(scope="module")
def pixels():
    return make_process("ddpm", 16, 64)


def test_ends_are_the_data_and_standard_noise(pixels, generator):
    x0 = torch.arange(16).repeat(64, 4, 1)[:, :, :8] + torch.arange(64)[:, None, None] % 9
    data = pixels.perturb(x0, 0.0, generator)
    assert (data - pixels.intensities(x0)).std() < 0.03
    noise = pixels.perturb(x0, 1.0, generator)
    assert noise.std() == pytest.approx(1, abs=0.05)
    assert abs(float((noise * pixels.intensities(x0)).mean())) < 0.03


def test_schedule_is_nichol_and_dhariwal_s(pixels):
    def abar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2

    for t in (0.1, 0.5, 0.9):
        ours = float(torch.sigmoid(-pixels.clock.native(t)))
        assert ours == pytest.approx(abar(0.003 + t * 0.994), abs=1e-4)


def test_loss_is_zero_for_the_true_noise_and_one_a_pixel_for_none(pixels, generator):
    x0, t = torch.randint(16, (256, 8, 8), generator=generator), torch.full((256,), 0.6, dtype=torch.float64)
    x_t = pixels.perturb(x0, t, generator)
    v = pixels.clock.native(t).float().view(-1, 1, 1, 1)
    eps = (x_t - torch.sigmoid(-v).sqrt() * pixels.intensities(x0)) / torch.sigmoid(v).sqrt()
    assert float(pixels.loss(eps, x0, x_t, t).max()) < 1e-6
    assert float(pixels.loss(torch.zeros_like(eps), x0, x_t, t).mean()) == pytest.approx(64, rel=0.05)


def toy_noise(toy: Toy, levels: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """E[eps | x_t] of rows of cells with a known joint law, by enumeration: levels (K,) are the intensities."""
    states = torch.cartesian_prod(*(torch.arange(toy.K),) * toy.D)  # (K^D, D)
    log_joint, values = toy.joint.flatten().log().float(), levels[states]

    def denoise(x_and_v: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x, v = x_and_v[:, :1], x_and_v[:, 1:]
        signal, noise = torch.sigmoid(-v).sqrt(), torch.sigmoid(v).sqrt()
        apart = x[..., None, :] - signal[..., None, :] * values  # (B, 1, R, K^D, D)
        log_w = log_joint - (apart.square().sum(-1) / (2 * noise[..., :1] ** 2))
        mean = torch.softmax(log_w, -1) @ values
        return (x - signal * mean) / noise

    return denoise


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ddpm", "ddim", "heun"])
def test_samples_have_the_joint_law_of_three_cells(method):
    toy, pixels = three_cells(), make_process("ddpm", 3, 3)
    denoise, generator = (
        toy_noise(toy, pixels.intensities(torch.arange(3)[None, None]).flatten()),
        torch.Generator().manual_seed(7),
    )
    x = [generate(pixels, denoise, (200, 100, 3), 256, generator, method) for _ in range(10)]
    assert toy.total_variation(torch.cat(x)) < 0.02


@pytest.mark.parametrize("method", ["ddpm", "ddim", "heun"])
def test_samples_reproduce_a_law_whose_noise_is_known(pixels, method, generator):
    """One pixel at level 3 or 12 with probability 0.3 and 0.7; E[eps | x_t] in closed form instead of a network."""
    levels, weights = pixels.intensities(torch.tensor([[[3]], [[12]]])).flatten(), torch.tensor([0.3, 0.7])

    def denoise(x_and_v: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x, v = x_and_v[:, :1], x_and_v[:, 1:]
        signal, noise = torch.sigmoid(-v).sqrt(), torch.sigmoid(v).sqrt()
        log_w = weights.log() - (x[..., None] - signal[..., None] * levels).square() / (2 * noise[..., None] ** 2)
        mean = (torch.softmax(log_w, -1) * levels).sum(-1)
        return (x - signal * mean) / noise

    x = pixels.prior((20_000, 1, 1), generator)
    run = reverse(pixels, x, time_grid(pixels, 64, default_schedule(method)), method, generator)
    *_, last = frames(run, denoise)
    clean = pixels.clean(last.p, generator)
    share = [float((clean == level).float().mean()) for level in (3, 12)]
    assert share[0] + share[1] > 0.99
    assert share[0] == pytest.approx(0.3, abs=0.02)


def test_the_network_is_told_the_time_and_the_class():
    torch.manual_seed(0)
    network = NoiseUNet((16, 16), (1, 1), classes=10).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
        x = torch.randn(2, 1, 8, 8)
        early, late = (network(torch.cat([x, torch.full_like(x, v)], 1)) for v in (-3.0, 3.0))
        named = network(torch.cat([x, torch.full_like(x, 3.0)], 1), torch.tensor([1, 2]))
    assert early.shape == (2, 1, 8, 8)
    assert (early - late).abs().max() > 1e-3
    assert (named - late).abs().max() > 1e-3
