"""The triangle's runs against closed forms: what a visitor sees agrees with the formulas within Monte-Carlo error."""

import base64
import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from dd.bakosi import BakosiRistorcelli
from dd.cells import DiffusionCell
from dd.diffusions import NeutralWrightFisher
from dd.moments import stationary
from dd.simplex import (
    MAX_PARTICLES,
    PROCESSES,
    Settings,
    barycentric,
    grid,
    plane,
    sampler_names,
    simulate,
)
from dd.stick_breaking import StickBreaking

UNEQUAL = (0.6, 1.0, 2.0)
WEIGHTS = (0.5, 0.3, 0.2)
DIFFUSIONS = ("Wright-Fisher", "Stick-breaking Jacobi", "Bakosi-Ristorcelli")
Z = 4.5  # standard errors allowed; about 60 comparisons a run
BIAS = {"native": 0.006, "euler": 0.015, "ode": 0.006}  # of 96 steps; nothing is allowed where a path is exact


def _cell(name: str, alpha=(1.0, 1.0, 1.0)):
    return PROCESSES[name](alpha, Settings(weights=WEIGHTS).w, "native")


def _interior(n: int = 40) -> torch.Tensor:
    return stationary(torch.full((3,), 2.0), n, torch.Generator().manual_seed(3))


def _exact(name: str, sampler: str, backwards: bool) -> bool:
    return name.startswith("D3PM") or (name.startswith("Gaussian") and sampler == "native" and not backwards)


CASES = [
    (name, alpha, sampler, backwards)
    for name, alpha in [*((name, (1.0, 1.0, 1.0)) for name in PROCESSES), ("Wright-Fisher", UNEQUAL)]
    for sampler in ("native", "euler", "ode")
    for backwards in (False, True)
    if not (name.startswith("D3PM") and sampler != "native")
    and (name, sampler, backwards) != ("Bakosi-Ristorcelli", "ode", False)  # refused, tested below
]


@pytest.mark.parametrize(("name", "alpha", "sampler", "backwards"), CASES)
def test_particles_agree_with_theory(name, alpha, sampler, backwards):
    settings = Settings(alpha, WEIGHTS, backwards, sampler, steps=96, particles=2000, seed=5)
    run = simulate(name, settings)
    assert bool(run.paths.isfinite().all())
    assert torch.allclose(run.paths.sum(-1), torch.ones(1, dtype=torch.float64))
    slack = 0.0 if _exact(name, sampler, backwards) else BIAS[sampler]
    if name == "Bakosi-Ristorcelli" and backwards:
        slack = 0.02  # the score is numerical
    n = settings.particles
    early = (0,) if backwards and sampler == "euler" else (0, 1, 12, 24)  # Euler's steps are too long near t = 1
    for frame in (*early, 36, 48, 60, 72, 84, 95, 96):
        theory, x = run.cell.theory(run.times[frame]), run.paths[frame]
        centred = x - x.mean(0)
        var, fourth = centred.square().mean(0), (centred**4).mean(0)
        se_mean = (theory.var / n).sqrt()
        se_var = ((fourth - var**2).clamp(min=0) / n + 2 * (theory.var / n) ** 2).sqrt()
        assert bool(((x.mean(0) - theory.mean).abs() <= Z * se_mean + slack + 1e-9).all()), (frame, x.mean(0), theory)
        assert bool(((var - theory.var).abs() <= Z * se_var + slack + 1e-3 / n**0.5).all()), (frame, var, theory)


@pytest.mark.parametrize("name", ["Wright-Fisher", "Stick-breaking Jacobi"])
def test_mean_entropy_agrees_with_the_closed_form(name):
    run = simulate(name, Settings((1.0, 1.0, 1.0), WEIGHTS, backwards=False, steps=64, particles=2000, seed=2))
    for frame in (1, 16, 32, 48, 64):
        x = run.paths[frame]
        H = -torch.xlogy(x, x).sum(1)
        error = abs(float(H.mean()) - run.cell.theory(run.times[frame]).entropy)
        assert error <= Z * float(H.std()) / len(H) ** 0.5 + 0.004


