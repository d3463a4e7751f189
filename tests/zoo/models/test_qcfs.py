"""The sources of the QCFS line: sites, initialisation, and the checkpoints of the authors' four codes."""

from __future__ import annotations

import warnings

import pytest
import timm
import torch
from torch import nn

import zoo
from spiking.qcfs import QCFS
from zoo.models import qcfs_resnet, qcfs_vgg

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

# entry, arguments, number of sites, number of entries of the authors' state dict
NETWORKS = [
    ("qcfs_vgg16", {}, 15, 112),
    ("qcfs_vgg16", {"num_classes": 1000, "pool_size": 7}, 15, 112),
    ("qcfs_resnet18", {}, 17, 139),
    ("qcfs_resnet20", {}, 19, 147),
    ("qcfs_resnet34", {}, 33, 251),
]


def on_meta(name, **kwargs):
    with torch.device("meta"):
        return zoo.create(name, **kwargs)


def official_vgg(model, site):
    """Their names in their order: every stage counts convolution, norm, activation, dropout."""
    names = []
    for s, stage in enumerate(model.stages(), 1):
        for j in range(len(stage) - 1):
            names += [f"layer{s}.{4 * j}.weight", f"layer{s}.{4 * j}.bias"]
            names += [f"layer{s}.{4 * j + 1}.{field}" for field in NORM]
            names.append(f"layer{s}.{4 * j + 2}.{site}")
    for layer in (1, 4, 7):
        names += [f"classifier.{layer}.weight", f"classifier.{layer}.bias"]
        names += [f"classifier.{layer + 1}.{site}"] if layer < 7 else []
    return names


def official_resnet(model, site):
    last = "relu.up" if site == "up" else "act.thresh"
    names = ["conv1.0.weight", *(f"conv1.1.{field}" for field in NORM), f"conv1.2.{site}"]
    for s, stage in enumerate(model.stages(), 2):
        for i, block in enumerate(stage):
            at = f"conv{s}_x.{i}"
            inside = f"{at}.residual_function"
            names += [f"{inside}.0.weight", *(f"{inside}.1.{field}" for field in NORM), f"{inside}.2.{site}"]
            names += [f"{inside}.3.weight", *(f"{inside}.4.{field}" for field in NORM)]
            if block.downsample is not None:
                names += [f"{at}.shortcut.0.weight", *(f"{at}.shortcut.1.{field}" for field in NORM)]
            names.append(f"{at}.{last}")
    return [*names, "fc.weight", "fc.bias"]


def official_names(model, site):
    return (official_vgg if isinstance(model, qcfs_vgg.QCFSVGG) else official_resnet)(model, site)


def official_state(model, site="up"):
    """A state dict as their codes write it: our modules run in their order, so values go by position."""
    own = model.state_dict()
    names = official_names(model, site)
    assert len(names) == len(own)
    return dict(zip(names, own.values(), strict=True))


def filter_of(model):
    return (qcfs_vgg if isinstance(model, qcfs_vgg.QCFSVGG) else qcfs_resnet).checkpoint_filter_fn


# -- architecture ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kwargs", "sites", "entries"), NETWORKS)
def test_sites_and_entries(name, kwargs, sites, entries):
    model = on_meta(name, **kwargs)
    assert sum(isinstance(m, QCFS) for m in model.modules()) == sites
    assert len(model.state_dict()) == entries
    relu = on_meta(name, activation="relu", **kwargs)
    assert sum(isinstance(m, nn.ReLU) for m in relu.modules()) == sites
    assert set(model.state_dict()) - set(relu.state_dict()) == {
        k for k in model.state_dict() if k.endswith(".v_threshold")
    }
    assert not any(isinstance(m, nn.MaxPool2d | nn.Dropout) for m in model.modules())


def test_parameters_at_imagenet_size():
    model = on_meta("qcfs_vgg16", num_classes=1000, pool_size=7)
    assert sum(p.numel() for p in model.parameters()) == 138_366_007
    assert model.default_cfg["input_size"] == (3, 224, 224)


def test_initialisation():
    torch.manual_seed(0)
    vgg = zoo.create("qcfs_vgg16", hidden=256)
    conv = vgg.layer3[0].conv
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)
    assert conv.bias.abs().max() > 0  # PyTorch's default
    assert not vgg.mlp[0].bias.any()
    assert not vgg.classifier.bias.any()
    assert vgg.classifier.weight.abs().max() <= 256**-0.5
    resnet = zoo.create("qcfs_resnet20")
    weight = resnet.layer2[1].conv1.weight
    assert weight.abs().max() <= (9 * 32) ** -0.5
    assert {m.v_threshold.item() for m in resnet.modules() if isinstance(m, QCFS)} == {8.0}


