"""What a conversion refuses, and that it leaves everything as it was."""

import re
from collections import OrderedDict

import pytest
import timm
import torch
from torch import nn

import spiking
from conversion import CalibrationError, ConversionError, UnsupportedOperationError, convert
from conversion.calibration.batches import Batches

quiet = {"progress": False}


def test_training_mode(relu_net, images):
    relu_net.block.bn1.train()
    with pytest.raises(ConversionError, match=r"training mode \(block\.bn1\); call model\.eval\(\)"):
        convert(relu_net, "qcfs", 4, images(), **quiet)
    with pytest.raises(ConversionError, match=r"training mode \(ReLUNet\)"):
        convert(relu_net.train(), "qcfs", 4, images(), **quiet)


def test_no_model(images):
    with pytest.raises(TypeError, match="expected a model, got str"):
        convert("resnet18", "qcfs", 4, images(), **quiet)


def test_unknown_method_and_setting(relu_net, images):
    with pytest.raises(ValueError, match="unknown conversion method 'qcfz'; did you mean 'qcfs'"):
        convert(relu_net, "qcfz", 4, images(), **quiet)
    with pytest.raises(ValueError, match=r"known: .*cos.*qcfs.*srp"):
        convert(relu_net, "snn", 4, images(), **quiet)
    with pytest.raises(TypeError, match="srp has no setting 'tao'; did you mean 'tau'"):
        convert(relu_net, "srp", 4, images(), tao=3, **quiet)
    with pytest.raises(ValueError, match=r"threshold must be 'max', 'mse' or a percentage.*'99'"):
        convert(relu_net, "qcfs", 4, images(), threshold="99", **quiet)


@pytest.mark.parametrize("time_steps", [0, -1, 2.0, True, None])
def test_time_steps(relu_net, images, time_steps):
    with pytest.raises(ValueError, match=f"time_steps must be an integer of at least 1, got {time_steps!r}"):
        convert(relu_net, "qcfs", time_steps, images(), **quiet)


def test_no_activation_for_a_neuron(images):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(400, 5)).eval()
    with pytest.raises(ConversionError, match=r"no activation that a neuron of qcfs can stand for.*ReLU6"):
        convert(net, "qcfs", 4, images(), **quiet)


def test_unsupported_operation(images):
    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Spectrum(), nn.Flatten(), nn.Linear(400, 5)).eval()
    with pytest.raises(UnsupportedOperationError, match=r"fft.*module '2'"):
        convert(net, "qcfs", 4, images(), **quiet)


def test_output_that_is_no_logits(images):
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    with pytest.raises(ConversionError, match=r"must return logits \[B, K\]"):
        convert(trunk, "qcfs", 4, images(), **quiet)


def test_two_inputs(images):
    class Two(nn.Module):
        def forward(self, x, y):
            return (x + y).relu().mean((2, 3))

    with pytest.raises(ConversionError, match="the source does not run on images"):
        convert(Two().eval(), "qcfs", 4, images(), **quiet)


def test_control_flow_that_depends_on_the_image(images):
    class Branching(nn.Module):
        def forward(self, x):
            x = x.relu().mean((2, 3))
            return x if x.sum() > 0 else -x

    with pytest.raises(ConversionError, match=r"Branching cannot be exported.*values of the image"):
        convert(Branching().eval(), "qcfs", 4, images(), **quiet)


def test_spiking_and_converted_networks(relu_net, qcfs_net, images):
    with pytest.raises(ConversionError, match="has spiking neurons already"):
        convert(nn.Sequential(qcfs_net, spiking.LIF()).eval(), "qcfs", 4, images(), **quiet)
    snn = convert(qcfs_net, "qcfs", 4, images(), **quiet)
    for calibration in (None, images()):
        with pytest.raises(ConversionError, match="converted already; convert its source"):
            convert(snn, "qcfs", 4, calibration, **quiet)


def test_broken_weights(relu_net, images):
    relu_net.block.conv1.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ConversionError, match=r"block\.conv1\.weight holds NaN or infinite"):
        convert(relu_net, "qcfs", 4, images(), **quiet)