@pytest.mark.parametrize("name", ["D3PM uniform", "D3PM absorbing"])
def test_corner_fractions(name):
    run = simulate(name, Settings(weights=WEIGHTS, steps=30, particles=2000, seed=1))
    corners = torch.cat([torch.eye(3), torch.full((1, 3), 1 / 3)]).double()
    for frame, t in enumerate(run.times):
        theory = run.cell.theory(t).fractions
        live = torch.stack([(run.paths[frame] - c).abs().sum(1).lt(1e-6).double().mean() for c in corners])[
            : len(theory)
        ]
        assert float(live.sum()) == pytest.approx(1)
        assert bool(((live - theory).abs() <= Z * (theory * (1 - theory) / 2000).sqrt() + 1e-9).all())


@pytest.mark.parametrize("name", ["D3PM uniform", "D3PM absorbing"])
@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
def test_jump_rates_are_those_of_the_exact_step(name, t):
    """One reverse step of the chain, n to n - 1, against 1 + R (r_n - r_(n-1)); the step has an error of its square."""
    cell = _cell(name)
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
    cell = _cell(name)
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


@pytest.mark.parametrize("first", PROCESSES)
@pytest.mark.parametrize("second", [None, *PROCESSES])
@pytest.mark.parametrize("backwards", [True, False])
def test_two_processes_are_offered_what_either_has_and_none_refuses(first, second, backwards):
    names = [first] if second is None else [first, second]
    offered = sampler_names(names, backwards)
    assert "native" in offered
    assert ("euler" in offered) == (not all(name.startswith("D3PM") for name in names))
    assert set(offered) <= {sampler for name in names for sampler in sampler_names([name], True)}


@pytest.mark.parametrize("backwards", [True, False])
@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_takes_every_sampler_that_it_may_be_offered(name, backwards):
    """Beside another process, a sampler may be on offer that this one has not: it takes its own."""
    offered = {sampler for other in PROCESSES for sampler in sampler_names([name, other], backwards)}
    for sampler in offered:
        settings = Settings(backwards=backwards, sampler=sampler, steps=4, particles=2)
        assert simulate(name, settings).paths.isfinite().all()


@pytest.mark.parametrize("name", [None, "Cox-Ingersoll-Ross"])
def test_an_unknown_process_is_a_sentence(name):
    with pytest.raises(ValueError, match="choose one of Wright-Fisher"):
        sampler_names(["Wright-Fisher", name], backwards=True)
    with pytest.raises(ValueError, match="choose one of Wright-Fisher"):
        simulate(name, Settings())


@pytest.mark.parametrize("name", [*DIFFUSIONS, "Gaussian on one-hots"])
@pytest.mark.parametrize("t", [0.35, 0.7])
def test_density_integrates_to_one(name, t):
    cell = _cell(name)
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
    cell, t, h = _cell(name, UNEQUAL), 0.5, 1e-5
    x = _interior()
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


@pytest.mark.parametrize("make", [NeutralWrightFisher, StickBreaking, BakosiRistorcelli])
def test_drift_keeps_the_dirichlet_stationary(make):
    """E_pi[L q] = 0 for q = x_i x_j: 2 E[x_i f_j] symmetrised + E[D_ij] = 0, by 200,000 draws."""
    diffusion = make(torch.tensor(UNEQUAL))
    x = stationary(diffusion.alpha, 200_000, torch.Generator().manual_seed(0))
    f = diffusion.drift(x)
    assert float(f.sum(1).abs().max()) < 1e-12
    S = torch.stack([diffusion.noise(x, e.expand_as(x)) for e in torch.eye(3, dtype=torch.float64)], 2)
    rate = x[:, :, None] * f[:, None] + f[:, :, None] * x[:, None] + S @ S.mT
    assert bool((rate.mean(0).abs() <= Z * rate.std(0) / len(x) ** 0.5).all())


def test_the_plane_is_inverted():
    x = _interior()
    assert torch.allclose(barycentric(plane(x)), x)


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": (0.0, 1.0, 1.0)},
        {"alpha": (float("nan"), 1.0, 1.0)},
        {"alpha": (1.0, 1.0, 6.0)},
        {"weights": (0.0, 0.0, 0.0)},
        {"weights": (float("nan"), 1.0, 1.0)},
        {"weights": (-1.0, 1.0, 1.0)},
        {"particles": 10**9},
        {"particles": 0},
        {"steps": 0},
        {"steps": 10**6},
        {"sampler": "magic"},
        {"seed": -1},
    ],
)
def test_bad_settings_get_a_sentence(change):
    with pytest.raises(ValueError, match=r"[A-Z].*\."):
        Settings(**change)


