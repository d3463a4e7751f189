"""MACs of a time step as SpikingResformer's code prints them (2403.14302), in billions.

They are ours and four operations for every value of a norm, which is what the profiler thop charges; here a
norm is folded into the layer before it, and named instead.
"""

from __future__ import annotations

import pytest
import torch

import spiking
import zoo

PRINTED = {  # entry, side of the input: G
    ("ti", 224): 4.063,
    ("s", 224): 5.911,
    ("m", 224): 10.754,
    ("l", 224): 18.451,
    ("l", 288): 31.264,
    ("cifar", 32): 1.226,
    ("cifar", 64): 5.270,
    ("dvsg", 64): 1.452,
}
FAST = (("ti", 224), ("cifar", 32))


@pytest.mark.filterwarnings("ignore:the firing rates of")
@pytest.mark.parametrize(
    ("size", "side"),
    [pytest.param(*case, marks=() if case in FAST else pytest.mark.slow) for case in PRINTED],
)
def test_macs_of_a_step(size, side):
    told = zoo.describe(f"spikingresformer_{size}")
    with torch.device("meta"):
        model = told.build(time_steps=1).eval()
        frames = torch.empty(1, 1, told.input_size[0], side, side)
    with torch.no_grad(), spiking.OperationCounter(model) as counter:
        model(frames)
    report = counter.report()
    macs = report.ann_macs + 4 * report.uncounted["batch_norm"]
    assert round(macs / 1e9, 3) == PRINTED[size, side]
