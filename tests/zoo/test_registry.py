"""Names: what is registered, how it is found, what is known about it."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import subprocess
import sys

import pytest
import timm
import torch
from timm.models import _registry as timm_registry

import zoo
from zoo import registry

# parameters at the entry's own number of classes, except where another is given; papers or authors' code
PARAMETERS = {
    ("ms_resnet18", 1000): 11_693_736,
    ("ms_resnet34", 1000): 21_801_896,
    ("ms_resnet104", 1000): 77_350_504,
    ("qcfs_resnet18", 10): 11_173_979,
    ("qcfs_resnet18", 100): 11_220_149,
    ("qcfs_resnet20", 10): 272_493,
    ("qcfs_resnet20", 100): 278_343,
    ("qcfs_resnet34", 1000): 21_790_025,
    ("qcfs_vgg16", 10): 33_646_681,
    ("qcfs_vgg16", 100): 34_015_411,
    ("sew_resnet18", 1000): 11_689_512,
    ("sew_resnet34", 1000): 21_797_672,
    ("sew_resnet50", 1000): 25_557_032,
    ("sew_resnet101", 1000): 44_549_160,
    ("sew_resnet152", 1000): 60_192_808,
    ("spiking_resnet18", 100): 11_220_132,
    ("spiking_resnet19", 100): 12_653_988,
    ("spiking_resnet34", 100): 21_335_972,
    ("spiking_vgg13", 100): 28_703_140,
    ("spiking_vgg16", 10): 33_646_681 - 15,  # the ANN's count includes one threshold for each of 15 sites
    ("spiking_vgg16", 100): 34_015_411 - 15,
    ("spiking_vgg11", 10): 28_149_514,  # our own count: no published number for this head
    ("spiking_cnn_nano", 10): 117_882,
    # the count without neurons, and five numbers each: a leak and a matrix [2, 2]
    ("lmht_ms_resnet18", 100): 11_220_132 + 16 * 5,
    ("lmht_ms_resnet34", 100): 21_335_972 + 32 * 5,
    ("lmht_resnet18", 100): 11_220_132 + 17 * 5,
    ("lmht_resnet19", 100): 12_653_988 + 18 * 5,
    ("lmht_resnet20", 100): 278_324 + 19 * 5,
    ("lmht_resnet34", 100): 21_335_972 + 33 * 5,
    ("lmht_spikformer_4_384_cifar", 10): 9_324_730 + 33 * 5,
    ("lmht_spikformer_2_256_cifar10dvs", 10): 2_566_666 + 19 * 101,  # T = 10
    ("lmht_vgg13", 100): 28_703_140 + 12 * 5,
    ("lmht_vgg16", 100): 34_015_411 - 15 + 15 * 5,
    ("lmht_vgg_nano", 10): 503_882 + 6 * 5,  # the ReLU network of configs/ann/cifar10_jpeg_vgg.yaml
    ("ms_resnet_nano", 10): 559_874,  # our own count
    # torchvision's networks, whose neurons have no parameters
    ("jelly_vgg11", 1000): 132_863_336,
    ("jelly_vgg11_bn", 1000): 132_868_840,
    ("jelly_vgg13", 1000): 133_047_848,
    ("jelly_vgg13_bn", 1000): 133_053_736,
    ("jelly_vgg16", 1000): 138_357_544,
    ("jelly_vgg16_bn", 1000): 138_365_992,
    ("jelly_vgg19", 1000): 143_667_240,
    ("jelly_vgg19_bn", 1000): 143_678_248,
    # our own counts: the paper rounds to 0.2 and 1.2 million
    ("delay_snn_nano", 10): 18_058,
    ("delay_snn_shd", 20): 208_916,
    ("delay_snn_ssc", 35): 1_212_963,
}

# number of entries of the state dict and a hash of names and shapes: files people keep depend on them
LAYOUT = {
    "delay_snn_nano": (16, "4f75b22c074d"),
    "delay_snn_shd": (16, "55e387ebd628"),
    "delay_snn_ssc": (23, "4c06540ebb3c"),
    "jelly_vgg11": (22, "c9463d97f3af"),
    "jelly_vgg11_bn": (62, "5f15c89f90e8"),
    "jelly_vgg13": (26, "108ab1772d85"),
    "jelly_vgg13_bn": (76, "994f53a41a56"),
    "jelly_vgg16": (32, "7a5c00406f09"),
    "jelly_vgg16_bn": (97, "725527058ce3"),
    "jelly_vgg19": (38, "899dd3a2ee4b"),
    "jelly_vgg19_bn": (118, "44399d3e8886"),
    "lmht_ms_resnet18": (202, "88a7b23955fb"),
    "lmht_ms_resnet34": (378, "ecf7893f4240"),
    "lmht_resnet18": (207, "b5233c49961f"),
    "lmht_resnet19": (214, "3bcc53211351"),
    "lmht_resnet20": (223, "960cad7daeed"),
    "lmht_resnet34": (383, "85cb5dbf1a75"),
    "lmht_spikformer_2_256_cifar10dvs": (205, "b98b8408d09d"),
    "lmht_spikformer_4_384_cifar": (365, "2ae88015a712"),
    "lmht_vgg13": (136, "00457dbb70a2"),
    "lmht_vgg16": (172, "0ee20a29e9ee"),
    "lmht_vgg_nano": (74, "d1ed4c2e9cb8"),
    "ms_resnet104": (649, "fc00279b4459"),
    "ms_resnet18": (128, "4f4887213d3c"),
    "ms_resnet34": (224, "0acc7ac357e7"),
    "ms_resnet_nano": (74, "eda20e2718bf"),
    "qcfs_resnet18": (139, "d06f0c2c2227"),
    "qcfs_resnet20": (147, "6f86d1d1fbcb"),
    "qcfs_resnet34": (251, "0d2e104541ec"),
    "qcfs_vgg16": (112, "a557c721f71e"),
    "sew_resnet101": (626, "eaf47376879f"),
    "sew_resnet152": (932, "24c960001757"),
    "sew_resnet18": (122, "d1be44c497f2"),
    "sew_resnet34": (218, "bf6c8a557b7c"),
    "sew_resnet50": (320, "a99e3ae569a4"),
    "spiking_cnn_nano": (26, "dded1513b4f8"),
    "spiking_resnet18": (122, "d0298d6f310f"),
    "spiking_resnet19": (124, "b8efc4414555"),
    "spiking_resnet34": (218, "8549cc34cf42"),
    "spiking_vgg11": (62, "34e5edd25f2a"),
    "spiking_vgg13": (76, "9765b781024a"),
    "spiking_vgg16": (97, "be6cdbeedc59"),
}


def on_meta(name, **kwargs):
    with torch.device("meta"):
        return zoo.create(name, **kwargs)


@pytest.mark.parametrize(("name", "classes"), PARAMETERS)
def test_parameter_counts(name, classes):
    model = on_meta(name, num_classes=classes)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name, classes]


def test_every_convolutional_entry_is_counted():
    counted = {name for name, _ in PARAMETERS}
    transformers = re.compile("(spiking(res)?|spik|jelly_spik|qk|metaspik)former|sdt|ge2mst")
    assert counted == {n for n in zoo.list_models(task="classification") if not transformers.match(n)}


def layout(model):
    rows = [[k, list(v.shape), str(v.dtype)] for k, v in model.state_dict().items()]
    return len(rows), hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", sorted({n for n, _ in PARAMETERS}))
def test_state_dict_layout(name):
    assert layout(on_meta(name)) == LAYOUT[name]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("spiking_vgg13", ["layer4.6.0.weight", "layer1.0.1.running_var", "classifier.6.0.bias"]),
        ("spiking_resnet18", ["conv1.weight", "layer2.0.downsample.0.0.weight", "layer1.0.conv2.1.bias"]),
        ("spiking_resnet19", ["layer2.0.conv1.0.weight", "fc.0.0.weight", "fc.2.0.bias"]),
        ("sew_resnet50", ["bn1.weight", "layer1.0.conv3.weight", "layer1.0.downsample.1.running_mean"]),
        ("ms_resnet104", ["conv1.2.bias", "layer3.31.bn2.weight", "layer1.0.downsample.0.weight"]),
        ("spiking_cnn_nano", ["stem.0.weight", "levels.1.conv.1.bias", "classifier.weight"]),
    ],
)
def test_keys_of_the_papers_codes(name, keys):
    assert set(keys) <= set(on_meta(name).state_dict())


def test_learnable_neurons_add_their_keys():
    plain = set(on_meta("spiking_vgg13").state_dict())
    added = set(on_meta("spiking_vgg13", neuron="plif").state_dict()) - plain
    assert "layer1.1.w" in added
    assert "classifier.4.w" in added
    assert len(added) == 12  # ten convolutions, two hidden layers


# -- names -----------------------------------------------------------------------------------------


def test_listed():
    names = zoo.list_models()
    assert names == sorted(names)
    assert {"spiking_vgg11", "spiking_vgg16", "spiking_cnn_nano", "spikingresformer_nano"} <= set(names)
    assert zoo.list_models("sew-resnet1*") == ["sew_resnet101", "sew_resnet152", "sew_resnet18"]
    assert zoo.list_models("SPIKINGRESFORMER_?") == [f"spikingresformer_{v}" for v in "lms"]
    assert zoo.list_models("spiking*_nano") == [
        "spiking_cnn_nano",
        "spiking_fpn_nano",
        "spikingresformer_nano",
    ]
    assert zoo.list_models("nothing*") == []
    assert set(zoo.list_models(task="classification")) <= set(names)
    assert zoo.list_models(task="detection") == []


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("spikingresformer-l", "spikingresformer_l"),
        (" SEW-ResNet18 ", "sew_resnet18"),
        ("spiking_VGG11.cifar10-t4", "spiking_vgg11.cifar10_t4"),
    ],
)
def test_normalised(given, name):
    assert zoo.normalize_name(given) == name
    assert zoo.is_registered(given)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("spikingresfomer-l", "did you mean 'spikingresformer_l'"),
        ("sew_resnet35", "did you mean 'sew_resnet"),
        ("spiking_vg11", "did you mean 'spiking_vgg1"),
        ("convnext_base", "timm has it: 'timm/convnext_base'"),
        ("qqqqqq", r"zoo\.list_models\(\) lists all names"),
    ],
)
def test_unknown_names(wrong, hint):
    for ask in (zoo.create, zoo.load, zoo.describe):
        with pytest.raises(zoo.UnknownModelError, match=hint):
            ask(wrong)
    assert not zoo.is_registered(wrong)


def test_no_name_of_timm_is_taken():
    by_module = timm_registry._module_to_models
    theirs = set(itertools.chain(*(n for module, n in by_module.items() if module not in ours_in_timm())))
    assert len(theirs) > 1000
    assert not theirs & set(zoo.list_models())
    with pytest.raises(ValueError, match="timm has a model named 'resnet18'"):

        @zoo.register_model
        def resnet18(**kwargs):
            raise AssertionError

    assert timm.models.model_entrypoint("resnet18").__module__ == "timm.models.resnet"
    assert not zoo.is_registered("resnet18")


BOTH_ORDERS = """
import sys, types, warnings
import torch
from timm.models import create_model, register_model

