"""Cells of the triangle: densities, fields and jump rates against each other and against the exact chain."""

import numpy as np
import pytest
import torch

from dd.triangle.cells import DiffusionCell
from dd.triangle.diffusions import NeutralWrightFisher
from dd.triangle.simulation import DIFFUSIONS, PROCESSES, Settings, barycentric
from tests.triangle.toys import UNEQUAL, cell_of, interior


@pytest.mark.parametrize("name", ["D3PM uniform", "D3PM absorbing"])
@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
def test_jump_rates_are_those_of_the_exact_step(name, t):
    """One reverse step of the chain, n to n - 1, against 1 + R (r_n - r_(n-1)); the step has an error of its square."""
    cell = cell_of(name)
    process, n = cell.process, cell.process.index(t)
    r = -process.chain.alpha_bar.log()
    d = float(r[n] - r[n - 1])
    bar = process.chain.between(torch.zeros_like(n), n)[0, :3]
    states = torch.arange(process.S)[None]
    w = cell.w / (cell.w @ bar)[:, None]  # p_k / Qbar[k, x_t] = w_k / p(x_t)
    step = process.posterior(w[None], states, n, n - 1)[0]
    R = sum(cell.rates(t))
    R = R - torch.diag(R.sum(1))
    reached = (cell.w @ bar) > 0
    assert torch.allclose(
        step[reached], (torch.eye(process.S) + R * d)[reached], atol=4 * (d * float(R.abs().max())) ** 2
    )
    assert d * float(R.abs().max()) < 0.05


@pytest.mark.parametrize("name", ["D3PM uniform", "D3PM absorbing"])
def test_jump_rates_carry_the_fractions_backwards(name):
    """sum_i p_i R_ij - p_j sum_i R_ji = -dp_j/dr = abar w_j - abar pi_j, with pi the stationary law."""
    cell = cell_of(name)
    for t in (0.1, 0.5, 0.9):
        R, p = sum(cell.rates(t)), cell.theory(t).fractions
        abar, pi = cell.process.chain.alpha_bar[cell.process.index(t)], cell.process.chain.R[0]
        w = torch.cat([cell.w, torch.zeros(cell.process.S - 3, dtype=torch.float64)])
        assert torch.allclose(p @ R - p * R.sum(1), abar * (w - pi))


def test_uniform_jumps_select_nothing_where_every_category_is_as_likely():
    cell = PROCESSES["D3PM uniform"]((1.0, 1.0, 1.0), Settings().w, "native")
    mutation, selection = cell.rates(0.4)
    assert torch.allclose(mutation + torch.eye(3) / 3, torch.full((3, 3), 1 / 3, dtype=torch.float64))
    assert float(selection.abs().max()) < 1e-12


@pytest.mark.parametrize("name", [*DIFFUSIONS, "Gaussian on one-hots"])
@pytest.mark.parametrize("t", [0.35, 0.7])
def test_density_integrates_to_one(name, t):
    cell = cell_of(name)
    x0, y0, x1, y1 = cell.box
    side = torch.arange(300, dtype=torch.float64).add(0.5) / 300
    xy = torch.stack(torch.meshgrid(x0 + (x1 - x0) * side, y0 + (y1 - y0) * side, indexing="ij"), -1).view(-1, 2)
    x = barycentric(xy)
    if cell.span[0] >= 0:
        x = x[(x > 0).all(1)]
    area = (x1 - x0) * (y1 - y0) / len(xy) / (3**0.5 / 4)
    total = float(cell.log_density(x, t).exp().sum()) * area
    # grids end near the edges; Bakosi-Ristorcelli's table cannot resolve the corners; the Gaussian leaves the box
    assert total == pytest.approx(1, abs={"Bakosi-Ristorcelli": 0.1, "Gaussian on one-hots": 0.04}.get(name, 0.03))


@pytest.mark.parametrize("name", [*DIFFUSIONS, "Gaussian on one-hots"])
def test_selection_is_diffusion_times_the_gradient_of_the_log_ratio(name):
    """D grad log rho by central differences of the density; D from the noise's own covariance."""
    cell, t, h = cell_of(name, UNEQUAL), 0.5, 1e-5
    x = interior()
    if name == "Gaussian on one-hots":
        ratio = lambda z: cell.log_density(z, t) + (z - 1 / 3).square().sum(1) / 2  # noqa: E731
        D = (torch.eye(3, dtype=torch.float64) - 1 / 3).expand(len(x), 3, 3)
    else:
        tau = cell.native_time(t)
        h = 0.02 if name == "Bakosi-Ristorcelli" else h  # a table, linear between lattice points
        ratio = lambda z: torch.logsumexp(cell.w.log() + cell.diffusion.evidence(z, tau), 1)  # noqa: E731
        x = x[x.min(1).values > 0.06]
        S = torch.stack([cell.diffusion.noise(x, e.expand_as(x)) for e in torch.eye(3, dtype=torch.float64)], 2)
        D = S @ S.mT
    gradient = []
    for i in range(3):
        e = torch.full((3,), -1 / 3, dtype=torch.float64)
        e[i] += 1
        gradient.append((ratio(x + h * e) - ratio(x - h * e)) / (2 * h))
    expected = (D @ torch.stack(gradient, 1)[..., None])[..., 0]
    selection = cell.field(x, t)[1]
    tolerance = 0.12 if name == "Bakosi-Ristorcelli" else 1e-3
    assert float((selection - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


def test_the_clock_is_destroyed_information():
    cell = DiffusionCell(NeutralWrightFisher(torch.ones(3)), torch.full((3,), 1 / 3, dtype=torch.float64))
    tau = cell.native_time(0.5)
    x = cell.diffusion.sample(torch.arange(3).repeat(4000), tau, torch.Generator().manual_seed(9))
    p = cell.posterior(x, tau)
    H = -torch.xlogy(p, p).sum(1) / np.log(3)
    assert float(H.mean()) == pytest.approx(0.5, abs=0.02)