def test_activations_that_overflow(relu_net, images):
    relu_net.conv1.weight.data *= 1e38
    with pytest.raises(
        ConversionError, match=r"in front of '.*' has NaN or infinite values on the calibration"
    ):
        convert(relu_net, "qcfs", 4, 10 * images(), **quiet)


@pytest.mark.parametrize("method", ["qcfs", "srp", "cos", "parallel", "ecmt", "dcgs"])
def test_layer_that_is_dead_on_the_calibration_data(relu_net, images, method):
    """The conversion goes on, says so, and a signal that other images bring arrives."""
    relu_net.block.bn1.weight.data.zero_()
    relu_net.block.bn1.bias.data.fill_(-1.5)
    snn = convert(relu_net, method, 16, images(), **quiet)
    dead = [row for row in snn.report.rows if row.fallback]
    zeros = method == "ecmt"  # it does not see the currents of the ReLU, which stays exact
    name = "block.conv2_input" if zeros else "block.relu"
    assert [row.name for row in dead] == [name]
    assert f"not measured: the threshold at {name} is {'1' if zeros else '1.5'}, " in str(snn.report)
    site = snn.get_submodule(name)
    arriving = torch.full((16, 2, *site.shape), 0.75)  # what other images may bring
    sent = site.run(arriving, None, False)[0]
    mean = sent[-1] if site.domain == "mean" else sent.mean(0)
    torch.testing.assert_close(mean, arriving[0], rtol=0.05, atol=0.0)
    assert not bool(site.run(-2 * arriving.clamp(max=0.0 if zeros else 1.0), None, False)[0].any())


@pytest.mark.parametrize("settings", [{"signed": True}, {"threshold": "50%"}], ids=str)
def test_signal_whose_share_is_not_above_zero(relu_net, images, settings):
    """A sparse signal, or one that is negative and constant, has magnitudes to go by."""
    relu_net.block.bn1.bias.data.fill_(-2.0)
    relu_net.head.weight.data.abs_().neg_()
    snn = convert(relu_net, "dcgs", 16, images(), **settings, **quiet)
    assert all(bool((row.v_threshold > 0).any()) for row in snn.report.rows)
    if "threshold" in settings:
        row = next(r for r in snn.report.rows if r.name == "block.relu")
        assert "its largest magnitude" in row.fallback


def test_channel_that_is_dead_on_the_calibration_data(relu_net, images):
    relu_net.block.bn1.weight.data[0] = 0.0
    relu_net.block.bn1.bias.data[0] = -1.0
    for method, settings in (("qcfs", {"channelwise": True}), ("parallel", {})):
        snn = convert(relu_net, method, 4, images(), **settings, **quiet)
        theta = snn.get_submodule("block.relu").v_threshold
        assert theta[0] == 0
        assert bool((theta[1:] > 0).all())
        assert snn(images(seed=2)).isfinite().all()
        assert "(1 silent)" in str(snn.report)
    for settings, silent in (({}, 0), ({"policy": "official-transformer"}, 1)):
        snn = convert(relu_net, "dcgs", 4, images(), level="channel", **settings, **quiet)
        row = next(r for r in snn.report.rows if bool((r.v_threshold == 0).any()) or r.fallback)
        assert int((row.v_threshold == 0).sum()) == silent
        assert bool(row.fallback) != bool(silent)


def test_trained_threshold_that_is_not_positive(qcfs_net):
    qcfs_net[6].v_threshold.data.fill_(-0.25)
    for method in ("qcfs", "srp", "cos", "parallel"):
        with pytest.raises(ValueError, match=r"trained threshold at '6' is -0\.25.*needs a positive one"):
            convert(qcfs_net, method, 4, input_size=(3, 12, 12), **quiet)


