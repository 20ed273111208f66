"""How alike two pictures are: PSNR, SSIM, LPIPS (SqueezeNet), and SqueezeNet features for a Frechet distance.

Images are (B, 1 or 3, H, W) in [0, 1]. The ImageNet weights of SqueezeNet 1.1 come from torch's hub folder
(TORCH_HOME), or are downloaded there once; without them and without a network `PerceptualError` says what to do, and
PSNR and SSIM go on working.
"""

import pickle
import time
import urllib.request
import warnings
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 32  # pixels a side that SqueezeNet's pooling needs
WEIGHTS = "squeezenet1_1-b8a52dc0.pth"  # the file of torchvision's IMAGENET1K_V1
UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError)


class PerceptualError(RuntimeError):
    """The perceptual network cannot be used; the message says why and what to do."""


def weights_path() -> Path:
    """Where torch's hub keeps the SqueezeNet weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS


def weights_url() -> str:
    """Where torchvision downloads them from."""
    from torchvision.models import SqueezeNet1_1_Weights

    return SqueezeNet1_1_Weights.IMAGENET1K_V1.url


def _ensure_weights() -> None:
    """Leave the weights in the hub folder, or say how to get them there."""
    path = weights_path()
    if path.is_file():
        return
    url = weights_url()
    hint = f"put {path.name} (from {url}) into {_shown(path.parent)}, or set TORCH_HOME to a folder that has it"
    try:
        urllib.request.urlopen(
            urllib.request.Request(url, method="HEAD"), timeout=5
        ).close()  # or a download might hang
        torch.hub.load_state_dict_from_url(url, progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, no space, wrong hash
        raise PerceptualError(f"LPIPS weights are not available offline: {hint}") from error


def why_unavailable() -> str | None:
    """None where LPIPS works, else the sentence that says what to do; asked of the network once in five minutes."""
    return _why_unavailable(str(weights_path()), int(time.monotonic() / 300))


@lru_cache(maxsize=4)
def _why_unavailable(path: str, period: int) -> str | None:
    try:
        _lpips()
    except PerceptualError as error:
        return str(error)
    return None


@lru_cache(maxsize=1)
def _lpips() -> nn.Module:
    import lpips  # with torchvision it takes seconds to import, which the app's first page need not wait for

    _ensure_weights()
    try:
        with warnings.catch_warnings(), torch.inference_mode(False):  # to be usable with gradients, whoever asks first
            warnings.simplefilter("ignore")  # lpips calls torchvision by its old `pretrained` argument
            network = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)  # would itself load any pickle
            trunk = _weights()
            own = {name: trunk["features." + name.split(".", 1)[1]] for name in network.net.state_dict()}
            network.net.load_state_dict(own)
            return network.requires_grad_(False).eval()
    except UNREADABLE as error:
        raise PerceptualError(_damaged()) from error


@lru_cache(maxsize=1)
def _squeezenet() -> nn.Module:
    from torchvision.models import squeezenet1_1

    _ensure_weights()
    try:
        with torch.inference_mode(False):
            network = squeezenet1_1(weights=None)
            network.load_state_dict(_weights())
            return network.features.requires_grad_(False).eval()
    except UNREADABLE as error:
        raise PerceptualError(_damaged()) from error


def _weights() -> dict[str, Tensor]:
    """Tensors by name: torchvision and lpips would unpickle whatever else the file holds."""
    return torch.load(weights_path(), map_location="cpu", weights_only=True)


def _shown(path: Path) -> str:
    """The path as visitors may read it, without the name of anybody's home folder."""
    return str(path).replace(str(Path.home()), "~")


def _damaged() -> str:
    return f"{_shown(weights_path())} is damaged; delete it and fetch {weights_url()} again"


def lpips_distance(x: Tensor, y: Tensor) -> Tensor:
    """LPIPS with the SqueezeNet trunk (Zhang et al. 2018), differentiable: (B,). Sides at least 32 pixels."""
    _check(x)
    network = _lpips().to(x.device)
    return network(_colour(x), _colour(y), normalize=True).flatten().float()


def features(x: Tensor) -> Tensor:
    """SqueezeNet's last feature map, averaged over the image: (B, 512)."""
    return feature_map(x).mean((2, 3))


@torch.no_grad()
def feature_map(x: Tensor) -> Tensor:
    """SqueezeNet's last feature map, which knows where in the image something is: (B, 512, H', W')."""
    _check(x)
    mean = x.new_tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = x.new_tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return _squeezenet().to(x.device)((_colour(x) - mean) / deviation).float()


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """-10 log10 mean (x - y)^2, decibels: (B,); infinite for equal images."""
    return -10 * (x - y).square().flatten(1).mean(1).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), 11 x 11 Gaussian window of deviation 1.5, mean over channels: (B,).

    SSIM = (2 mu_x mu_y + c1)(2 s_xy + c2) / ((mu_x^2 + mu_y^2 + c1)(s_xx + s_yy + c2)),  c1 = 0.01^2, c2 = 0.03^2,
    over the windows that lie inside the image; both sides at least 11 pixels.
    """
    if min(x.shape[-2:]) < 11:
        raise ValueError(f"SSIM needs images of at least 11 x 11 pixels, got {x.shape[-1]} x {x.shape[-2]}")
    c1, c2 = 0.01**2, 0.03**2
    mu_x, mu_y = _blur(x), _blur(y)
    s_xx, s_yy, s_xy = _blur(x * x) - mu_x**2, _blur(y * y) - mu_y**2, _blur(x * y) - mu_x * mu_y
    structure = (2 * mu_x * mu_y + c1) * (2 * s_xy + c2)
    return (structure / ((mu_x**2 + mu_y**2 + c1) * (s_xx + s_yy + c2))).flatten(1).mean(1)


def _blur(x: Tensor) -> Tensor:
    """Every channel smoothed by the window, rows then columns."""
    u = torch.arange(-5, 6, dtype=x.dtype, device=x.device)
    g = torch.exp(-(u**2) / (2 * 1.5**2))
    g = (g / g.sum()).expand(x.shape[1], 1, -1)
    rows = F.conv2d(x, g[:, :, :, None], groups=x.shape[1])
    return F.conv2d(rows, g[:, :, None, :], groups=x.shape[1])


def _colour(x: Tensor) -> Tensor:
    return x.expand(-1, 3, -1, -1)


def _check(x: Tensor) -> None:
    if min(x.shape[-2:]) < SMALLEST:
        raise ValueError(
            f"LPIPS needs images of at least {SMALLEST} x {SMALLEST} pixels, got {x.shape[-1]} x {x.shape[-2]}"
        )
