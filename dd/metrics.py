"""Distances between sets of samples, in the features of the classifier.

All sums are float64. Feature sets are (N, D); N is part of every figure, since the Frechet distance of finite sets is
biased upwards by about 1/N: compare only figures of the same N, and with the floor, two real sets of that N.
"""

import torch
from torch import Tensor

from dd.networks.classifier import Classifier

NEIGHBOURS = 3  # k of precision and recall, as in Kynkaanniemi et al. 2019


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of feature sets a (N, D), b (M, D) (Heusel et al. 2017)."""
    return sum(frechet_parts(a, b))


def frechet_parts(a: Tensor, b: Tensor) -> tuple[float, float]:
    """|mu_a - mu_b|^2 and tr(S_a + S_b - 2 (S_a S_b)^(1/2)).

    With centred features X = Q R and S = R^T R, tr (S_a S_b)^(1/2) is the nuclear norm of R_a R_b^T: nothing is squared
    or inverted, so singular covariances (dead features, N < D) are as exact as any.
    """
    mu_a, R_a = _moments(a)
    mu_b, R_b = _moments(b)
    cross = torch.linalg.matrix_norm(R_a @ R_b.T, ord="nuc")
    return float((mu_a - mu_b).square().sum()), float(R_a.square().sum() + R_b.square().sum() - 2 * cross)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and R with R^T R = the unbiased covariance."""
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"a feature set needs shape (N, D) with N at least 2, got {tuple(x.shape)}")
    x = x.double()
    mu = x.mean(0)
    return mu, torch.linalg.qr((x - mu) / (len(x) - 1) ** 0.5, mode="r")[1]


def precision_recall(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019).

    precision: share of fake (M, D) within the manifold of real (N, D); recall: the other way round. The manifold of a
    set is the union of balls around its points that reach to their k-th nearest neighbour in the set.
    """
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"precision and recall with k = {k} need more than {k} points in both sets")
    real, fake = real.double(), fake.double()
    return _share_within(fake, real, k), _share_within(real, fake, k)


def _share_within(points: Tensor, centres: Tensor, k: int, batch: int = 1000) -> float:
    radii = torch.cat([distances(part, centres).kthvalue(k + 1, 1).values for part in centres.split(batch)])
    within = [(distances(part, centres) <= radii).any(1) for part in points.split(batch)]
    return float(torch.cat(within).double().mean())


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Exact for equal points, which |a|^2 + |b|^2 - 2ab is not; a point is its own nearest neighbour, at 0."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


@torch.no_grad()
def judge(classifier: Classifier, cells: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Features (N, D) and predicted classes (N,) of categories (N, H, W); float32 on every machine."""
    device = next(classifier.parameters()).device
    features, classes = [], []
    for x in cells.split(batch):
        h = classifier.features(x.to(device))
        features.append(h.cpu())
        classes.append(classifier.leave(h).argmax(1).cpu())
    return torch.cat(features), torch.cat(classes)


def accuracy(classifier: Classifier, cells: Tensor, labels: Tensor) -> float:
    """Share of categories (N, H, W) that are classified as their label (N,)."""
    return float((judge(classifier, cells)[1] == labels).double().mean())