@pytest.mark.parametrize(("name", "side"), [("qcfs_vgg16", 32), ("qcfs_resnet18", 32)])
def test_without_pooling_at_the_papers_size(name, side, tiny, images, monkeypatch):
    """At 32 pixels five stages leave one pixel; the pooling to a fixed size then stays out of the graph."""
    model = zoo.create(
        name, **({"plan": ((4,),) * 5, "hidden": 8} if "vgg" in name else {"planes": (4,) * 4})
    )
    if hasattr(model, "pool"):
        monkeypatch.setattr(model, "pool", None)
    assert model.eval()(images(size=side)).shape == (2, 10)


def test_sequences_run_frame_by_frame(tiny, images):
    model = tiny("qcfs_resnet18").eval()
    frames = torch.stack([images(seed=s) for s in range(3)])
    with torch.no_grad():
        steps = model(frames, steps=True)
        assert torch.equal(model(frames), steps.mean(0))
        for frame, logits in zip(frames, steps, strict=True):
            torch.testing.assert_close(model(frame), logits)
        assert torch.equal(model(frames[0], steps=True)[0], model(frames[0]))


@pytest.mark.export
@pytest.mark.parametrize("name", ["qcfs_vgg16", "qcfs_resnet18"])
def test_exported_graph_takes_any_batch(name, tiny, images):
    model = tiny(name).eval()
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(model, (images(),), dynamic_shapes=dynamic, strict=False)
    program = program.run_decompositions({})
    targets = [n.target for n in program.graph.nodes if n.op == "call_function"]
    sites = sum(isinstance(m, QCFS) for m in model.modules())
    assert targets.count(torch.ops.fulgurite.qcfs.default) == sites
    looking_at_values = ("assert", "aten.item", "local_scalar_dense")
    assert not [t for t in targets if any(word in str(t) for word in looking_at_values)]
    with torch.no_grad():
        for batch in (1, 7):
            x = images(batch=batch)
            torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


# -- checkpoints -----------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["up", "thresh"])
@pytest.mark.parametrize(("name", "kwargs", "sites", "entries"), NETWORKS)
def test_official_names_fit_strictly(name, kwargs, sites, entries, site):
    model = on_meta(name, levels=8, **kwargs)
    own = model.state_dict()
    # ones of no size: shapes without the memory of a VGG
    theirs = {
        k: torch.ones((), dtype=v.dtype).expand(v.shape) for k, v in official_state(model, site).items()
    }
    assert len(theirs) == entries
    ours = filter_of(model)(theirs, model)
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in own.items()}
    assert filter_of(model)(ours, model) == ours  # our own names stay as they are


WRAPPINGS = {
    "bare": lambda state: state,
    "module": lambda state: {f"module.{k}": v for k, v in state.items()},
    "parallel": lambda state: {
        "model": state,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "scheduler": {"last_epoch": 299},
        "epoch": 299,
        "max_acc1": 95.5,
    },
}
SMALL = {
    "qcfs_vgg16": {"plan": ((4,), (4, 6)), "hidden": 8, "num_classes": 5},
    "qcfs_resnet20": {"layers": (1, 2), "planes": (4, 6), "num_classes": 5},
}


@pytest.fixture(params=sorted(SMALL))
def name(request):
    return request.param


@pytest.fixture
def trained(name):
    """A small network with values of its own in every entry."""
    torch.manual_seed(0)
    model = zoo.create(name, **SMALL[name])
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.rand_like(value, dtype=torch.float) + 0.5)
    return model.eval()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("site", ["up", "thresh"])
def test_old_and_new_names_give_the_same_network(name, trained, images, tmp_path, site, wrapping):
    torch.save(WRAPPINGS[wrapping](official_state(trained, site)), tmp_path / "their.pth")
    levels = trained.levels
    model = zoo.load(name, weights=tmp_path / "their.pth", levels=levels, **SMALL[name])
    with torch.no_grad():
        assert torch.equal(model(images()), trained(images()))


def test_without_biases(images, tmp_path):
    small = {**SMALL["qcfs_vgg16"], "bias": False, "levels": 4}
    trained = zoo.create("qcfs_vgg16", **small).eval()
    full = zoo.create("qcfs_vgg16", **SMALL["qcfs_vgg16"])
    names = [k for k in official_names(full, "up") if not _is_bias(k)]
    state = dict(zip(names, trained.state_dict().values(), strict=True))
    torch.save(state, tmp_path / "c.pth")
    model = zoo.load("qcfs_vgg16", weights=tmp_path / "c.pth", **small)
    with torch.no_grad():
        assert torch.equal(model(images()), trained(images()))


