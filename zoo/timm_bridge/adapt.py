"""Weights of a network of timm in one with another number of classes or channels, or for other images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.errors import CheckpointError
from zoo.files.formats.torch_file import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

CHANGES = ("num_classes", "in_chans", "img_size")  # where they are asked for, a file may have others
NOWHERE = {"source": "", "url": "", "file": None, "hf_hub_id": None, "custom_load": False, "label_offset": 0}


def adapted(
    build: Callable[..., nn.Module],
    plain: nn.Module,
    state: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
    source: str,
) -> tuple[nn.Module, bool]:
    """The network with these weights as timm adapts them, and whether its head is fresh.

    The first convolution is summed or repeated over channels, position embeddings are resampled; all other
    tensors must be there.

    Args:
        build: ``build(arguments, **options)`` of ``timm.create_model``.
        plain: the network as ``arguments`` ask for it.
        state: of the file.
        arguments: of the network.
        source: what messages call the file.

    Raises:
        CheckpointError: they do not fit even so.
    """
    cfg: dict[str, Any] = getattr(plain, "pretrained_cfg", {})
    classes = _outputs(cfg, state)
    wanted = getattr(plain, "num_classes", classes)
    size = cfg.get("input_size") or (3, 224, 224)
    overlay = {
        **NOWHERE,
        "state_dict": dict(state),
        "num_classes": classes or wanted,
        "input_size": (_channels(cfg, state), *size[1:]),
    }
    at_file = {**arguments, "num_classes": classes or wanted}
    try:
        model: Any = build(at_file, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{source} does not fit {cfg.get('architecture')} with {dict(arguments)}: {first_line(error)}"
        ) from error
    fresh = classes is not None and classes != wanted
    if fresh:
        model.reset_classifier(wanted)
    named: Any = plain
    model.pretrained_cfg = model.default_cfg = named.pretrained_cfg  # without the weights themselves
    model.model_args = named.model_args
    return model, fresh


def _first(named: Any) -> str:
    return str(named if isinstance(named, str) else next(iter(named or ()), ""))


def _outputs(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> int | None:
    weight = state.get(f"{_first(cfg.get('classifier'))}.weight")
    return None if weight is None else len(weight)


def _channels(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> int:
    weight = state.get(f"{_first(cfg.get('first_conv'))}.weight")
    usual = (cfg.get("input_size") or (3,))[0]
    return int(weight.shape[1]) if weight is not None and weight.dim() == 4 else int(usual)
