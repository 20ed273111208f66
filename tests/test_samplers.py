"""Samplers held to a known joint law: enumeration in place of the network, total variation to the truth."""

import time

import numpy as np
import pytest
import torch

from dd.processes import REGISTRY, Process, make_process
from dd.processes.dirichlet import Dirichlet
from dd.processes.gaussian import nichol_signal, nichol_time
from dd.samplers import EVERYWHERE, TWO_CALLS, Denoiser, Query, frames, generate, race, reverse, time_grid
from tests.toys import Toy, three_cells, two_cells

SAMPLERS = [(name, method) for name in REGISTRY for method in make_process(name, 3, 3).methods]
UNEQUAL = torch.tensor([0.6, 1.0, 1.9], dtype=torch.float64)


def sample(process: Process, toy: Toy, method: str, calls: int, n: int, seed: int, batch: int = 20_000) -> torch.Tensor:
    """n clean toys (n, D) by `calls` network calls, `batch` of them at a time as the rows of one image."""
    generator = torch.Generator().manual_seed(seed)
    steps = calls // 2 if method in TWO_CALLS else calls
    parts = [
        generate(process, toy.denoise, (1, min(batch, n - i), toy.D), steps, generator, method)[0]
        for i in range(0, n, batch)
    ]
    return torch.cat(parts)


# Of n = 200,000 independent draws from the truth the total variation is 0.0040 +- 0.0006 (mean and standard deviation
# for the 27 states of three_cells; 0.0125 +- 0.0022 for n = 20,000). So the long tests see an error of the law itself
# from about 0.002 on, a tenth of what they allow.


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), SAMPLERS)
def test_joint_law_of_three_cells(name: str, method: str) -> None:
    """K = 3, three cells, 256 network calls, 200,000 samples: total variation below 0.02."""
    toy = three_cells()
    assert toy.total_variation(sample(make_process(name, 3, 3), toy, method, 256, 200_000, seed=7)) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("method", Dirichlet.methods)
def test_joint_law_with_unequal_alpha(method: str) -> None:
    toy = three_cells()
    assert toy.total_variation(sample(Dirichlet(3, 3, UNEQUAL), toy, method, 256, 200_000, seed=7)) < 0.02


@pytest.mark.parametrize(("name", "method"), SAMPLERS)
def test_joint_law_in_few_calls(name: str, method: str) -> None:
    """The quick version, for every run of the tests: 64 calls, 20,000 samples."""
    toy = three_cells()
    assert toy.total_variation(sample(make_process(name, 3, 3), toy, method, 64, 20_000, seed=7)) < 0.025


@pytest.mark.parametrize(
    ("method", "allowed"), [("dirichlet", 0.02), ("euler", 0.015), ("ode", 0.025), ("heun", 0.02), ("langevin", 0.015)]
)
def test_between_two_calls_the_evidence_is_followed(method: str, allowed: float) -> None:
    """Ten calls for a single cell, whose f is a constant: all the error is in how the steps are taken.

    30,000 draws from the truth have a total variation of 0.008. With the fitness of a step's start for all of it the
    Dirichlet step has 0.031, Euler's 0.021, the flow 0.049.
    """
    f = torch.randn(16, generator=torch.Generator().manual_seed(1)).view(1, 16, 1, 1)
    steps = 5 if method in TWO_CALLS else 10
    generator = torch.Generator().manual_seed(0)
    x = generate(Dirichlet(16), lambda l, t: f.expand_as(l), (30_000, 1, 1), steps, generator, method)
    error = torch.bincount(x.flatten(), minlength=16) / len(x) - torch.softmax(f.flatten(), 0)
    assert float(error.abs().sum() / 2) < allowed


def test_parts_of_a_step() -> None:
    process = Dirichlet(4)
    times = process.parts(0.9, 0.1, "dirichlet")
    assert (times[0], times[-1]) == (0.9, 0.1)
    lengths = -torch.tensor([float(process.tau(t)) for t in times]).log().diff()
    assert lengths.max() <= process.longest * (1 + 1e-6)
    assert float(lengths.max() - lengths.min()) < 1e-6
    assert len(times) == 1 + int(np.ceil(float(lengths.sum()) / process.longest))
    assert process.parts(0.5, 0.499, "euler") == [0.5, 0.499]
    assert process.parts(0.9, 0.1, "bridge") == [0.9, 0.1]  # exact over any length
    assert make_process("gaussian", 4, 9).parts(0.9, 0.1, "ddpm") == [0.9, 0.1]  # as its papers have it


