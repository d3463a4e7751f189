"""Numbers, several labels, classes of pixels: metrics at every T of known values, targets that do not fit."""

import math

import pytest
import torch
from torchmetrics import MeanAbsoluteError

from lightning_modules import MultiLabelTask, RegressionTask, SegmentationTask
from lightning_modules.callbacks.mask_writer import as_mask
from lightning_modules.callbacks.predictions import LabelsTable, NumberTable
from lightning_modules.step_metrics import StepMetrics

CNN = {"time_steps": 2, "channels": [4, 8], "pool_size": 1}
FPN = {"time_steps": 2, "encoder_args": {"channels": [4, 8]}, "width": 4}


def regression(m, **more):
    return RegressionTask("spiking_cnn_nano", CNN | more, num_outputs=m, in_chans=1)


def multi_label(k, **more):
    return MultiLabelTask("spiking_cnn_nano", CNN | more, num_classes=k, in_chans=1)


def segmentation(model="spiking_fpn_nano", arguments=FPN, **more):
    return SegmentationTask(model, arguments | more, num_classes=2, in_chans=1)


def values(task):
    return [{name: float(value) for name, value in step.items()} for step in task.found.compute()]


def test_the_mean_of_the_steps_so_far_is_measured():
    metrics = StepMetrics({"mae": MeanAbsoluteError()})
    metrics.update(torch.tensor([[[1.0], [2.0]], [[3.0], [2.0]]]), torch.tensor([[2.0], [0.0]]))
    # after one step 1 and 2, after two (1 + 3) / 2 and (2 + 2) / 2
    assert [float(step["mae"]) for step in metrics.compute()] == [1.5, 1.0]
    metrics.reset()
    assert metrics.compute() == []


def test_regression_of_known_numbers():
    task = regression(1)
    outputs, target = torch.tensor([[[0.0], [1.0], [5.0]]]), torch.tensor([[1.0], [1.0], [4.0]])
    task.found.update(outputs, target)
    (found,) = values(task)
    assert found["mae"] == pytest.approx(2 / 3)
    assert found["rmse"] == pytest.approx(math.sqrt(2 / 3))
    assert found["r2"] == pytest.approx(1 - 2 / 6)  # the targets' squares around 2 sum up to 6
    assert float(task.loss(outputs, target)) == pytest.approx(2 / 3)


def test_several_labels_of_known_logits():
    task = multi_label(2)
    logits = torch.tensor([[[3.0, -3.0], [2.0, 1.0], [1.0, 3.0]]])
    task.found.update(logits, torch.tensor([[1, 0], [0, 0], [1, 1]]))
    (found,) = values(task)
    # class 0 ranks right, wrong, right: (1 + 2 / 3) / 2; class 1 ranks the right one first: 1
    assert found["map"] == pytest.approx((5 / 6 + 1) / 2)
    assert found["f1"] == pytest.approx((2 * 2 / 5 + 2 * 1 / 3) / 2)
    assert found["exact"] == pytest.approx(2 / 3)


def test_segmentation_of_a_known_map():
    task = segmentation()
    best = torch.tensor([[[0, 1], [1, 1]]])
    logits = torch.nn.functional.one_hot(best, 2).permute(0, 3, 1, 2).float().unsqueeze(0)
    task.found.update(logits, torch.tensor([[[0, 0], [1, 255]]], dtype=torch.uint8))
    (found,) = values(task)
    assert found["pixel_acc"] == pytest.approx(2 / 3)  # the fourth counts for nothing
    assert found["miou"] == pytest.approx(1 / 2)  # one of two in each class


BYTES = torch.zeros(2, 16, 16, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        (regression(1), torch.ones(2, 1).long(), r"floats \(2, 1\)"),
        (regression(2), torch.ones(2, 3), "estimates 2 numbers"),
        (
            regression(2, num_classes=3),
            torch.ones(2, 2),
            r"gives 3 numbers, but the data have 2; leave num_classes out",
        ),
        (multi_label(2, num_classes=3), torch.ones(2, 2), "gives 3 labels, but the data have 2"),
        (segmentation(num_classes=3), BYTES, "gives 3 classes, but the data have 2"),
        (multi_label(3), torch.tensor([0, 2]), "each of the 3 classes"),
        (multi_label(2), torch.full((2, 2), 0.5), "0 or 1 is expected"),
        (segmentation("spiking_cnn_nano", CNN), BYTES, "--task segmentation"),
        (segmentation(), torch.zeros(2, 8, 8), "for every pixel"),
        (segmentation(), BYTES + 7, "hold class 7, but the network has 2"),
    ],
)
def test_targets_that_do_not_fit_are_named(task, target, message):
    with pytest.raises(ValueError, match=message):
        task.check_target(task(torch.rand(2, 1, 16, 16)), target)


def test_single_numbers_get_the_axis_of_the_outputs():
    assert regression(1).targets(torch.ones(3)).shape == (3, 1)
    assert regression(3).targets(torch.ones(2, 3)).shape == (2, 3)


def test_what_a_line_says():
    assert NumberTable(["angle"]).header(2) == ["angle", "number_1"]
    assert LabelsTable(["a", "b"], 0.5).cells(torch.tensor([0.0, -9.0])) == ["a", "0.500000", "0.000123"]


def test_a_mask_holds_class_numbers():
    logits = torch.zeros(3, 2, 2)
    logits[2, 0, 1] = logits[1, 1, 0] = 1.0
    mask = as_mask(logits)
    assert list(mask.tobytes()) == [0, 2, 1, 0]
    assert mask.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
    with pytest.raises(ValueError, match="at most 256 classes"):
        as_mask(torch.zeros(257, 1, 1))