def authors(name):  # a package that registers a model with timm, as the authors of SpikingResformer do
    module = types.ModuleType(f"authors_of_{name}")
    sys.modules[module.__name__] = module
    code = f"def {name}(pretrained=False, **kwargs): return torch.nn.Linear(1, 7)"
    exec(code, {"torch": torch, "__name__": module.__name__}, vars(module))
    register_model(getattr(module, name))

authors("spikingresformer_ti")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import zoo
    zoo.create("spikingresformer_ti")
told = [str(w.message) for w in caught if "authors_of" in str(w.message)]
assert len(told) == 1 and "'spikingresformer_ti'" in told[0], told
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # timm's own, of a name that is taken
    authors("sew_resnet18")
for name in ("spikingresformer_ti", "sew_resnet18"):
    assert isinstance(create_model(name), torch.nn.Linear), name
    assert isinstance(zoo.create(name), zoo.SpikingModel), name
assert isinstance(create_model("sew_resnet34"), zoo.SpikingModel)
"""


def test_what_another_package_registered_with_timm_stays(monkeypatch):
    def authors_net():
        raise AssertionError

    monkeypatch.setitem(timm_registry._model_entrypoints, "authors_net", authors_net)
    entry = dataclasses.replace(registry.get_entry("sew_resnet18"), name="authors_net")
    with pytest.warns(UserWarning, match=r"test_registry registered 'authors_net' with timm before"):
        zoo.factory.register_with_timm(entry)
    assert timm.models.model_entrypoint("authors_net") is authors_net


@pytest.mark.slow
def test_other_packages_may_register_our_names_before_and_after():
    done = subprocess.run([sys.executable, "-c", BOTH_ORDERS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def ours_in_timm():
    return {
        timm.models.model_entrypoint(n).__module__.split(".")[-1]
        for n in zoo.list_models(task="classification")
    }


def test_registering_a_taken_or_odd_name_is_refused():
    def sew_resnet18(**kwargs):
        raise AssertionError

    before = registry._ENTRIES["sew_resnet18"]
    with pytest.raises(ValueError, match=r"taken by zoo\.models\.sew_resnet"):
        zoo.register_model(sew_resnet18)
    assert registry._ENTRIES["sew_resnet18"] is before
    sew_resnet18.__name__ = "SEW-ResNet18"
    with pytest.raises(ValueError, match="snake_case such as 'sew_resnet18'"):
        zoo.register_model(sew_resnet18)


def test_described():
    about = zoo.describe("sew-resnet50")
    assert (about.parameters, about.time_steps, about.num_classes) == (25_557_032, 4, 1000)
    assert about.input_size == (3, 224, 224)
    assert about.paper == "2102.04159"
    card = str(about)
    assert "25,557,032" in card
    assert "arXiv 2102.04159" in card
    assert "weights" in card


@pytest.mark.parametrize("name", zoo.list_models(task="classification"))
def test_every_entry_is_described(name):
    about = zoo.describe(name)
    assert about.parameters > 0
    model = on_meta(name)
    assert model.architecture == name
    assert model.time_steps == about.time_steps
    assert model.default_cfg["num_classes"] == model.num_classes == about.num_classes
    assert model.default_cfg["input_size"] == about.input_size
    assert model.get_submodule(model.default_cfg["classifier"]) is model.get_classifier()
    first = model.get_submodule(model.default_cfg["first_conv"])
    assert first.weight.shape[1] == about.input_size[0]
    assert len(model.default_cfg["mean"]) == len(model.default_cfg["std"]) == about.input_size[0]
    assert registry.get_entry(name).fn.__doc__


# -- timm ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the firing rates")
@pytest.mark.parametrize("name", ["spiking_cnn_nano", "spiking_resnet18", "spikingresformer_nano"])
def test_through_timm(name):
    model = timm.create_model(name, num_classes=3, in_chans=2, time_steps=1)
    assert model.architecture == name
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 2, 32, 32)).shape == (1, 3)
    assert model.pretrained_cfg["input_size"][0] == 2
    assert timm.is_model(name)
    with pytest.raises(ValueError, match="forward_intermediates"):
        timm.create_model(name, features_only=True)


def test_every_entry_is_in_timm():
    assert timm.is_model("converted")  # which is not listed: it means nothing without arguments
    ours = zoo.list_models(task="classification")
    assert [timm.models.model_entrypoint(name).__name__ for name in ours] == ours
    assert not any(timm.is_model(name) for name in set(zoo.list_models()) - set(ours))


def test_timm_optimizer_leaves_neuron_parameters_alone():
    model = zoo.create("spiking_cnn_nano", neuron="psn")
    from timm.optim import create_optimizer_v2

    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.1)
    decayed = [p for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]]
    names = {k for k, p in model.named_parameters() if any(p is q for q in decayed)}
    assert names == {
        k for k, p in model.named_parameters() if p.dim() > 1 and k not in model.no_weight_decay()
    }
    assert "levels.0.weight" in model.no_weight_decay()


# -- load without weights --------------------------------------------------------------------------


def test_load_says_that_weights_are_random():
    with pytest.warns(UserWarning, match="has no trained weights, so this model has random ones"):
        model = zoo.load("spiking_resnet18")
    assert not model.training
    with pytest.raises(FileNotFoundError, match="has no weights; looked for"):
        zoo.load("spiking_resnet18", pretrained=True)
    with pytest.raises(FileNotFoundError, match="has no weights"):
        timm.create_model("spiking_resnet18", pretrained=True)
    with pytest.raises(FileNotFoundError, match=r"no weights 'spiking_resnet18\.imagenet'"):
        zoo.load("spiking_resnet18.imagenet")
    with pytest.raises(ValueError, match="contradicts itself"):
        zoo.load("spiking_resnet18", pretrained=False, weights="x.pth")
    with pytest.raises(ValueError, match=r"use zoo\.load"):
        zoo.create("spiking_resnet18.cifar10")


@pytest.mark.filterwarnings("error")
def test_random_weights_on_request_are_silent():
    assert not zoo.load("spiking_cnn_nano", pretrained=False).training
    assert zoo.create("spiking_cnn_nano").training
