"""The two halves of a conversion give what the whole gives."""

import pytest
import torch
from torch import nn

from conversion import ConversionError, calibrate, convert, prepare

SIZE = (3, 8, 8)


def source():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("method", ["qcfs", "parallel"])
def test_two_halves_are_the_whole(method):
    model, images = source(), torch.randn(6, *SIZE)
    whole = convert(model, method, 4, images, progress=False)
    halves = prepare(model, method, 4, input_size=SIZE)
    assert halves.state_dict().keys() == whole.state_dict().keys()
    assert not any(t.any() for n, t in halves.state_dict().items() if n.endswith("v_threshold"))
    report = calibrate(halves, model, images, progress=False)
    assert report is halves.report
    assert torch.equal(halves(images), whole(images))
    assert str(report) == str(whole.report)
    assert set(report.seconds) == {"graph", "calibration", "self-test"}


def test_the_second_half_needs_fitting_images():
    model = source()
    halves = prepare(model, "qcfs", 4, input_size=SIZE)
    with pytest.raises(ConversionError, match="needs images"):
        calibrate(halves, model)
    with pytest.raises(ConversionError, match=r"prepared for images \(3, 8, 8\)"):
        calibrate(halves, model, torch.randn(2, 3, 9, 9), progress=False)
