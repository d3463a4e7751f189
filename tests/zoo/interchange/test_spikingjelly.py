"""State dicts of SpikingJelly: recognised by their names, and the same outputs as there."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from zoo.recognize import fit
from zoo.registry import get_entry

KEYS = json.loads(Path(__file__).with_name("spikingjelly_keys.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("sew_resnet18", "sew_resnet18"),
        ("sew_resnet18, ParametricLIFNode", "sew_resnet18"),
        ("spiking_vgg11", "jelly_vgg11"),
        ("spiking_vgg16_bn", "jelly_vgg16_bn"),
        ("spikformer_cifar10", "jelly_spikformer_cifar"),
        ("spikformer_ti", "jelly_spikformer_ti"),
    ],
)
def test_names_and_shapes_of_the_library_fit(kind, entry):
    """Names and shapes were listed by SpikingJelly 2.0.0; no weights are needed to compare them."""
    state = {name: torch.empty(shape, device="meta") for name, shape in KEYS[kind].items()}
    found = fit(state, get_entry(entry))
    assert not found.faults, str(found)
    assert found.arguments.get("neuron") == ("plif" if "Parametric" in kind else None)
    for other in ("spikformer_4_384_cifar", "spiking_vgg16", "ms_resnet18", "spiking_resnet18"):
        assert fit(state, get_entry(other)).faults, f"{other} would be taken for it"


def lively(model):
    """Norms under which neurons fire; evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            with torch.no_grad():
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) * 0.01 + 0.001)
                module.bias.copy_(torch.rand(module.num_features, generator=generator))
    return model.eval()


def sew(jelly, neuron):
    model = jelly.model.sew_resnet
    return model.SEWResNet(model.BasicBlock, [1, 1, 1, 1], num_classes=5, cnf="ADD", spiking_neuron=neuron)


def vgg(jelly, neuron, norm):
    """Its layers and its forward pass, but a classifier of 32 where its own holds 120 M parameters."""
    layer, cls = jelly.layer, jelly.model.spiking_vgg.SpikingVGG
    net = cls.__new__(cls)
    nn.Module.__init__(net)
    net.features = cls.make_layers([8, "M", 16, "M"], batch_norm=norm, neuron=neuron)
    net.avgpool = layer.AdaptiveAvgPool2d((7, 7))
    hidden = [
        layer.Linear(16 * 49, 32),
        neuron(),
        layer.Dropout(),
        layer.Linear(32, 32),
        neuron(),
        layer.Dropout(),
    ]
    net.classifier = nn.Sequential(*hidden, layer.Linear(32, 5))
    return net


def spikformer(jelly, **options):
    size = {
        "img_size_h": 16,
        "img_size_w": 16,
        "patch_size": 4,
        "embed_dims": 32,
        "num_heads": 4,
        "depths": 2,
    }
    return jelly.model.spikformer.Spikformer(T=3, num_classes=5, **size, **options)


SMALL_VGG = {"plan": ((8,), (16,)), "hidden": 32, "num_classes": 5}
NETWORKS = {
    "sew": (lambda j: sew(j, j.neuron.IFNode), "sew_resnet18", {"layers": (1, 1, 1, 1), "num_classes": 5}),
    "sew of PLIF": (
        lambda j: sew(j, j.neuron.ParametricLIFNode),
        "sew_resnet18",
        {"layers": (1, 1, 1, 1), "num_classes": 5, "neuron": "plif"},
    ),
    "vgg": (lambda j: vgg(j, j.neuron.IFNode, False), "jelly_vgg11", SMALL_VGG),
    "vgg_bn of LIF": (
        lambda j: vgg(j, j.neuron.LIFNode, True),
        "jelly_vgg11_bn",
        {**SMALL_VGG, "neuron": "lif"},
    ),
    "spikformer": (
        spikformer,
        "jelly_spikformer_cifar",
        {"dim": 32, "num_heads": 4, "depth": 2, "num_classes": 5},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_library(name, tmp_path):
    pytest.importorskip("spikingjelly", reason="the extra 'interop' is not installed")
    pytest.importorskip("loguru", reason="spikingjelly was installed without its dependencies")
    import spikingjelly.activation_based as jelly
    from spikingjelly.activation_based import functional, layer, model, neuron  # noqa: F401
    from spikingjelly.activation_based.model import sew_resnet, spikformer, spiking_vgg  # noqa: F401

    build, entry, arguments = NETWORKS[name]
    torch.manual_seed(0)
    theirs = lively(build(jelly))
    functional.set_step_mode(theirs, "m")
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = zoo.load(entry, weights=tmp_path / "theirs.pth", **arguments)
    x = torch.randn(3, 2, 3, 16, 16)
    with torch.no_grad():
        expected, got = theirs(x), ours(x, steps=True)
    assert expected.std() > 0, "a silent network proves nothing"
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