def ring_statistics(joint: torch.Tensor) -> torch.Tensor:
    """Coarse law of two cells on a ring of 64: the first cell in 8 arcs, the difference in 8 arcs: (64,)."""
    i = torch.arange(64)
    a, d = i[:, None] // 8, ((i[None] - i[:, None] + 4) % 64) // 8
    return torch.zeros(64, dtype=torch.float64).index_add_(0, (a * 8 + d).flatten(), joint.flatten())


def coarse_variation(toy: Toy, x: torch.Tensor) -> float:
    return float((ring_statistics(toy.frequencies(x)) - ring_statistics(toy.joint)).abs().sum() / 2)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", ["flat", "unequal"])
@pytest.mark.parametrize("method", Dirichlet.methods)
def test_two_cells_of_64_categories(method: str, alpha: str) -> None:
    """4,096 joint states have a sampling floor of about 0.05 at 200,000 samples, so the test is on the coarse law

    (first cell in 8 arcs, difference in 8 arcs: 64 states), 8,000 samples at 128 calls, floor 0.03.
    """
    toy = two_cells()
    concentration = 1.0 if alpha == "flat" else torch.linspace(0.5, 1.5, 64, dtype=torch.float64).round(decimals=1)
    x = sample(Dirichlet(64, 2, concentration), toy, method, 128, 8_000, seed=7, batch=8_000)
    assert coarse_variation(toy, x) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), [s for s in SAMPLERS if s[0] != "dirichlet"])
def test_two_cells_of_64_categories_other_samplers(name: str, method: str) -> None:
    toy = two_cells()
    x = sample(make_process(name, 64, 2), toy, method, 128, 8_000, seed=7, batch=8_000)
    assert coarse_variation(toy, x) < 0.05


@pytest.mark.parametrize("name", [n for n in REGISTRY if n != "dirichlet"])
def test_two_cells_of_64_categories_other_processes(name: str) -> None:
    """The quick version."""
    toy, process = two_cells(), make_process(name, 64, 2)
    x = sample(process, toy, process.methods[0], 64, 3_000, seed=7)
    assert coarse_variation(toy, x) < 0.085


# -- the machinery ---------------------------------------------------------------------------------------------------


class Independent(torch.nn.Module):
    """A network that is sure of nothing but the law of one cell: f = log q."""

    classes = 0

    def __init__(self, q: torch.Tensor):
        super().__init__()
        self.f = torch.nn.Parameter(q.log())

    def forward(self, l: torch.Tensor) -> torch.Tensor:
        return self.f.view(1, -1, 1, 1).expand(l.shape)


@pytest.mark.parametrize(("name", "method"), SAMPLERS)
def test_temperature_raises_the_law_of_a_cell_to_a_power(name: str, method: str) -> None:
    """With f / T in the place of f = log q, cells that do not depend on each other follow q^(1/T)."""
    q, temperature, generator = torch.tensor([0.5, 0.3, 0.2]), 0.5, torch.Generator().manual_seed(7)
    denoise = Denoiser(Independent(q), temperature=temperature)
    steps = 32 if method in TWO_CALLS else 64
    x = generate(make_process(name, 3, 1), denoise, (1, 20_000, 1), steps, generator, method)
    tempered = q ** (1 / temperature) / (q ** (1 / temperature)).sum()
    assert float((torch.bincount(x.flatten(), minlength=3) / x.numel() - tempered).abs().sum() / 2) < 0.03


def test_a_tilted_temperature_is_that_of_the_time_when_a_cell_is_drawn() -> None:
    """A masked cell is drawn at a time that is uniform in t, so its law is the mean of q^(1/T(t)) over t."""
    q, generator = torch.tensor([0.5, 0.3, 0.2]), torch.Generator().manual_seed(7)
    chain = make_process("d3pm-absorbing", 3, 1)
    for tilt in (-0.6, 0.3):
        denoise = Denoiser(Independent(q), temperature=0.5, tilt=tilt)
        x = generate(chain, denoise, (1, 40_000, 1), 64, generator)
        T = 0.5 + tilt * (torch.linspace(0, 1, 1001)[:, None] - 0.5)
        law = torch.softmax(q.log() / T, 1).mean(0)
        assert float((torch.bincount(x.flatten(), minlength=3) / x.numel() - law).abs().sum() / 2) < 0.01


def test_a_tilt_leaves_the_middle_of_the_way_alone() -> None:
    f, l = Independent(torch.tensor([0.5, 0.3, 0.2])).requires_grad_(False), torch.zeros(3, 3, 1, 1)
    t = torch.tensor([1.0, 0.5, 0.0])
    assert torch.equal(Denoiser(f)(l, t), f(l))
    with pytest.raises(ValueError, match="give the times"):
        Denoiser(f, tilt=0.5)(l)
    ratio = f(l) / Denoiser(f, temperature=0.75, tilt=0.5)(l, t)
    assert torch.allclose(ratio, torch.tensor([1.0, 0.75, 0.5]).view(3, 1, 1, 1))


