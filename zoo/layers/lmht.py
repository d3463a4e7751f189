"""What the LM-HT networks share: their setting, and the checkpoints of the authors' code.

LM-HT (NeurIPS 2024, arXiv 2402.00411, code hzc1208/LMHT_SNN) trains plain convolutional networks with its
neuron in the place of every ReLU. Its authors publish no weights; files that their scripts write load here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from spiking import LMHT
from zoo.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

PAPER = "2402.00411"
# Linear layers and, of transformers, all blocks: what has no axes H and W in the authors' code.
WITHOUT_MAP = ("fc.", "classifier.", "block.")
VARIANT: dict[str, Any] = {"neuron": "lmht", "time_steps": 2}  # L = 2, T = 2 is the paper's main setting


DvsMode = Literal["mean_frame", "rect_tgim"]


def first_neuron(
    dvs_mode: DvsMode | None, dvs_frames: int, neuron: str, preactivation: bool
) -> dict[str, Any]:
    """Arguments of the first neuron for frames of events, beyond those of all neurons.

    ``"mean_frame"`` (the authors' code): the network sees the mean of all frames, and the first neuron sees
    it T-fold. ``"rect_tgim"``: the first neuron's matrix maps ``dvs_frames`` frames to T steps.

    Raises:
        ValueError: an unknown mode, other neurons, or a network that carries frames past the first neuron.
    """
    if dvs_mode is None:
        return {}
    if dvs_mode not in ("mean_frame", "rect_tgim"):
        raise ValueError(f"dvs_mode must be 'mean_frame' or 'rect_tgim', got {dvs_mode!r}")
    if neuron.lower().replace("_", "").replace("-", "") != "lmht":
        raise ValueError(f"dvs_mode {dvs_mode!r} is for LM-HT neurons, got neuron {neuron!r}")
    if dvs_mode == "mean_frame":
        return {}
    if preactivation:
        raise ValueError(
            "dvs_mode 'rect_tgim' maps frames to T steps in the neuron behind the stem, and MS-ResNets have"
            " none there: use 'mean_frame', or as many steps as frames"
        )
    return {"time_steps_in": dvs_frames}


def import_neurons(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The authors' neurons in our form; keys of modules must be ours already, other states pass.

    Each of theirs has a matrix for maps, ``mask [T, T, 1, 1, 1, 1]``, and one for everything else,
    ``mask_linear`` with an axis less or two, of which one is used: the second behind linear layers and for
    tokens. A network that has run holds the one in use a second time, as ``core``.

    Raises:
        CheckpointError: thresholds that belong to another L, or the weights of a reparameterised network.
    """
    out = dict(state)
    neurons = {key.removesuffix(".mask_linear") for key in state if key.endswith(".mask_linear")}
    for path in sorted(neurons):
        linear = out.pop(f"{path}.mask_linear")
        mask, core = state[f"{path}.mask"], out.pop(f"{path}.core", None)
        without_map = path.startswith(WITHOUT_MAP) if core is None else core.shape != mask.shape
        mask = linear if without_map else mask
        out[f"{path}.mask"] = mask.reshape(mask.shape[:2])
        if state[f"{path}.alpha"].numel() > 1:
            raise CheckpointError(
                f"{path} has a leak for every step: these are the weights of a reparameterised network; load"
                " those of the trained one and use conversion.lmht.reparameterise"
            )
        out[f"{path}.alpha"] = state[f"{path}.alpha"].reshape(())
        out[f"{path}.v_threshold"] = state[f"{path}.v_threshold"].reshape(())
        neuron = dict(model.named_modules()).get(path)
        if isinstance(neuron, LMHT):  # not in their files
            for name in ("v_init", "input_scale"):
                out[f"{path}.{name}"] = getattr(neuron, name).detach().clone()
    if neurons:
        _check_levels({float(out[f"{path}.v_threshold"]) for path in neurons}, model)
    return out


def _check_levels(thresholds: set[float], model: nn.Module) -> None:
    """Direct training uses ``2 / L`` in every layer; weights do not tell L in any other way."""
    levels = next((m.levels for m in model.modules() if isinstance(m, LMHT)), None)
    if levels is None or len(thresholds) != 1:
        return
    trained = 2.0 / thresholds.pop()
    if trained > 1 and trained == int(trained) and trained != levels:
        raise CheckpointError(
            f"every threshold is {2.0 / trained:g}, so these weights were trained with L = {trained:g} levels"
            f" (2 / L), but the model has {levels}; give neuron_args={{'levels': {trained:g}}}"
        )
