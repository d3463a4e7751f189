"""A network at every T next to its source: numbers against plain loops."""

import pytest
import torch
from torch import nn

import conversion
import spiking
import zoo
from lightning_modules.conversion.evaluate import compare
from lightning_modules.metrics import AgreementOverTime

METHODS = {"qcfs": {}, "srp": {"tau": 3}, "cos": {"rho": 2}, "parallel": {}}


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    model = zoo.create("qcfs_vgg16", plan=[[4], [6]], hidden=8, pool_size=2, levels=4, v_threshold=1.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.dim() > 1:
                parameter.mul_(2.5)  # so that neurons fire all the way through
        model.classifier.bias.normal_(0, 0.01)  # without ties, which every function breaks in its own way
    return model.eval()


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(1)
    labels = [torch.randint(0, 10, (5,), generator=generator) for _ in range(3)]
    return [(torch.randn(5, 3, 8, 8, generator=generator), y) for y in labels]


def convert(source, method, time_steps):
    size = (3, 8, 8)
    return conversion.convert(source, method, time_steps, input_size=size, progress=False, **METHODS[method])


@pytest.mark.parametrize("method", METHODS)
def test_every_number_equals_that_of_a_conversion_for_this_t(method, source, batches):
    wanted = [1, 2, 6]
    snn = convert(source, method, 2)
    found = compare(
        source,
        snn,
        batches,
        wanted,
        reconvert=lambda steps: convert(source, method, steps),
        energy_batches=0,
        progress=False,
    )
    assert snn.time_steps == 2
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    ann = source(images)
    assert found.samples == 15
    assert found.ann_accuracy == pytest.approx((ann.argmax(1) == labels).float().mean().item())
    assert [p.time_steps for p in found.points] == wanted
    for point in found.points:
        one = convert(source, method, point.time_steps)
        with spiking.FiringRateMonitor(one) as monitor, torch.no_grad():
            logits = one(images)
        assert point.accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
        assert point.agreement == pytest.approx((logits.argmax(1) == ann.argmax(1)).float().mean().item())
        expected = (logits - ann).abs().mean() / ann.abs().mean()
        assert point.logit_difference == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
        energy = spiking.profile_energy(one, images)
        assert (point.sops, point.macs) == pytest.approx((energy.sops, energy.macs))
        assert point.energy_mj == pytest.approx(energy.energy_mj)
        assert (found.ann_macs, found.ann_energy_mj) == pytest.approx((energy.ann_macs, energy.ann_energy_mj))
        if method != "cos" or point.time_steps >= 2:  # COS runs rho steps even where fewer count
            assert point.firing_rate == pytest.approx(monitor.rate())
            assert point.firing_rates == pytest.approx(monitor.rates())
    assert found.points[-1].firing_rate > 0.01
    assert found.points[-1].sops > found.points[0].sops


def test_latency_counts_rehearsals(source, batches):
    latency = {}
    for method in METHODS:
        snn = convert(source, method, 4)
        found = compare(source, snn, batches, [4], progress=False)
        latency[method] = found.points[0].latency
    assert latency == {"qcfs": 4, "srp": 3 + 4, "cos": 2 + 4, "parallel": 4}


def test_a_lossless_conversion_is_measured_as_such(source, batches):
    snn = convert(source, "parallel", 4)  # T = L
    point = compare(source, snn, batches, [4], progress=False).points[0]
    assert point.agreement == 1.0
    assert point.logit_difference < 1e-5


def test_a_fixed_t_needs_another_conversion(source, batches):
    snn = convert(source, "parallel", 4)
    with pytest.raises(ValueError, match="fixes T = 4"):
        compare(source, snn, batches, [2, 4], progress=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"time_steps": []}, "evaluate_at"),
        ({"time_steps": [0, 2]}, "evaluate_at"),
        ({"energy_batches": -1}, "energy_batches"),
        ({"loader": []}, "no sample"),
        ({"loader": [(torch.zeros(1, 3, 8, 8), torch.tensor([10]))]}, "label 10"),
    ],
)
def test_wrong_values_name_themselves(changed, message, source, batches):
    options = {"loader": batches, "time_steps": [2], "progress": False, **changed}
    with pytest.raises(ValueError, match=message):
        compare(source, convert(source, "qcfs", 2), **options)


def test_the_point_that_stands_for_a_t(source, batches):
    found = compare(source, convert(source, "qcfs", 2), batches, [2, 4], progress=False)
    assert [found.at(t).time_steps for t in (1, 2, 3, 4, 9)] == [2, 2, 2, 4, 4]
    assert found.to_dict()["points"][1]["time_steps"] == 4


def test_memory_does_not_grow_with_t(source, batches):
    sizes = []
    snn = convert(source, "qcfs", 4)
    hook = snn.get_submodule("layer1.0.conv").register_forward_hook(lambda m, x, y: sizes.append(len(y)))
    inner = snn.get_submodule("layer2.0.conv").register_forward_hook(lambda m, x, y: sizes.append(len(y)))
    compare(source, snn, batches, [4], progress=False)
    hook.remove()
    inner.remove()
    assert max(sizes) <= 5


def test_agreement_adds_up_over_batches_and_processes():
    torch.manual_seed(0)
    steps, reference = torch.randn(3, 8, 4), torch.randn(8, 4)
    whole, parts, other = AgreementOverTime(), AgreementOverTime(), AgreementOverTime()
    whole.update(steps, reference)
    parts.update(steps[:, :3], reference[:3])
    other.update(steps[:, 3:], reference[3:])
    for name in ("same", "total", "difference", "size"):  # what a reduction over processes does
        setattr(parts, name, getattr(parts, name) + getattr(other, name))
    for got, expected in zip(parts.compute(), whole.compute(), strict=True):
        torch.testing.assert_close(got, expected)
    mean = steps.mean(0)
    same, difference = whole.compute()
    assert same[-1] == (mean.argmax(1) == reference.argmax(1)).float().mean()
    assert difference[-1].item() == pytest.approx(
        ((mean - reference).abs().mean() / reference.abs().mean()).item(), rel=1e-5
    )


def test_batch_norm_and_modes_are_left_alone(source, batches):
    before = {k: v.clone() for k, v in source.state_dict().items()}
    compare(source, convert(source, "qcfs", 2), batches, [2], progress=False)
    assert all(torch.equal(v, before[k]) for k, v in source.state_dict().items())
    assert not any(isinstance(m, nn.BatchNorm2d) and m.training for m in source.modules())
