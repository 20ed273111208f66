"""The U-Nets: what they see, what they may not see, and how they begin."""

import pytest
import torch

from dd.networks.unet import F_CAP, EvidenceUNet, NoiseUNet

K, CLASSES = 5, 3


def at_random(network: torch.nn.Module) -> torch.nn.Module:
    """With weights that matter everywhere: as built, the last layer of every branch is zero."""
    torch.manual_seed(0)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return network.eval()


@pytest.fixture
def network() -> EvidenceUNet:
    return at_random(EvidenceUNet(K, (8, 16, 16), (1, 1, 1), CLASSES))


@pytest.fixture
def evidence(generator) -> torch.Tensor:
    return 3 * torch.randn(2, K, 8, 12, generator=generator)


def test_it_begins_by_saying_nothing(evidence):
    assert float(EvidenceUNet(K, (8, 16), (1, 1))(evidence).detach().abs().max()) == 0


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (28, 28), (32, 16)])
def test_every_grid_that_can_be_halved_gets_an_answer_of_its_size(network, generator, size):
    f = network(torch.randn(1, K, *size, generator=generator))
    assert (f.shape, f.dtype) == ((1, K, *size), torch.float32)
    assert float(f.abs().max()) < F_CAP
    assert float(f.std()) > 0


def test_it_sees_the_normalised_evidence_alone(network, evidence):
    """What a cell has in all of its categories alike says nothing; and what is ruled out may be minus infinity."""
    moved = evidence + torch.randn(2, 1, 8, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(moved), network(evidence), rtol=1e-3, atol=1e-3)
    ruled_out = evidence.clone()
    ruled_out[:, 1:, :4] = -torch.inf
    assert bool(network(ruled_out).isfinite().all())


def test_no_label_is_the_label_any_and_classes_differ(network, evidence):
    """Which every other label changes."""
    anyone = network(evidence)
    torch.testing.assert_close(network(evidence, torch.full((2,), CLASSES)), anyone)
    for label in range(CLASSES):
        assert not torch.allclose(network(evidence, torch.full((2,), label)), anyone, atol=1e-3)


def test_images_of_a_batch_do_not_see_each_other(network, evidence):
    label = torch.tensor([0, 2])
    alone = torch.cat([network(evidence[i : i + 1], label[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(network(evidence, label), alone, rtol=1e-4, atol=1e-4)


def test_every_cell_hears_of_every_other(network, evidence):
    """Through the attention in the middle."""
    elsewhere = evidence.clone()
    elsewhere[0, :, -1, -1] = torch.tensor([9.0, 0, 0, 0, 0])
    change = (network(elsewhere) - network(evidence)).abs().amax(1)
    assert float(change[0].min()) > 0
    assert float(change[1].max()) == 0


def test_the_noise_network_is_told_the_time(generator):
    network = at_random(NoiseUNet((8, 16), (1, 1)))
    x = torch.randn(2, 1, 8, 8, generator=generator)
    early, late = (network(torch.cat([x, torch.full_like(x, v)], 1)) for v in (-4.0, 4.0))
    assert early.shape == x.shape
    assert not torch.allclose(early, late, atol=1e-3)
