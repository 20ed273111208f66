"""Frechet distance against closed forms, precision and recall against sets one can check by hand."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from dd.metrics import frechet_distance, judge, precision_recall
from dd.networks.classifier import Classifier


def with_moments(n: int, mu: Tensor, S: Tensor, seed: int) -> Tensor:
    """n points whose sample mean and unbiased sample covariance are exactly mu and S (S may be singular)."""
    z = torch.randn(n, len(mu), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z = z - z.mean(0)
    q = torch.linalg.qr(z)[0] * (n - 1) ** 0.5
    values, vectors = torch.linalg.eigh(S)
    return mu + q @ (vectors * values.clamp(min=0).sqrt()).T


def test_frechet_distance_of_diagonal_gaussians():
    a, b = torch.tensor([4.0, 1.0, 0.25]).double(), torch.tensor([1.0, 9.0, 0.25]).double()
    mu = torch.tensor([1.0, -2.0, 0.5]).double()
    distance = frechet_distance(with_moments(50, 0 * mu, a.diag(), 0), with_moments(70, mu, b.diag(), 1))
    assert distance == pytest.approx(float(mu.square().sum()) + (2 - 1) ** 2 + (1 - 3) ** 2, abs=1e-10)


def test_frechet_distance_of_correlated_gaussians_agrees_with_scipy():
    generator = torch.Generator().manual_seed(2)
    A, B = (torch.randn(6, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    S_a, S_b = A @ A.T, B @ B.T
    mu = torch.randn(6, generator=generator, dtype=torch.float64)
    root = scipy.linalg.sqrtm((S_a @ S_b).numpy()).real
    truth = float(mu.square().sum() + (S_a + S_b).trace()) - 2 * np.trace(root)
    assert frechet_distance(with_moments(40, mu, S_a, 3), with_moments(90, 0 * mu, S_b, 4)) == pytest.approx(truth)


def test_frechet_distance_of_singular_covariances():
    """Lines along v and w: tr (S_a S_b)^(1/2) = |<v, w>|."""
    v, w = torch.tensor([3.0, 0.0, 4.0]).double(), torch.tensor([1.0, 2.0, 2.0]).double()
    mu = torch.zeros(3).double()
    a, b = with_moments(30, mu, torch.outer(v, v), 5), with_moments(30, mu, torch.outer(w, w), 6)
    assert frechet_distance(a, b) == pytest.approx(25 + 9 - 2 * 11, abs=1e-9)


def test_frechet_distance_is_zero_to_itself_and_symmetric():
    generator = torch.Generator().manual_seed(7)
    a, b = torch.randn(20, 128, generator=generator), torch.rand(300, 128, generator=generator)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_frechet_distance_refuses_what_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))


def test_precision_and_recall_by_hand():
    """On a line with k = 1 the balls of 0, 1, 10 reach 1, 1 and 9."""
    real, fake = torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([[-0.5], [0.5], [40.0]])
    # fake: -0.5 and 0.5 lie within 1 of 0, 40 nowhere. The balls of fake reach 1, 1 and 39.5: all of real is within
    # (0 of -0.5 and 0.5; 1 of 0.5; 10 of 40).
    assert precision_recall(real, fake, k=1) == pytest.approx((2 / 3, 1.0))


def test_precision_and_recall_see_dropped_modes_and_stray_samples():
    generator = torch.Generator().manual_seed(8)
    mode = torch.randn(400, 4, generator=generator)
    real = torch.cat([mode[:200], mode[200:] + 100])
    dropped = torch.randn(400, 4, generator=generator)
    precision, recall = precision_recall(real, dropped)
    assert precision > 0.8
    assert 0.4 < recall < 0.5
    stray = torch.cat([dropped[:200], dropped[200:] - 100])
    assert precision_recall(real, stray)[0] < 0.5
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, real + 1000) == (0.0, 0.0)


def test_precision_needs_more_points_than_neighbours():
    with pytest.raises(ValueError, match="k = 3"):
        precision_recall(torch.zeros(3, 2), torch.zeros(9, 2))


def test_judge_is_the_classifier_whatever_the_batch():
    torch.manual_seed(0)
    classifier = Classifier(2, channels=(4, 8)).eval()
    cells = torch.randint(0, 2, (7, 8, 8), generator=torch.Generator().manual_seed(9))
    features, classes = judge(classifier, cells, batch=3)
    assert features.shape == (7, 8)
    assert bool((features >= 0).all())
    assert torch.equal(classes, classifier.leave(features).argmax(1))
    torch.testing.assert_close(features, judge(classifier, cells, batch=7)[0])
