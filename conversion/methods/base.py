"""What a conversion method is: settings, where neurons go, which neuron, how it is calibrated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from conversion.graph.activations import pool_before_activation
from conversion.graph.placement import at_activations
from conversion.network.annotation import Traits
from spiking.arguments import nearest, only_known
from spiking.layers import check_time_steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from conversion.calibration.batches import Batches
    from conversion.graph.placement import Placement
    from conversion.graph.program import Program
    from conversion.network.clock import Clock
    from conversion.network.network import Network
    from conversion.network.site import Site, SiteSpec
    from conversion.network.units import Domain


@dataclass(frozen=True, kw_only=True)
class Method:
    """A conversion method with its settings; one subclass a paper.

    Attributes:
        name: what a user types.
        paper: arXiv id.
        causal: whether a step depends on no later one, so that the network can stream.
        anytime: whether one pass yields accuracy at every T.
        free_time_steps: whether T can be changed after the conversion.
        counted: kinds of layers that the paper's own energy ratio is made of; empty where it gives none.
        counts_own_step: whether this ratio takes what is sent at a step for known when it meets itself in a
            product of two signals.
        before: values of settings that records of earlier versions lack: how those networks were made.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    causal: ClassVar[bool]
    anytime: ClassVar[bool]
    free_time_steps: ClassVar[bool] = True
    counted: ClassVar[frozenset[str]] = frozenset()
    counts_own_step: ClassVar[bool] = False
    before: ClassVar[Mapping[str, Any]] = {}

    @property
    def domain(self) -> Domain:
        """Whether neurons exchange steps or running means; see `conversion.network.units`."""
        return "step"

    @property
    def traits(self) -> Traits:
        """What the network has to know about the method."""
        return Traits(
            name=self.name,
            domain=self.domain,
            causal=self.causal,
            counted=self.counted,
            counts_own_step=self.counts_own_step,
        )

    def set_clock(self, clock: Clock, time_steps: int) -> None:
        """Change T of all units that share ``clock``."""
        clock.set(time_steps, self.window(time_steps), self.first(time_steps))

    def window(self, time_steps: int) -> int:
        """Steps that the network runs for an output of ``time_steps`` steps."""
        return time_steps

    def first(self, time_steps: int) -> int:
        """The step of the window at which the output begins."""
        return 0

    def latency(self, time_steps: int) -> int:
        """Steps that pass until the output of ``time_steps`` steps is there, rehearsals included."""
        return self.window(time_steps)

    def check_time_steps(self, time_steps: int, network: Network | None = None) -> None:
        """Raise an error if T cannot be ``time_steps``, or cannot be changed any more."""
        check_time_steps(time_steps)
        if network is not None and not self.free_time_steps and time_steps != network.time_steps:
            raise ValueError(
                f"{self.name} fixes T when it calibrates: this network was converted for T ="
                f" {network.time_steps}; convert the source again with time_steps={time_steps}"
            )

    def prepare(self, program: Program) -> None:
        """Change the graph before neurons are placed."""
        pool_before_activation(program)

    def place(self, program: Program, clock: Clock) -> Placement:
        """The neurons and their places."""
        return at_activations(program, lambda spec: self.site(spec, clock), self.stays_analog)

    def stays_analog(self, program: Program, node: fx.Node) -> str | None:
        """Why the activation ``node`` gets no neuron, None if it gets one."""
        return None

    def site(self, spec: SiteSpec, clock: Clock) -> Site:
        """The neuron of one site."""
        raise NotImplementedError

    def needs_data(self, network: Network) -> bool:
        """Whether `calibrate` needs images."""
        return False

    def calibrate(self, network: Network, batches: Batches | None) -> None:
        """Fill thresholds and corrections; T of ``network`` is set already."""

    def update_thresholds(self, network: Network) -> None:
        """Derive anew what depends on T, which has just been changed."""

    def remarks(self, network: Network) -> list[str]:
        """What a user should know who converts this network for its T; shown in the report, and warned of."""
        return []

    def fine_tuning(self, network: Network) -> str:
        """What training the converted network changes and what it leaves, in a sentence.

        Raises:
            ValueError: training it makes no sense; names the alternative.
        """
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return dataclasses.asdict(self)


METHODS: dict[str, type[Method]] = {}


def register_method(cls: type[Method]) -> type[Method]:
    """Make a method known by its name."""
    if cls.name in METHODS:
        raise ValueError(f"the method {cls.name!r} exists already")
    METHODS[cls.name] = cls
    return cls


def get_method(method: str | Method, settings: dict[str, Any]) -> Method:
    """The method of this name with these settings.

    Raises:
        ValueError: an unknown name, or a value that the method refuses.
        TypeError: a setting that the method does not have.
    """
    if isinstance(method, Method):
        return dataclasses.replace(method, **settings)
    cls = METHODS.get(str(method).lower().replace("-", "_"))
    if cls is None:
        near = nearest(method, METHODS)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(sorted(METHODS))}"
        raise ValueError(f"unknown conversion method {method!r}; {hint}")
    only_known(cls.name, settings, [f.name for f in dataclasses.fields(cls)], "setting")
    return cls(**settings)


def get_recorded(method: str, settings: Mapping[str, Any]) -> Method:
    """The method of a network that was made with these settings, by an earlier version maybe."""
    cls = METHODS.get(method)
    earlier = cls.before if cls is not None and settings else {}  # without any, those of today
    return get_method(method, {**earlier, **settings})


def list_methods() -> list[str]:
    """Names of all conversion methods."""
    return sorted(METHODS)
