"""The numbers of all random draws of a sample, in one place so that no two share one.

A fixed slot each, so that switching one augmentation on or off leaves the draws of the others as they were.
"""

from __future__ import annotations

import numpy as np
import torch

from datamodules.loading.random import Keys

CROP_Y, CROP_X, FLIP, CUT_Y, CUT_X, POLICY, ERASE = range(7)
CHANGE, ROLL_Y, ROLL_X, ANGLE = range(16, 20)  # of event frames


def draw_keys(count: int) -> Keys:
    """Draw sample keys from torch's global generator, for transforms called by hand."""
    return torch.randint(0, 2**62, (count,)).numpy().astype(np.uint64)