def _is_bias(key):
    stage, index, field = key.rsplit(".", 2)
    return field == "bias" and (stage == "classifier" or int(index) % 4 == 0)


def test_l_is_in_no_checkpoint(name, trained, tmp_path):
    torch.save(official_state(trained), tmp_path / "c.pth")
    with pytest.warns(UserWarning, match=f"how many levels L .*levels={trained.levels}, the default"):
        zoo.load(name, weights=tmp_path / "c.pth", **SMALL[name])
    relu = {**SMALL[name], "activation": "relu"}
    state = {k: v for k, v in official_state(trained).items() if not k.endswith(".up")}
    torch.save(state, tmp_path / "relu.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zoo.load(name, weights=tmp_path / "relu.pth", **relu)
        folder = zoo.save(trained, tmp_path / "ours")  # a folder of ours does know L
        assert zoo.load(f"local-dir:{folder}").levels == trained.levels


def test_calibration_is_left_out(name, trained, images, tmp_path):
    state = official_state(trained)
    for key in [k for k in state if k.endswith(".up")]:
        for buffer in ("rec_in_mean", "rec_th_mean"):
            state[key.removesuffix("up") + buffer] = torch.zeros(4, 1, 1)
    torch.save({"model": state, "epoch": 1}, tmp_path / "c.pth")
    with pytest.warns(UserWarning, match=r"left out what Parallel Conversion's calibration stored"):
        model = zoo.load(name, weights=tmp_path / "c.pth", levels=trained.levels, **SMALL[name])
    with torch.no_grad():
        assert torch.equal(model(images()), trained(images()))


def test_a_network_with_relu_starts_from_one_with_qcfs(name, trained, tmp_path):
    state = official_state(trained)
    torch.save(state, tmp_path / "c.pth")
    number = sum(key.endswith(".up") for key in state)
    with pytest.warns(UserWarning, match=f"left out {number} thresholds of QCFS.*until it is trained"):
        model = zoo.load(name, weights=tmp_path / "c.pth", **{**SMALL[name], "activation": "relu"})
    own = trained.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("value", [0.0, -0.25, float("nan")])
def test_thresholds_that_are_not_positive_are_refused(name, trained, tmp_path, value):
    state = official_state(trained)
    key = [k for k in state if k.endswith(".up")][1]
    state[key] = torch.tensor([value])
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(zoo.CheckpointError, match=rf"the threshold {key} is {value:g}, but"):
        zoo.load(name, weights=tmp_path / "c.pth", levels=4, **SMALL[name])


def test_converted_networks_are_refused(name, trained, tmp_path):
    state = official_state(trained)
    key = next(k for k in state if k.endswith(".up"))
    del state[key]
    state[key.removesuffix("up") + "TxT"] = torch.zeros(4, 1)
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(zoo.CheckpointError, match="weights of a converted network"):
        zoo.load(name, weights=tmp_path / "c.pth", levels=4, **SMALL[name])


def test_other_networks_are_refused(name, trained, tmp_path):
    state = official_state(trained)
    state["conv9_x.0.stranger"] = torch.zeros(1)
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(zoo.CheckpointError, match=r"1 unexpected: layer8\.0\.stranger|1 unexpected: conv9_x"):
        zoo.load(name, weights=tmp_path / "c.pth", levels=4, **SMALL[name])


# -- the ReLU sources of Parallel Conversion are timm's --------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_timm_has_torchvisions_names(name):
    """The names that the codes load torchvision's weights by; the stem keeps its 7x7 kernel and max-pool."""
    with torch.device("meta"):
        model = timm.create_model(name)
    layers = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}.get(
        name, (3, 4, 6, 3)
    )
    bottleneck = name in ("resnet50", "resnet101")
    names = ["conv1.weight", *(f"bn1.{field}" for field in NORM)]
    for s, depth in enumerate(layers, 1):
        for i in range(depth):
            for n in range(1, 4 if bottleneck else 3):
                names.append(f"layer{s}.{i}.conv{n}.weight")
                names += [f"layer{s}.{i}.bn{n}.{field}" for field in NORM]
            if i == 0 and (s > 1 or bottleneck):
                names.append(f"layer{s}.{i}.downsample.0.weight")
                names += [f"layer{s}.{i}.downsample.1.{field}" for field in NORM]
    assert set(model.state_dict()) == {*names, "fc.weight", "fc.bias"}
    assert model.conv1.kernel_size == (7, 7)
    assert isinstance(model.maxpool, nn.MaxPool2d)
    assert timm.models.is_model_pretrained(f"{name}.tv_in1k")
