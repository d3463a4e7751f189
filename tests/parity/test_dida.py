"""The noise of DiDA against the scheduler of URSA."""

from __future__ import annotations

import pytest
import torch

from tests.parity.goldens import over_files
from zoo.models.emu3_5.dida import (
    MetricPath,
    MixturePath,
    jump_probability,
    off_place,
    time_grid,
)

pytestmark = pytest.mark.golden


@over_files("prob", "velocity0", "mix_velocity", "t_grid_shift1", "step3.jump_prob")
def test_metric_path(golden):
    said = golden.sidecar
    path = MetricPath(golden["emb"], c=said["c"], alpha=said["alpha"])
    clean, current = golden["x1"], golden["xt"]
    close = {"rtol": 1e-5, "atol": 1e-5}
    golden.close("prob", path.probabilities(clean, golden["t"][:, None]), **close)
    for number, t in enumerate((0.0, 0.3, 0.8)):
        golden.close(f"velocity{number}", path.velocity(current, clean, torch.tensor(t)), **close)
    mixture = MixturePath(path.codes)
    golden.close("mix_velocity", mixture.velocity(current, clean, torch.tensor(0.3)), **close)
    for shift in (1, 3):
        steps = len(golden[f"t_grid_shift{shift}"])
        golden.close(f"t_grid_shift{shift}", time_grid(steps, shift), rtol=0, atol=1e-12)
    times = time_grid(len(golden["t_grid_shift1"])).float()
    velocity = path.velocity(current, clean, times[3])
    golden.close("step3.velocity", velocity, **close)
    leaves = jump_probability(off_place(velocity, current), times[4] - times[3])
    golden.close("step3.jump_prob", leaves, **close)
    golden.everything_was_compared()
