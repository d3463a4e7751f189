"""What a checkpoint knows of the optimiser, fitted to the one that goes on."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import lightning.pytorch as pl
    from torch import Tensor


def refuse_other(checkpoint: Mapping[str, Any], name: str) -> None:
    """Compare whose state a checkpoint holds with the optimiser that is asked for.

    Args:
        checkpoint: of a `BaseTask`.
        name: of the optimiser that is to go on.

    Raises:
        ValueError: they differ; the state of one is of no use to the other.
    """
    hyper = checkpoint.get("hyper_parameters") or {}
    stored = checkpoint.get("optimizer") or hyper.get("optimizer")
    if stored is not None and str(stored).lower() != name:
        raise ValueError(
            f"the checkpoint holds the state of optimizer {stored!r}, but {name!r} is asked for, which cannot"
            f" go on from it; go on with {stored!r}, or start anew from the weights: model_args.weights: FILE"
        )


def names(module: pl.LightningModule) -> list[list[str]]:
    """Names of the optimiser's parameters, group by group, in the order of its state."""
    known = {id(p): name for name, p in module.named_parameters()}
    groups = module.trainer.optimizers[0].param_groups
    return [[known.get(id(p), "") for p in group["params"]] for group in groups]


def regroup(
    checkpoint: dict[str, Any], module: pl.LightningModule, groups: Sequence[Mapping[str, Any]]
) -> None:
    """Sort the optimiser's state in a checkpoint into other groups of the same parameters.

    They differ where weight decay was switched on or off since.

    Args:
        checkpoint: of a `BaseTask`; changed in place. One without names stays as it is.
        module: the task.
        groups: those of the optimiser that goes on.
    """
    known = {id(p): name for name, p in module.named_parameters()}
    wanted = [[known[id(p)] for p in group["params"]] for group in groups]
    stored = checkpoint.get("optimizer_parameters")
    if stored is None or stored == wanted or {*chain(*stored)} != {*chain(*wanted)}:
        return
    state = checkpoint["optimizer_states"][0]
    index: dict[str, int] = {}
    options: dict[str, dict[str, Any]] = {}
    for names_of, group in zip(stored, state["param_groups"], strict=True):
        index |= dict(zip(names_of, group["params"], strict=True))
        options |= {name: {k: v for k, v in group.items() if k != "params"} for name in names_of}
    order = list(chain(*wanted))
    place = {name: k for k, name in enumerate(order)}
    checkpoint["optimizer_states"][0] = {
        **state,
        "state": {
            place[name]: state["state"][index[name]] for name in order if index[name] in state["state"]
        },
        "param_groups": [
            {**(options[names_of[0]] if names_of else {}), "params": [place[name] for name in names_of]}
            for names_of in wanted
        ],
    }


def accumulated_gradients(module: pl.LightningModule) -> dict[str, Tensor]:
    """Gradients of the batches since the last optimiser step, by parameter; empty right after a step.

    Processes that train together keep the mean of theirs, which is what their next step would be made of.
    """
    trainer = module.trainer
    ready, every = trainer.fit_loop.epoch_loop.batch_progress.current.ready, trainer.accumulate_grad_batches
    if ready % every == 0 or ready >= trainer.num_training_batches:
        return {}
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        rank_zero_warn(
            "this strategy shards gradients; those accumulated since the last step are not in the checkpoint"
        )
        return {}
    found = {name: p.grad.detach() for name, p in module.named_parameters() if p.grad is not None}
    if trainer.world_size > 1:
        found = {
            name: trainer.strategy.reduce(grad.clone(), reduce_op="mean") for name, grad in found.items()
        }
    return found


def put_gradients(module: pl.LightningModule, gradients: Mapping[str, Tensor]) -> None:
    """Go on accumulating onto these; see `accumulated_gradients`."""
    for name, parameter in module.named_parameters():
        if name in gradients:
            gradient = gradients[name].to(parameter.device, parameter.dtype)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