def test_threshold_that_is_no_parameter(qcfs_net):
    theta = qcfs_net[6].v_threshold.detach().clone()
    del qcfs_net[6].v_threshold
    qcfs_net[6].register_buffer("v_threshold", theta)
    with pytest.raises(ConversionError, match="'6' has a threshold that is no parameter"):
        convert(qcfs_net, "qcfs", 4, input_size=(3, 12, 12), **quiet)


# ---------------------------------------------------------------- calibration data


def refused(model, calibration, message, error=CalibrationError, **settings):
    with pytest.raises(error, match=message):
        convert(model, "qcfs", 4, calibration, **settings, **quiet)


def test_no_data(relu_net):
    refused(relu_net, None, r"input size of ReLUNet is unknown; give input_size", ConversionError)
    refused(relu_net, None, "qcfs needs images to find thresholds", ConversionError, input_size=(3, 12, 12))


def test_empty_data(relu_net):
    refused(relu_net, [], "hold no image")
    refused(relu_net, iter([]), "hold no image")
    refused(relu_net, torch.zeros(0, 3, 12, 12), r"empty: \(0, 3, 12, 12\)")
    refused(relu_net, [torch.zeros(2, 3, 12, 12), torch.zeros(0, 3, 12, 12)], "batch is empty")


def test_what_is_no_data(relu_net, images):
    refused(relu_net, 5, "batches of them, got int")
    refused(relu_net, "images/", "a batch must be images or start with them, got str")
    refused(relu_net, [2.5], "got float")
    refused(relu_net, [images().numpy()], "got ndarray")


def test_data_of_the_wrong_shape(relu_net, images):
    refused(relu_net, torch.zeros(3, 12, 12), r"batches of images \[B, C, H, W\], got 3 axes")
    refused(relu_net, list(images()), r"got 3 axes \(3, 12, 12\)")
    refused(relu_net, torch.zeros(12), r"expected images \[N, C, H, W\]")
    refused(relu_net, [torch.zeros(2, 2, 3, 12, 12)], "got 5 axes")
    refused(relu_net, [images(), images(pixels=10)], r"different shapes: \(3, 10, 10\) after \(3, 12, 12\)")
    wrong = r"does not run on images \[B, C, H, W\] = \(2, 1, 12, 12\)"
    refused(relu_net, images(chans=1), wrong, ConversionError)
    asked = {"error": ConversionError, "input_size": (3, 12, 12)}
    refused(relu_net, images(pixels=10), r"input_size is \(3, 12, 12\).*images are \(3, 10, 10\)", **asked)


def test_channels_of_a_timm_model():
    model = timm.create_model("resnet10t", num_classes=5).eval()
    refused(model, torch.zeros(2, 1, 32, 32), r"takes C = 3 channels, the calibration images have C = 1")


def test_channels_of_a_timm_model_built_for_others():
    model = timm.create_model("test_resnet", in_chans=1, num_classes=5).eval()
    assert model.pretrained_cfg["input_size"][0] == 3, "timm leaves it as it was"
    Batches(torch.zeros(2, 1, 32, 32), model.pretrained_cfg, progress=False, model=model)
    with pytest.raises(CalibrationError, match="takes C = 1 channels, the calibration images have C = 2"):
        Batches(torch.zeros(2, 2, 32, 32), model.pretrained_cfg, progress=False, model=model)


def test_data_of_the_wrong_kind(relu_net, images):
    refused(relu_net, (images() * 50).to(torch.uint8), r"torch\.uint8; scale and normalise")
    refused(relu_net, images().long(), r"torch\.int64; scale and normalise")
    refused(relu_net, images().abs() * 255 / 4 + 100, "look unscaled: divide by 255")
    broken = images()
    broken[1, 2, 3, 4] = float("nan")
    refused(relu_net, broken, "contain NaN or infinite")
    refused(relu_net, [images(), broken / 0.0], "contain NaN or infinite")


