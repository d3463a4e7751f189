"""What a source is behind what compiles, distributes or averages it, and its logits in what it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from conversion.graph.program import ConversionError

# modules that run another one and change nothing of what it computes, and where they keep it
WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.optim.swa_utils.AveragedModel": "module",
    "timm.utils.model_ema.ModelEmaV2": "module",
    "timm.utils.model_ema.ModelEmaV3": "module",
    "lightning.fabric.wrappers._FabricModule": "_original_module",
    "pytorch_lightning.fabric.wrappers._FabricModule": "_original_module",
    "lightning_fabric.wrappers._FabricModule": "_original_module",
    "deepspeed.runtime.engine.DeepSpeedEngine": "module",
}
SHARDED = ("FullyShardedDataParallel", "FSDPModule")


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside of what compiles, distributes or averages it; ``model`` itself if nothing does.

    Raises:
        ConversionError: a program of TorchScript, or parameters that are spread over processes.
    """
    while (inside := _inside(model)) is not None:
        model = inside
    for path, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(module, torch.jit.ScriptModule):
            raise ConversionError(
                f"{path or 'the model'} is a TorchScript program, which cannot be converted; give the module"
                " that it was scripted or traced from"
            )
    if any(cls.__name__ in SHARDED for cls in type(model).__mro__):
        raise ConversionError(
            "the parameters are spread over processes (FSDP); gather them in a plain copy of the network"
            " (torch.distributed.checkpoint.state_dict with full_state_dict=True), and convert that"
        )
    return model


def pass_through(root: nn.Module) -> None:
    """Let wrappers inside ``root``, a copy that is about to be exported, do nothing; paths stay."""
    for module in list(root.modules()):
        inside = _inside(module)
        if inside is not None:
            module.forward = inside.forward


def _inside(model: nn.Module) -> nn.Module | None:
    if isinstance(model, nn.Module):
        for cls in type(model).__mro__:
            name = WRAPPERS.get(f"{cls.__module__}.{cls.__qualname__}")
            if name is not None:
                return model.get_submodule(name)
    return None


def logits_of(output: Any) -> Tensor:
    """The logits among what a source returns: a tensor, the only entry of a container, or ``logits``.

    Raises:
        ConversionError: there is no telling; names what is returned.
    """
    if isinstance(output, Tensor):
        return output
    named: dict[str, Any] = {}
    if isinstance(output, Mapping):
        named = {str(k): v for k, v in output.items()}
    elif dataclasses.is_dataclass(output):
        named = {f.name: getattr(output, f.name) for f in dataclasses.fields(output)}
    elif hasattr(output, "_asdict"):
        named = output._asdict()
    logits = named.get("logits")
    if isinstance(logits, Tensor):
        return logits
    entries = list(output) if isinstance(output, list | tuple) else list(named.values())
    entries = [entry for entry in entries if entry is not None]
    if len(entries) == 1:
        return logits_of(entries[0])
    what = f"{type(output).__name__} of " + (", ".join(named) or f"{len(entries)} values")
    raise ConversionError(
        "the source must return logits [B, K], or [B, N, K] for N positions of an image, alone or as"
        f" 'logits' of a mapping or a dataclass; it returns {what}: convert the part of the network that"
        " makes them, or join what it returns"
    )
