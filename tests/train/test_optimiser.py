import copy

import pytest
import torch

from dd.networks.unet import EvidenceUNet
from train.optimiser import MuonAdamW


def network() -> EvidenceUNet:
    torch.manual_seed(0)
    net = EvidenceUNet(3, (8, 16), (1, 1), classes=2).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def step(net: EvidenceUNet, optimiser: MuonAdamW, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((4, 3, 8, 8), generator=generator)
    loss = (net(x, torch.tensor([0, 1, 2, 0])) - x).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return float(loss.detach())


def test_every_parameter_moves_and_the_loss_falls():
    net = network()
    before = copy.deepcopy(net.state_dict())
    optimiser = MuonAdamW(net, 2e-3, 0.0)
    curve = [step(net, optimiser, 0) for _ in range(20)]
    assert curve[-1] < 0.7 * curve[0]
    assert not [name for name, value in net.state_dict().items() if torch.equal(value, before[name])]


def test_the_step_of_a_kernel_has_equal_singular_values_at_adamws_scale():
    """Newton-Schulz leaves them between 0.5 and 1.3 of one another; root mean square 0.2 of the rate."""
    net = network()
    kernel = net.down[1][1].conv1.weight
    before = kernel.detach().clone()
    step(net, MuonAdamW(net, 1e-3, 0.0), 0)
    moved = (kernel.detach() - before).flatten(1)
    values = torch.linalg.svdvals(moved)
    assert float(values.min() / values.max()) > 0.4
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.2e-3, rel=0.3)


def test_a_stored_state_goes_on_exactly():
    one = network()
    whole = MuonAdamW(one, 1e-3, 0.01)
    for i in range(3):
        step(one, whole, i)
    two = copy.deepcopy(one)
    resumed = MuonAdamW(two, 1e-3, 0.01)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for i in range(3, 6):
        step(one, whole, i)
        step(two, resumed, i)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_network_in_another_order_of_memory_is_refused():
    with pytest.raises(ValueError, match="channels-last"):
        MuonAdamW(EvidenceUNet(3, (8, 16), (1, 1)), 1e-3, 0.0)
