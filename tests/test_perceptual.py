"""PSNR and SSIM against slow twins; LPIPS and features with SqueezeNet's weights, and what is said without them."""

from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from torchvision import models

from dd import perceptual
from dd.perceptual import PerceptualError, features, lpips_distance, psnr, ssim, why_unavailable
from tests.tiny import forget_squeezenet

needs_weights = pytest.mark.usefixtures("squeezenet")


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    """Smooth random images in [0, 1]."""
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(x, 5, 1, 2)


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    """An empty hub folder and no network."""

    def refuse(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(perceptual.urllib.request, "urlopen", refuse)
    forget_squeezenet()
    yield tmp_path
    forget_squeezenet()


def test_psnr_in_closed_form():
    x = torch.zeros(2, 3, 4, 4)
    y = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    torch.testing.assert_close(psnr(x, y), torch.tensor([20.0, 40.0]), atol=1e-3, rtol=0)
    assert psnr(x, x).isinf().all()


def slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Window by window, channel by channel: x, y (c, H, W)."""
    u = np.arange(-5, 6)
    window = np.exp(-(u[:, None] ** 2 + u[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for a, b in zip(x, y, strict=True):
        for i in range(a.shape[0] - 10):
            for j in range(a.shape[1] - 10):
                p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                luminance = (2 * mp * mq + 1e-4) / (mp**2 + mq**2 + 1e-4)
                values.append(luminance * (2 * cov + 9e-4) / (vp + vq + 9e-4))
    return float(np.mean(values))


def test_ssim_agrees_with_the_definition():
    x, y = images(2, 3, 16, 19).double(), images(2, 3, 16, 19, seed=1).double()
    expected = [slow_ssim(a.numpy(), b.numpy()) for a, b in zip(x, y, strict=True)]
    torch.testing.assert_close(ssim(x, y), torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(torch.zeros(1, 3, 10, 20), torch.zeros(1, 3, 10, 20))


def test_without_weights_and_network_one_sentence_says_what_to_do(no_weights):
    x = images(1, 3, 32, 32)
    for call in (lambda: lpips_distance(x, x), lambda: features(x)):
        with pytest.raises(PerceptualError, match="LPIPS weights are not available offline") as caught:
            call()
        assert str(no_weights) in str(caught.value)
        assert "TORCH_HOME" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert why_unavailable() is not None
    assert psnr(x, x).isinf().all()
    assert float(ssim(x, x)) == pytest.approx(1.0)


def test_damaged_weights_are_called_damaged(no_weights):
    path = perceptual.weights_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a file")
    for call in (lpips_distance, lambda x, _: features(x)):
        with pytest.raises(PerceptualError, match="damaged"):
            call(images(1, 3, 32, 32), images(1, 3, 32, 32))


class Malicious:
    """A pickle that runs what it likes when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_weight_file_is_never_run(no_weights):
    path = perceptual.weights_path()
    path.parent.mkdir(parents=True)
    torch.save({"features.0.weight": Malicious(no_weights / "run")}, path)
    for call in (lpips_distance, lambda x, _: features(x)):
        with pytest.raises(PerceptualError, match="damaged"):
            call(images(1, 3, 32, 32), images(1, 3, 32, 32))
    assert not (no_weights / "run").exists()
    torch.load(path, weights_only=False)
    assert (no_weights / "run").exists(), "the file is harmless: the test shows nothing"


@needs_weights
def test_lpips_is_the_packages_own_figure():
    x, y = images(3, 3, 64, 64), images(3, 3, 64, 64, seed=1)
    expected = lpips.LPIPS(net="squeeze", verbose=False)(2 * x - 1, 2 * y - 1).flatten().detach()
    torch.testing.assert_close(lpips_distance(x, y), expected)
    assert why_unavailable() is None


@needs_weights
def test_lpips_grows_with_the_damage_and_has_a_gradient():
    x = images(1, 1, 64, 64)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    distances = [float(lpips_distance((x + s * noise).clamp(0, 1), x)) for s in (0.0, 0.02, 0.1, 0.3)]
    assert distances[0] == pytest.approx(0.0, abs=1e-6)
    assert distances == sorted(distances)
    y = (x + 0.1 * noise).requires_grad_()
    (g,) = torch.autograd.grad(lpips_distance(y, x).sum(), y)
    assert float(lpips_distance(y - 1e-2 * g / g.norm(), x)) < float(lpips_distance(y, x))


@needs_weights
def test_first_use_in_inference_mode_does_not_spoil_later_gradients():
    perceptual._lpips.cache_clear()
    x = images(1, 3, 32, 32)
    with torch.inference_mode():
        lpips_distance(x, x)
    y = images(1, 3, 32, 32, seed=1).requires_grad_()
    assert torch.autograd.grad(lpips_distance(y, x).sum(), y)[0].abs().max() > 0


@needs_weights
def test_features_are_one_vector_an_image():
    x = images(3, 1, 64, 64)
    f = features(x)
    assert f.shape == (3, 512)
    torch.testing.assert_close(f[1:2], features(x[1:2]), atol=1e-4, rtol=1e-4)
    assert torch.cdist(f, f)[0, 1] > 0


def test_too_small_for_squeezenet_is_said():
    with pytest.raises(ValueError, match="32 x 32"):
        lpips_distance(torch.zeros(1, 3, 16, 64), torch.zeros(1, 3, 16, 64))


def test_the_weights_are_torchvisions():
    assert models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url.endswith(f"/{perceptual.WEIGHTS}")