def test_a_flow_that_the_numerical_score_cannot_give_is_refused():
    with pytest.raises(ValueError, match="no forward probability flow"):
        simulate("Bakosi-Ristorcelli", Settings(backwards=False, sampler="ode", steps=8, particles=4))


def test_a_category_of_weight_zero_is_never_reached():
    run = simulate("Wright-Fisher", Settings(weights=(0.0, 1.0, 1.0), steps=48, particles=500))
    assert float(run.paths[-1][:, 0].max()) == 0


def test_the_clock_is_shared_and_monotone():
    times = grid(50, backwards=True)
    assert (times[0], times[-1]) == (1.0, 0.0)
    assert all(a > b for a, b in pairwise(times))
    for name in PROCESSES:
        cell = _cell(name)
        native = [cell.native_time(t) for t in times]
        assert all(a >= b for a, b in pairwise(native))
        assert native[-1] == 0


def test_the_clock_is_destroyed_information():
    cell = DiffusionCell(NeutralWrightFisher(torch.ones(3)), torch.full((3,), 1 / 3, dtype=torch.float64))
    tau = cell.native_time(0.5)
    x = cell.diffusion.sample(torch.arange(3).repeat(4000), tau, torch.Generator().manual_seed(9))
    p = cell.posterior(x, tau)
    H = -torch.xlogy(p, p).sum(1) / np.log(3)
    assert float(H.mean()) == pytest.approx(0.5, abs=0.02)


class TestMessage:
    """What is sent to the page."""

    gradio = pytest.importorskip("gradio")

    def test_it_holds_the_run(self):
        from dd.ui.simplex import encode

        run = simulate("Wright-Fisher", Settings(particles=50, steps=20))
        panel = encode(run)
        raw = np.frombuffer(base64.b64decode(panel["paths"]), "<u2").reshape(21, 50, 2) / 65535
        assert np.abs(raw - run.paths[..., :2].numpy()).max() < 1e-5
        corner = np.frombuffer(base64.b64decode(panel["corner"]), "u1")
        assert (corner == run.paths[-1].argmax(1).numpy()).all()
        keys, (nx, ny) = panel["keys"], panel["grid"]
        assert len(base64.b64decode(panel["density"])) == len(keys) * nx * ny * 2
        assert keys[0] == 0
        assert keys[-1] == 20
        assert (
            len(base64.b64decode(panel["field"]["selection"]))
            == len(keys) * panel["field"]["nx"] * panel["field"]["ny"] * 4
        )

    def test_same_seed_same_message_and_it_is_compact(self):
        from dd.ui.simplex import DIRECTIONS, show

        controls = ("D3PM absorbing", "Gaussian on one-hots", DIRECTIONS[1], "native", 40, 2000, 1, 1, 1, 1, 1, 1, 7)
        first = show(*controls)
        assert first == show(*controls)
        assert [p["title"] for p in json.loads(first)["panels"]] == ["D3PM absorbing", "Gaussian on one-hots"]
        assert len(first) < 3e6

    @pytest.mark.parametrize(
        ("at", "value"), [(6, 0), (6, float("nan")), (5, 10**9), (5, None), (4, 0), (12, -3), (12, 1.5)]
    )
    def test_bad_controls_get_a_sentence(self, at, value):
        from dd.ui.simplex import DIRECTIONS, show

        controls = ["Wright-Fisher", "none", DIRECTIONS[0], "native", 40, 100, 1, 1, 1, 1, 1, 1, 0]
        controls[at] = value
        with pytest.raises(self.gradio.Error, match=r"[A-Z].*\."):
            show(*controls)

    def test_all_weights_zero_get_a_sentence(self):
        from dd.ui.simplex import DIRECTIONS, show

        with pytest.raises(self.gradio.Error, match="weight"):
            show("Wright-Fisher", "none", DIRECTIONS[0], "native", 40, MAX_PARTICLES, 1, 1, 1, 0, 0, 0, 0)