@pytest.mark.parametrize(("name", "method"), SAMPLERS)
def test_same_seed_same_picture(name: str, method: str) -> None:
    toy = three_cells()
    a, b, c = (sample(make_process(name, 3, 3), toy, method, 8, 200, seed) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(("name", "method"), SAMPLERS)
def test_frames(name: str, method: str) -> None:
    """One frame before any step and one after each; p sums to one; N steps cost N calls, or 2 N; states are finite."""
    toy, process, generator = three_cells(), make_process(name, 3, 3), torch.Generator().manual_seed(0)
    run = reverse(process, process.prior((4, 1, 3), generator), time_grid(process, 5), method, generator)
    seen = list(frames(run, toy.denoise))
    assert [frame.step for frame in seen] == list(range(6))
    assert [seen[0].t, seen[-1].t] == [1.0, 0.0]
    assert seen[-1].calls == (10 if method in TWO_CALLS else 5)
    for frame in seen:
        assert torch.allclose(frame.p.sum(1), torch.ones(4, 1, 3), atol=1e-5)
        assert bool(torch.isfinite(frame.x.float()).all())


def test_a_race_equals_each_lane_alone() -> None:
    toy = three_cells()

    def lane(name: str, method: str):
        generator = torch.Generator().manual_seed(3)
        process = make_process(name, 3, 3)
        return reverse(process, process.prior((20, 1, 3), generator), time_grid(process, 6), method, generator)

    lanes = [("dirichlet", "dirichlet"), ("dirichlet", "heun"), ("d3pm-absorbing", "ancestral"), ("gaussian", "ddim")]
    *_, together = race([lane(*entry) for entry in lanes], toy.denoise)
    for entry, frame in zip(lanes, together, strict=True):
        *_, alone = frames(lane(*entry), toy.denoise)
        assert torch.allclose(frame.p, alone.p, atol=1e-5)
        assert frame.calls == alone.calls


@pytest.mark.parametrize("kind", EVERYWHERE)
def test_time_grids(kind: str) -> None:
    for steps in (1, 2, 100):
        times = torch.tensor(time_grid(make_process("dirichlet", 3, 3), steps, kind), dtype=torch.float64)
        assert len(times) == steps + 1
        assert [float(times[0]), float(times[-1])] == [1.0, 0.0]
        assert bool((times.diff() < 0).all())
    whole = time_grid(make_process("dirichlet", 3, 3), 100, kind)
    assert time_grid(make_process("dirichlet", 3, 3), 40, kind, start=whole[60]) == pytest.approx(whole[60:], abs=1e-9)


def test_nichol_and_dhariwal_s_schedule_is_the_gaussian_s() -> None:
    """abar at evenly spaced u is cos^2 between the two ends (their eq. 17), and a start below 1 is on the way."""
    gaussian = make_process("gaussian", 3, 3)
    times = time_grid(gaussian, 100, "nichol")
    ends = nichol_time(gaussian.clock.native(torch.tensor([1.0, 0.0])).numpy())
    abar = gaussian.alpha_bar(torch.tensor(times, dtype=torch.float64))
    assert abar.numpy() == pytest.approx(nichol_signal(np.linspace(*ends, 101)), abs=2e-4)
    assert time_grid(gaussian, 40, "nichol", start=times[60]) == pytest.approx(times[60:], abs=1e-6)
    with pytest.raises(ValueError, match=r"dirichlet has no schedule 'nichol'"):
        time_grid(make_process("dirichlet", 3, 3), 4, "nichol")


@pytest.mark.parametrize("name", ["d3pm-absorbing", "d3pm-uniform", "d3pm-gaussian", "multinomial"])
@pytest.mark.parametrize("K", [4, 16])
def test_every_call_of_a_chain_is_a_step_of_its_own(name: str, K: int) -> None:
    """N steps between the ends visit N + 1 places of the chain, whatever the schedule, and T steps every one of them;
    a start keeps its own."""
    chain = make_process(name, K, 64)
    for kind in EVERYWHERE:
        for steps in (1, 10, 100, 500, 1000):
            n = torch.tensor([int(chain.index(t)) for t in time_grid(chain, steps, kind)])
            assert bool((n.diff() < 0).all())
            assert [int(n[0]), int(n[-1])] == [1000, 0]
        times = time_grid(chain, 30, kind, start=0.3055)
        few = [int(chain.index(t)) for t in times]
        assert times[0] == 0.3055
        assert len(set(few)) == 31
    near = time_grid(chain, 30, "information", start=0.001)  # fewer steps of the chain than were asked for
    assert sorted(near, reverse=True) == near


def test_lanes_of_one_network_share_every_call() -> None:
    """Three lanes with one or two calls a step: as many calls as the most that any of them makes."""
    toy, asked = three_cells(), []

    def count(l: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert len(t) == len(l)
        asked.append(len(l))
        return toy.denoise(l)

    def lane(name: str, method: str):
        process, generator = make_process(name, 3, 3), torch.Generator().manual_seed(0)
        return reverse(process, process.prior((2, 1, 3), generator), time_grid(process, 6), method, generator)

    list(race([lane("dirichlet", "euler"), lane("d3pm-uniform", "ancestral"), lane("gaussian", "heun")], count))
    assert asked == [6, 2] * 6


@pytest.mark.parametrize("method", ["dirichlet", "heun"])
def test_the_network_is_told_the_times_of_every_lane(method: str) -> None:
    """Two lanes at times of their own: of a step, and for methods of two calls of its end."""
    toy, told, process = three_cells(), [], make_process("dirichlet", 3, 3)

    def listen(l: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        told.append(t.tolist())
        return toy.denoise(l)

    def lane(times: list[float]):
        generator = torch.Generator().manual_seed(0)
        return reverse(process, process.prior((2, 1, 3), generator), times, method, generator)

    list(race([lane([1.0, 0.75, 0.0]), lane([0.5, 0.25, 0.0])], listen))
    begun = [[1.0, 1.0, 0.5, 0.5], [0.75, 0.75, 0.25, 0.25]]
    assert told == (begun if method == "dirichlet" else [begun[0], begun[1], begun[1], [0.0] * 4])


def test_bad_requests() -> None:
    process, generator = make_process("dirichlet", 3, 3), torch.Generator()
    with pytest.raises(ValueError, match="at least 1"):
        time_grid(process, 0)
    with pytest.raises(ValueError, match="has no schedule"):
        time_grid(process, 4, "square")
    with pytest.raises(ValueError, match="has no sampler"):
        next(reverse(process, torch.ones(1, 3, 1, 1) / 3, [1.0, 0.0], "ancestral", generator))
    with pytest.raises(ValueError, match="unknown process"):
        make_process("brownian", 3, 3)


def test_langevin_corrector_leads_to_the_marginal() -> None:
    """States of t = 0.8, corrected at s = 0.5 for one unit of tau, are as concentrated as those of s.

    E sum x^2 is 0.512 at 0.8 and 0.545 at 0.5; without the selection the corrector leads to 0.500, with twice as much
    to 0.60 (20,000 samples, standard error 0.001).
    """
    toy, generator = three_cells(), torch.Generator().manual_seed(0)
    process, s = make_process("dirichlet", 3, 3), 0.5

    def noisy(t: float) -> torch.Tensor:
        return process.perturb(toy.sample(20_000, generator), t, generator)

    def concentration(x: torch.Tensor) -> float:
        return float(x.square().sum(1).mean())

    x = far = noisy(0.8)
    for _ in range(64):
        x = process.correct(x, toy.denoise(process.evidence(x, s)), s + 0.02, s, generator)
    there = concentration(noisy(s))
    assert there - concentration(far) > 0.03
    assert concentration(x) == pytest.approx(there, abs=0.01)


def test_query_is_what_the_network_sees() -> None:
    process, generator = make_process("dirichlet", 3, 3), torch.Generator().manual_seed(0)
    x = process.prior((2, 1, 3), generator)
    query = next(reverse(process, x, [1.0, 0.5, 0.0], "dirichlet", generator))
    assert isinstance(query, Query)
    assert torch.equal(query.evidence, process.evidence(x, 1.0))


def test_lanes_share_the_time_of_their_calls_by_size_and_a_lane_that_has_ended_takes_none() -> None:
    process, toy = make_process("d3pm-uniform", 3, 3), three_cells()

    def slow(l: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        time.sleep(0.04)
        return toy.denoise(l)

    def lane(rows: int, steps: int):
        generator = torch.Generator().manual_seed(0)
        x = process.prior((rows, 1, toy.D), generator)
        return reverse(process, x, time_grid(process, steps), "ancestral", generator)

    start, shown = time.perf_counter(), list(race([lane(3, 4), lane(1, 2)], slow))
    total = time.perf_counter() - start
    assert all(large.seconds >= 0.03 and small.seconds >= 0.01 for large, small in shown[:2])
    assert all(large.seconds >= 0.04 for large, _ in shown[2:-1])
    assert [small.seconds for _, small in shown[3:]] == [0.0, 0.0]
    assert 4 * 0.04 <= sum(frame.seconds for frames_ in shown for frame in frames_) <= total
