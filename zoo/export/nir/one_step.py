"""A network as a functional graph of one step, with its neurons as opaque calls.

The network is exported for T = 1 by the machinery that conversion has, and its batch norms are folded.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import spiking
from conversion import ConvertedModel
from conversion.graph.export import export
from conversion.graph.fold_norms import fold_batch_norms
from conversion.graph.program import ConversionError
from spiking.layers import BNTT, TEBN, SpikeMatmul
from spiking.neurons.base import Neuron, Temporal
from zoo.base import ZooModel
from zoo.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from conversion.graph.program import Program

NEURON = "fulgurite.neuron_at"  # as `conversion.graph.ops.op_name` has it


@torch.library.custom_op(NEURON.replace(".", "::"), mutates_args=())
def neuron_at(x: Tensor, path: str) -> Tensor:
    """Stands for the neuron at a path while a network is exported."""
    return x.clone()


@neuron_at.register_fake
def _(x: Tensor, path: str) -> Tensor:
    return torch.empty_like(x)


class Opaque(Neuron):
    """Calls `neuron_at`.

    Args:
        path: of the neuron in the network.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def run(self, x: Tensor, state: Tensor | None, keep_state: bool) -> tuple[Tensor, None]:
        """See `spiking.neurons.base.Temporal.run`."""
        return neuron_at(x.contiguous(), self.path), None


class OneStep(nn.Module):
    """A network as a function of one step: ``[B, ...]`` -> ``[B, K]``.

    Args:
        network: of the zoo, or any that maps ``[T, B, ...]`` to ``[T, B, K]``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """One step."""
        y: Tensor
        if isinstance(self.network, ZooModel):
            y = self.network(x, steps=True)  # of T = 1
        else:
            y = self.network(x.unsqueeze(0))
        return y[0]


def one_step_of(model: nn.Module, neurons: Mapping[str, Neuron], input_shape: Sequence[int]) -> Program:
    """The program of one step, in float64; the neurons are calls of `neuron_at`.

    Args:
        model: in evaluation mode; not changed.
        neurons: of `neurons_of`.
        input_shape: of one sample.

    Raises:
        ExportError: the network cannot be exported.
    """
    twin = copy.deepcopy(model).double().eval()
    for path in neurons:
        twin.set_submodule(path, Opaque(path))
    if isinstance(twin, ZooModel):
        twin.time_steps = 1
    try:
        program = export(OneStep(twin), torch.zeros(2, *input_shape, dtype=torch.float64))
    except ConversionError as error:
        raise ExportError(f"{type(model).__name__} has no graph that NIR could take: {error}") from error
    fold_batch_norms(program)
    return program


def neurons_of(model: nn.Module) -> dict[str, Neuron]:
    """The neurons by path, all of which NIR has a node for.

    Raises:
        ExportError: one that it has none for.
    """
    if isinstance(model, ConvertedModel):
        path = next((p for p, m in model.named_modules() if isinstance(m, Neuron)), "")
        raise ExportError(
            f"NIR cannot say {path!r}: networks converted by {model.method.name!r} have neurons that reset by"
            " subtraction or send graded spikes; NIR's send 0 or 1 and reset to a fixed potential"
        )
    found: dict[str, Neuron] = {}
    for path, module in model.named_modules():
        if isinstance(module, SpikeMatmul):
            raise refusal(path, "attention", "it multiplies two signals; NIR has sums and fixed weights only")
        if isinstance(module, TEBN | BNTT):
            raise refusal(path, type(module).__name__, "it has other weights at every step; NIR's are fixed")
        if not isinstance(module, Temporal):
            continue
        if type(module) not in (spiking.IF, spiking.LIF, spiking.PLIF):
            raise refusal(path, type(module).__name__, "NIR has IF and LIF neurons; use neuron='lif' or 'if'")
        if module.v_reset is None:
            raise refusal(
                path, type(module).__name__,
                "it resets by subtracting the threshold (soft reset); NIR's neurons reset to a fixed"
                " potential: train with neuron_args={'v_reset': 0.0}",
            )  # fmt: skip
        assert isinstance(module, Neuron)
        found[path] = module
    if not found:
        raise ExportError(f"{type(model).__name__} has no spiking neurons; NIR is for networks that have")
    return found


def refusal(where: str, what: str, why: str) -> ExportError:
    """What to raise for a node that there is no way to say."""
    return ExportError(f"NIR cannot say {where or 'the network'!r} ({what}): {why}")
