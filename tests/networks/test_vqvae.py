"""The VQ-VAE: gradients through the quantiser, the codebook's upkeep, shapes at any size, the GAN's parts."""

import pytest
import torch
import torch.nn.functional as F

from dd import checkpoints
from dd.networks.discriminator import MOST, PatchDiscriminator, adaptive_weight, discriminator_loss, generator_loss
from dd.networks.vqvae import CausalContext, Quantiser, VqVae, rotate

SMALL = {"K": 12, "colours": 3, "d": 4, "channels": (8, 8), "encoder": (1, 1), "decoder": (1, 1)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=generator(seed), dtype=torch.float64), dim=1)


def small(seed: int = 0, **changes) -> VqVae:
    torch.manual_seed(seed)
    network = VqVae(**SMALL | changes)
    for module in network.modules():  # as if trained: no layer is still zero
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=0.2)
    return network.eval()


# -- the quantiser ---------------------------------------------------------------------------------------------------


def test_rotation_trick_has_the_value_of_the_code_and_the_gradient_of_a_rotation():
    z, e = unit(7, 5, 1).requires_grad_(), unit(7, 5, 2)
    out = rotate(z, e)
    torch.testing.assert_close(out, e)
    for i in range(7):
        R = torch.stack([torch.autograd.grad(out[i, j], z, retain_graph=True)[0][i] for j in range(5)])
        torch.testing.assert_close(R @ R.T, torch.eye(5, dtype=torch.float64))  # a rotation
        torch.testing.assert_close(R @ z[i].detach(), e[i])  # that takes z to e
        assert torch.linalg.det(R) > 0


def test_gradient_passes_straight_through_where_latent_and_code_agree():
    z = unit(4, 3).requires_grad_()
    g = unit(4, 3, 9)
    (passed,) = torch.autograd.grad(rotate(z, z.detach()), z, g)
    torch.testing.assert_close(passed, g)


def test_gradient_reaches_every_layer_of_the_encoder():
    network = small()
    network(torch.rand(2, 3, 16, 16, generator=generator())).x_hat.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_nearest_code_is_the_nearest_in_distance():
    quantiser = Quantiser(50, 6)
    z = unit(300, 6).float()
    torch.testing.assert_close(quantiser(z), torch.cdist(z, quantiser.codebook).argmin(1))


def test_autocast_does_not_blur_the_choice_of_codes():
    quantiser, z = Quantiser(4096, 8), unit(2000, 8).float()
    exact = quantiser(z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantiser(z), exact)


