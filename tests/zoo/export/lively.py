"""Untrained networks that fire: of a silent one, which gives one answer to all, nothing can be compared."""

from __future__ import annotations

import torch
from torch import nn

NORMS = nn.modules.batchnorm._BatchNorm


def liven(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """Take the statistics of all norms from ``x``, then amplify until answers differ; evaluation mode."""
    norms = [m for m in model.modules() if isinstance(m, NORMS)]
    layers = norms or [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for _ in range(6):
            for norm in norms:
                norm.momentum = None
                norm.reset_running_stats()
            model.train()
            for _ in range(2):
                model(x)
            model.eval()
            answers = model(x)
            answers = answers if answers.dim() == 2 else answers.flatten(1)
            if len(answers.unique(dim=0)) == len(answers):
                for norm in norms:
                    norm.momentum = 0.1  # as built, so that the network can be saved
                return model
            for layer in layers:
                layer.weight.mul_(1.5)
    raise AssertionError(f"{type(model).__name__} stays silent")
