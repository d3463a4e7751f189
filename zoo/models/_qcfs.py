"""What the source networks of the QCFS line share: the activation by name, and the authors' checkpoints.

The line is QCFS (arXiv 2303.04347), SRP (2302.02091), COS (2302.10685) and Parallel Conversion
(2412.13610). Their codes (putshua/SNN_conversion_QCFS, putshua/ANN_SNN_QCFS, hzc1208/ANN2SNN_SRP,
hzc1208/ANN2SNN_COS, hzc1208/Parallel_Conversion) build the same networks and convert them differently.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from torch import nn

from spiking.qcfs import QCFS, V_THRESHOLD_INIT, Order, check_settings
from zoo.build import build_model
from zoo.classifier import AnalogModel
from zoo.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

PAPER = "2303.04347"

Activation = Literal["qcfs", "relu"]
S = TypeVar("S", bound="SourceNetwork")

CALIBRATION = (".rec_in_mean", ".rec_th_mean")  # of a site that Parallel Conversion has calibrated
THRESHOLD = ".v_threshold"
CONVERTED = (".TxT", ".pre_th", ".post_th")  # of a neuron that has taken a site's place


class SourceNetwork(AnalogModel):
    """An analog network whose activations a conversion replaces by neurons.

    Args:
        activation: ``"qcfs"``, or ``"relu"``, which has no parameters.
        levels: L of QCFS.
        v_threshold: its initial threshold.
        order: see `spiking.qcfs.qcfs`.
        num_classes: K; 0 leaves the classifier out.
        in_chans: C of the input.
        num_features: channels of the last stage.
    """

    levels_given: bool = False  # whether the caller chose L, set by build_source

    def __init__(
        self,
        *,
        activation: Activation = "qcfs",
        levels: int = 4,
        v_threshold: float = V_THRESHOLD_INIT,
        order: Order = "clip_first",
        num_classes: int,
        in_chans: int,
        num_features: int,
    ) -> None:
        if activation not in ("qcfs", "relu"):
            raise ValueError(f"activation must be 'qcfs' or 'relu', got {activation!r}")
        check_settings(levels, order)
        super().__init__(num_classes=num_classes, in_chans=in_chans, num_features=num_features)
        self.activation, self.levels, self.v_threshold, self.order = activation, levels, v_threshold, order

    def make_activation(self) -> nn.Module:
        """One activation site."""
        if self.activation == "relu":
            return nn.ReLU()
        return QCFS(self.levels, self.v_threshold, self.order)


def build_source(cls: type[S], name: str, variant: Mapping[str, Any], **kwargs: Any) -> S:
    """`build_model` that also notes L, which no state dict holds and every folder must."""
    model = build_model(cls, name, variant, **kwargs)
    model.levels_given = kwargs.get("levels") is not None
    model.model_args["levels"] = model.levels
    return model


def import_state(
    state: Mapping[str, Tensor], model: nn.Module, rename: Callable[[str], str]
) -> dict[str, Tensor]:
    """The authors' state dict, or ours, under our names.

    Args:
        state: entries by name.
        model: the network that takes them.
        rename: gives our name for one of theirs, and ours for ours.

    Raises:
        CheckpointError: if a threshold is not positive or the file holds a converted network.
    """
    converted = sorted(key for key in state if key.endswith(CONVERTED))
    if converted:
        raise CheckpointError(
            f"these are the weights of a converted network ({converted[0]}, ...), whose analog source is"
            " gone; load the checkpoint that it was converted from and convert that"
        )
    calibrated = [key for key in state if key.endswith(CALIBRATION)]
    if calibrated:
        warnings.warn(
            f"left out what Parallel Conversion's calibration stored ({calibrated[0]} and"
            f" {len(calibrated) - 1} more): it belongs to one T, and converting builds it anew",
            stacklevel=4,
        )
    out: dict[str, Tensor] = {}
    left: list[str] = []
    for key, value in state.items():
        if key in calibrated:
            continue
        ours = rename(key)
        if ours.endswith(THRESHOLD) and isinstance(model, SourceNetwork) and model.activation == "relu":
            left.append(key)
            continue
        if ours.endswith(THRESHOLD) and not bool((value > 0).all()):
            raise CheckpointError(
                f"the threshold {key} is {value.flatten()[0].item():g}, but a neuron needs a positive"
                " one: weight decay has driven it there; train again from a larger v_threshold or with"
                " less weight_decay"
            )
        out[ours] = value
    if left:
        warnings.warn(
            f"left out {len(left)} thresholds of QCFS, since this network has ReLU in its place: it answers"
            " otherwise than the trained one until it is trained itself",
            stacklevel=4,
        )
    if isinstance(model, SourceNetwork) and model.activation == "qcfs" and not model.levels_given:
        warnings.warn(
            f"weights do not tell with how many levels L they were trained; levels={model.levels}, the"
            " default, is taken: give levels=... (published networks have 4, 8 or 16)",
            stacklevel=4,
        )
    return out