def test_forms_of_data(relu_net, images):
    """A tensor, tuples with labels, mappings and iterators that can be gone through once are all one."""
    x, labels = images(4), torch.zeros(4)
    forms = [
        x,
        [x[:2], x[2:]],
        [(x[:2], labels[:2]), (x[2:], labels[2:])],
        [{"label": labels, "image": x}],
        [OrderedDict(pixels=x, label=labels)],
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, labels), batch_size=3),
        (batch for batch in x.split(1)),
        x.double(),
    ]
    found = [convert(relu_net, "qcfs", 4, form, **quiet) for form in forms]
    assert {snn.report.images for snn in found} == {4}
    for snn in found[1:]:
        for key, value in found[0].state_dict().items():
            # the bins of a histogram are laid out when the first batch has been seen
            torch.testing.assert_close(snn.state_dict()[key], value, rtol=2e-3, atol=0)


# ---------------------------------------------------------------- at run time


def test_images_at_run_time(qcfs_net, images):
    snn = convert(qcfs_net, "qcfs", 4, input_size=(3, 12, 12), **quiet)
    again = r"fixed in the converted graph; conversion.resize\(network, source, \(3, 16, 16\)\)"
    with pytest.raises(ValueError, match=rf"got \(3, 16, 16\): other pixels.*{again}"):
        snn(images(pixels=16))
    with pytest.raises(ValueError, match=r"got \(1, 12, 12\): other channels"):
        snn(images(chans=1))
    with pytest.raises(ValueError, match=r"still images.*5 axes \(2, 4, 3, 12, 12\).*frames one by one"):
        snn(images().expand(2, 4, 3, 12, 12))
    with pytest.raises(ValueError, match=r"3 axes \(3, 12, 12\); add the batch axis"):
        snn(images()[0])
    with pytest.raises(ValueError, match="2 axes"):
        snn(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="empty input"):
        snn(images()[:0])
    with pytest.raises(TypeError, match=r"floating-point images \[B, C, H, W\], got torch\.int64"):
        snn(images().long())
    with pytest.raises(TypeError, match="got list"):
        snn([images()])
    broken = images()
    broken[0, 0, 0, :2] = float("inf")
    with pytest.raises(ValueError, match="2 of 1728 input values are NaN or infinite"):
        snn(broken)


# ---------------------------------------------------------------- the source


@pytest.mark.parametrize("method", ["qcfs", "srp", "cos", "parallel"])
def test_source_is_left_alone(relu_net, images, method):
    calls = []
    relu_net.conv1.register_forward_hook(lambda *_: calls.append(1))
    relu_net.head.weight.requires_grad_(False)
    text = str(relu_net)
    before = {k: v.clone() for k, v in relu_net.state_dict().items()}
    addresses = {k: v.data_ptr() for k, v in relu_net.state_dict().items()}
    versions = {k: p._version for k, p in relu_net.named_parameters()}
    x = images()
    kept = x.clone()
    snn = convert(relu_net, method, 4, x, **quiet)
    assert torch.equal(x, kept)
    assert str(relu_net) == text
    assert relu_net.state_dict().keys() == before.keys()
    for key, value in relu_net.state_dict().items():
        assert torch.equal(value, before[key]), key
        assert value.data_ptr() == addresses[key], key
    assert versions == {k: p._version for k, p in relu_net.named_parameters()}
    assert [k for k, p in relu_net.named_parameters() if not p.requires_grad] == ["head.weight"]
    assert not any(p.grad is not None for p in relu_net.parameters())
    assert len(relu_net.conv1._forward_hooks) == 1
    assert not any(m.training for m in (*relu_net.modules(), *snn.modules()))
    shared = set(addresses.values()) & {v.data_ptr() for v in snn.state_dict().values() if v.numel()}
    assert not shared
    calls.clear()
    snn(images())
    assert not calls, "a hook of the source must not run in its copy"


@pytest.mark.parametrize("method", ["qcfs", "parallel"])
def test_failing_leaves_the_source_alone(relu_net, images, method):
    before = {k: v.clone() for k, v in relu_net.state_dict().items()}
    late = [images(), images() * float("nan")]
    with pytest.raises(CalibrationError):
        convert(relu_net, method, 4, late, **quiet)
    for key, value in relu_net.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert re.match("ReLUNet", str(relu_net))