def test_codebook_finds_the_clusters():
    centres = unit(5, 3, 3).float()
    quantiser, g = Quantiser(5, 3), generator(1)
    quantiser.codebook.copy_(F.normalize(centres + 0.3 * torch.randn(5, 3, generator=g), dim=1))
    quantiser.counts.fill_(50.0)
    assert torch.cdist(centres, quantiser.codebook).min(1).values.max() > 0.2
    for _ in range(300):
        z = centres[torch.randint(5, (256,), generator=g)] + 0.02 * torch.randn(256, 3, generator=g)
        z = F.normalize(z, dim=1)
        quantiser.update(z, quantiser(z), decay=0.9, revive=0.2, generator=g)
    distance = torch.cdist(centres, quantiser.codebook).min(1).values
    assert distance.max() < 0.02
    torch.testing.assert_close(quantiser.codebook.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("revive", [0.0, 0.1])
def test_dead_codes_are_revived_and_only_if_asked(revive):
    quantiser, g = Quantiser(64, 4), generator(2)
    quantiser.codebook.copy_(F.normalize(torch.tensor([1.0, 0, 0, 0]) + 0.01 * torch.randn(64, 4, generator=g), dim=1))
    quantiser.counts.fill_(8.0)
    revived = 0
    for _ in range(120):
        z = F.normalize(torch.randn(512, 4, generator=g), dim=1)
        revived += quantiser.update(z, quantiser(z), decay=0.95, revive=revive, generator=g)
    z = F.normalize(torch.randn(20000, 4, generator=g), dim=1)
    used = len(quantiser(z).unique())
    assert (revived > 0) == (revive > 0)
    assert (used > 60) == (revive > 0)


def test_first_batch_becomes_the_codebook():
    quantiser, z = Quantiser(16, 4), unit(100, 4).float()
    assert quantiser.update(z, quantiser(z), 0.99, 0.0, generator()) == 16
    assert torch.cdist(quantiser.codebook, z).min(1).values.max() < 0.1


def test_update_is_a_function_of_its_generator():
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        quantiser, z = Quantiser(32, 4), unit(64, 4).float()
        for _ in range(3):
            quantiser.update(z, quantiser(z), 0.5, 0.5, generator(7))
        results.append(quantiser.codebook)
    assert torch.equal(*results)


# -- the whole -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (16, 16), (31, 33), (64, 20)])
@pytest.mark.parametrize("colours", [1, 3])
def test_any_size_comes_back_at_its_size(size, colours):
    network = small(colours=colours)
    x = torch.rand(2, colours, *size, generator=generator())
    x_hat, codes = network.reconstruct(x)
    assert x_hat.shape == x.shape
    assert codes.shape == (2, -(-size[0] // 4), -(-size[1] // 4))
    assert 0 <= x_hat.min() <= x_hat.max() <= 1
    assert codes.max() < network.K


def test_padding_does_not_touch_sizes_that_fit_and_repeats_the_border_of_others():
    network = small()
    x = torch.rand(1, 3, 8, 12, generator=generator())
    assert torch.equal(network.pad(x), x)
    padded = network.pad(x[..., :7, :9])
    assert padded.shape == (1, 3, 8, 12)
    assert torch.equal(padded[..., 7, :9], x[..., 6, :9])
    assert torch.equal(padded[..., :7, 11], x[..., :7, 8])


@pytest.mark.parametrize(("channels", "factor"), [((8,), 2), ((8, 8), 4), ((8, 8, 8), 8)])
def test_factor_and_bits(channels, factor):
    network = small(channels=channels, encoder=(1,) * len(channels), decoder=(1,) * len(channels), K=1024)
    assert network.factor == factor
    assert network.encode(torch.rand(1, 3, 16, 24)).shape == (1, 16 // factor, 24 // factor)
    assert network.bits_per_pixel() == pytest.approx(10 / factor**2)


def test_shifted_image_has_shifted_codes():
    network = small()
    x = torch.rand(1, 3, 96, 96, generator=generator())
    codes, shifted = network.encode(x), network.encode(x.roll((8, 4), (2, 3)))
    inside = slice(8, 16)
    assert torch.equal(codes[:, inside, inside], shifted.roll((-2, -1), (1, 2))[:, inside, inside])
    assert len(codes.unique()) > 3


def test_a_code_changes_its_neighbourhood_only():
    network = small()
    codes = torch.randint(0, network.K, (1, 24, 24), generator=generator())
    changed = codes.clone()
    changed[0, 12, 12] = (codes[0, 12, 12] + 1) % network.K
    with torch.no_grad():
        moved = (network.decode(codes) - network.decode(changed)).abs().amax((0, 1)) > 1e-6
    rows, columns = moved.nonzero().T
    assert moved[48:52, 48:52].any()
    assert min(rows.min(), columns.min()) >= 48 - 32
    assert max(rows.max(), columns.max()) < 52 + 32


def test_forward_agrees_with_encode_and_decode():
    network = small()
    x = torch.rand(2, 3, 16, 16, generator=generator())
    with torch.no_grad():
        coded = network(x)
        assert torch.equal(coded.codes, network.encode(x))
        torch.testing.assert_close(coded.x_hat, network.decode(coded.codes), atol=1e-5, rtol=1e-5)
        corner = F.one_hot(coded.codes, network.K).movedim(-1, 1).float()
        torch.testing.assert_close(network.decode_mixture(corner), network.decode(coded.codes))


def test_causal_context_sees_only_what_comes_before():
    torch.manual_seed(0)
    context = CausalContext(5, 3, width=8)
    e = torch.randn(1, 3, 7, 6, generator=generator(), requires_grad=True)
    log_p = context(e)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(1, 7, 6))
    (g,) = torch.autograd.grad(log_p[0, 2, 4, 3], e)
    seen = (g[0].abs().sum(0) > 0).flatten()
    here = 4 * 6 + 3
    assert not seen[here:].any()
    assert seen[here - 1]
    assert seen[here - 6]


def test_checkpoint_round_trip(tmp_path):
    network = small()
    config = {"architecture": "vqvae", "network": {k: list(v) if isinstance(v, tuple) else v for k, v in SMALL.items()}}
    checkpoints.save(tmp_path / "vq", network.state_dict(), config, dtype=torch.float32)
    loaded = checkpoints.load(tmp_path / "vq").network
    x = torch.rand(1, 3, 16, 16, generator=generator())
    assert torch.equal(loaded.reconstruct(x)[0], network.reconstruct(x)[0])


# -- the GAN's parts -------------------------------------------------------------------------------------------------


def test_discriminator_scores_patches_and_learns_to_tell():
    torch.manual_seed(0)
    critic, g = PatchDiscriminator(1, width=8), generator(3)
    optimiser = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(40):
        sharp = (torch.rand(8, 1, 16, 16, generator=g) > 0.5).float()
        smooth = F.avg_pool2d(sharp, 3, 1, 1)
        loss = discriminator_loss(critic(sharp), critic(smooth))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert critic(sharp).shape == (8, 1, 4, 4)
    assert loss.item() < 0.3
    assert generator_loss(critic(smooth)).item() > generator_loss(critic(sharp)).item() + 1


def test_hinge_losses_in_closed_form():
    real, rebuilt = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert float(discriminator_loss(real, rebuilt)) == pytest.approx((0.25 + 0.5) / 2)
    assert float(generator_loss(rebuilt)) == pytest.approx(1.5)


def test_adaptive_weight_equalises_gradients_up_to_its_cap():
    g_rec, g_gan = torch.full((3, 3), 0.2), torch.full((3, 3), 0.05)
    assert float(adaptive_weight(g_rec, g_gan)) == pytest.approx(4.0, rel=1e-4)
    assert float(adaptive_weight(1e3 * g_rec, torch.zeros(3, 3))) == MOST
