"""The segmentation network: any size, sequences, causal steps, and encoders that fit."""

import pytest
import torch

import zoo

SMALL = {"encoder_args": {"channels": (4, 8, 8)}, "width": 4, "time_steps": 3, "num_classes": 3}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return zoo.create("spiking_fpn_nano", **SMALL).train()


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (5, 3)])
def test_every_pixel_gets_logits(network, size):
    x = torch.rand(2, 1, *size)
    steps = network(x, steps=True)
    assert steps.shape == (3, 2, 3, *size)
    network.eval()
    assert torch.equal(network(x), network(x, steps=True).mean(0))
    assert network(torch.rand(5, 2, 1, *size), steps=True).shape == (5, 2, 3, *size)


def test_gradients_reach_every_weight(network):
    x = 3 * torch.rand(4, 1, 16, 16)
    for _ in range(2):
        network(x).square().mean().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_the_first_step_knows_nothing_of_later_ones(network):
    network.eval()
    x = torch.rand(3, 2, 1, 16, 16)
    with torch.no_grad():
        before = network(x, steps=True)
        x[2] = torch.rand(2, 1, 16, 16)
        after = network(x, steps=True)
    assert torch.equal(before[:2], after[:2])


@pytest.mark.parametrize("encoder", ["qcfs_resnet20", "class:my.Net", "nothing", "spiking_fpn_nano"])
def test_other_encoders_are_refused(encoder):
    with pytest.raises(ValueError, match="encoder must be a spiking classifier"):
        zoo.create("spiking_fpn_nano", encoder=encoder, encoder_args={})


def test_another_encoder_of_the_zoo():
    arguments = {"encoder": "sew_resnet18", "encoder_args": {}, "width": 8, "in_chans": 3, "time_steps": 1}
    with torch.device("meta"):
        network = zoo.create("spiking_fpn_nano", **arguments)
        assert network(torch.rand(1, 3, 64, 64)).shape == (1, 4, 64, 64)


def test_it_comes_back_from_its_folder(network, tmp_path):
    zoo.save(network.eval(), tmp_path / "out")
    again = zoo.load(str(tmp_path / "out"))
    x = torch.rand(1, 1, 16, 16)
    assert torch.equal(again(x), network(x))
    assert zoo.task_of(again).name == "segmentation"
