"""A place in a converted network where a neuron replaces an activation of the source."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, fx, nn
from typing_extensions import override

from conversion.network.units import Increments, RunningMean
from spiking.context import Scoped
from spiking.neurons.base import Neuron, Temporal, as_surrogate
from spiking.surrogate import Rect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conversion.network.clock import Clock
    from conversion.network.units import Domain
    from spiking.neurons.base import SurrogateLike

Kind = Literal["relu", "clipped", "qcfs", "identity"]

# With this slope the gradient of the spike count by every current is exactly 1 where the last charge is
# within half a threshold of firing, and there the count is QCFS of the mean: the straight-through rule.
RECT = Rect(alpha=1.0)


@dataclass(frozen=True, kw_only=True)
class Activation:
    """What the source computes at a site.

    Attributes:
        kind: ``"relu"``, ``"clipped"`` (to ``[0, high]``, as ReLU6), ``"qcfs"``, or ``"identity"`` for a
            neuron that carries a signal over as it is.
        high: upper bound of ``"clipped"``.
        levels: L of ``"qcfs"``.
        order: of ``"qcfs"``; see `spiking.qcfs.qcfs`.
    """

    kind: Kind
    high: float = float("inf")
    levels: int = 0
    order: str = "floor_first"

    def __str__(self) -> str:
        detail = {"clipped": f"({self.high:g})", "qcfs": f"(L={self.levels})"}
        return self.kind + detail.get(self.kind, "")


@dataclass(frozen=True, kw_only=True)
class SiteSpec:
    """What is known about a site before its neuron is built.

    Attributes:
        name: path in the converted network.
        activation: of the source.
        shape: of the signal for one image, ``(C, H, W)`` or ``(N,)``.
        producer: name of the operation that makes the signal of an identity site.
        v_threshold: the trained threshold of a QCFS source.
        static: whether the current is the same at every step.
    """

    name: str
    activation: Activation
    shape: tuple[int, ...]
    producer: str = ""
    v_threshold: nn.Parameter | None = None
    static: bool = False


class Site(Neuron):
    """A neuron of a converted network; ``[T, B, ...]`` -> ``[T, B, ...]``, spikes times their height.

    Subclasses write `fire`. Apart from firing, a site can compute the activation of its source exactly,
    spread over time (`bypassed`), and it can be watched by a calibration (`overridden`).

    Args:
        spec: of the site.
        clock: of the network.
        channelwise: one threshold for each channel instead of one for the site.
        surrogate: slope of the step, for fine-tuning.

    Attributes:
        v_threshold: theta, ``[1]`` or ``[C, 1, ...]``: the parameter of a QCFS source, otherwise a buffer
            that calibration fills.
        fallback: the threshold that stands in for a measured one, and why, in words; empty where it was
            measured. Not kept in files.
    """

    domain: ClassVar[Domain] = "step"  # what it takes and gives; see conversion.network.units
    v_threshold: Tensor  # type: ignore[assignment]

    def __init__(
        self, spec: SiteSpec, clock: Clock, channelwise: bool = False, surrogate: SurrogateLike = RECT
    ) -> None:
        Temporal.__init__(self)
        self.activation, self.clock, self.shape = spec.activation, clock, spec.shape
        self.surrogate = as_surrogate(surrogate)
        self.backend = "auto"
        self.channelwise = channelwise
        self.fallback = ""
        if spec.v_threshold is not None:
            self.v_threshold = spec.v_threshold
        else:
            size = (spec.shape[0], *(1,) * (len(spec.shape) - 1)) if channelwise else (1,)
            self.register_buffer("v_threshold", torch.zeros(size))

    def fired(self, output: Tensor) -> Tensor:
        """A spike of any height counts once; of running means, whatever moves one."""
        if self.domain == "mean":
            return torch.cat([output[:1] != 0, output[1:] != output[:-1]]).to(output.dtype)
        return (output != 0).to(output.dtype)

    def analog(self, x: Tensor) -> Tensor:
        """The activation of the source, on values of any shape that ends like the site's."""
        kind = self.activation.kind
        if kind == "relu":
            return x.relu()
        if kind == "clipped":
            return nn.functional.hardtanh(x, 0.0, self.activation.high)
        if kind == "qcfs":
            levels, order = self.activation.levels, self.activation.order
            y: Tensor = torch.ops.fulgurite.qcfs.default(x, self.v_threshold, levels, order)
            return y
        return x

    def analog_over_time(self, x: Tensor) -> Tensor:
        """What the neuron would give if it were exact, for currents ``x [T, B, ...]``."""
        if self.domain == "mean":
            return self.analog(x)
        means = RunningMean().run(x, None, False)[0]
        return Increments().run(self.analog(means), None, False)[0]

    def analog_unevenly(self, x: Tensor) -> Tensor:
        """As `analog_over_time` with steps as uneven as spikes; only the mean over all steps is exact."""
        y = self.analog(x[-1] if self.domain == "mean" else x.mean(0))
        generator = torch.Generator().manual_seed(y.numel())
        shares = torch.randn(len(x), *y.shape, generator=generator).softmax(0).to(y) * len(x)
        steps = shares * y  # of one sign: the source may take the root of what it knows to be positive
        return RunningMean().run(steps, None, False)[0] if self.domain == "mean" else steps

    def fire(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """Spikes times their height; see `spiking.neurons.base.Temporal.run`."""
        raise NotImplementedError

    def run(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """`fire`, unless a calibration or a test overrides it."""
        override = _OVERRIDES.get(self)
        if override is not None:
            return override(x), None
        return self.fire(x, state, keep_state)

    @override
    def extra_repr(self) -> str:
        theta = "per channel" if self.channelwise else "one threshold"
        return f"{self.activation}, {theta}"


def sites(model: nn.Module) -> dict[str, Site]:
    """The sites of a converted network by path, in the order of execution."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, Site)}
    if not isinstance(model, fx.GraphModule):
        return found
    calls = [str(node.target) for node in model.graph.nodes if node.op == "call_module"]
    return {name: found[name] for name in calls if name in found}


_OVERRIDES: Scoped[Callable[[Tensor], Tensor] | None] = Scoped("overrides")


@contextmanager
def overridden(
    model: nn.Module, make: Callable[[str, Site], Callable[[Tensor], Tensor] | None]
) -> Iterator[None]:
    """Let functions replace the neurons of ``model`` within the block, for calls of this thread or task.

    Args:
        model: a converted network.
        make: the function for a site, ``[T, B, ...]`` -> ``[T, B, ...]``; None leaves it as it is.
    """
    with _OVERRIDES.given({site: make(name, site) for name, site in sites(model).items()}):
        yield


@contextmanager
def bypassed(model: nn.Module) -> Iterator[None]:
    """Within the block every site computes the activation of the source exactly, spread over time."""
    with overridden(model, lambda name, site: site.analog_over_time):
        yield
