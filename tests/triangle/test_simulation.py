"""The triangle's runs against closed forms: what a visitor sees agrees with the formulas within Monte-Carlo error."""

from itertools import pairwise

import pytest
import torch

from dd.triangle.simulation import (
    PROCESSES,
    Settings,
    barycentric,
    grid,
    plane,
    sampler_names,
    simulate,
)
from tests.triangle.toys import UNEQUAL, WEIGHTS, Z, cell_of, interior

BIAS = {"native": 0.006, "euler": 0.015, "ode": 0.006}  # of 96 steps; nothing is allowed where a path is exact


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


def test_the_plane_is_inverted():
    x = interior()
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
        cell = cell_of(name)
        native = [cell.native_time(t) for t in times]
        assert all(a >= b for a, b in pairwise(native))
        assert native[-1] == 0
