"""Firing rates, measured with hooks that live no longer than a ``with`` block.

Axes: T time, B batch, L layers of neurons, N neurons of one layer.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from spiking.context import Hooks, SharedSwitch
from spiking.neurons.base import Neuron

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

EAGER = SharedSwitch(lambda: torch.compiler.set_stance("force_eager"))
EXACT_FLOAT32 = 2**24  # up to here a float32 sum of zeros and ones is exact


class HookedModules:
    """A context manager that watches the forward passes of some modules.

    Hooks are set on entering and removed on leaving, also after an exception. They see the calls of the
    thread or task that entered the block, and of no copy of the model. A model that ``torch.compile`` wraps
    runs uncompiled in between, since compiled code does not call hooks.

    Args:
        model: where to look.
        kinds: classes of the modules to watch.

    Raises:
        ValueError: the model is spread over several devices by ``nn.DataParallel``.

    Attributes:
        names: paths of the watched modules, in the order of ``model.named_modules()``.
    """

    def __init__(self, model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
        for part in model.modules():
            if isinstance(part, nn.DataParallel) and len(part.device_ids) > 1:
                raise ValueError(
                    f"{type(self).__name__} cannot watch nn.DataParallel, whose replicas run in threads of"
                    " their own; watch the model inside it, model.module"
                )
        self.model = model
        self._watched = {
            name.replace("_orig_mod.", ""): module
            for name, module in model.named_modules()
            if isinstance(module, kinds)
        }
        self._exit: ExitStack | None = None

    @property
    def names(self) -> list[str]:
        """Paths of the watched modules; "" is the model itself."""
        return list(self._watched)

    def see(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Called after each forward pass of a watched module."""
        raise NotImplementedError

    def prepare(self, stack: ExitStack, hooks: Hooks) -> None:
        """Called on entering, after the hooks are set; ``stack`` undoes on leaving what is added to it."""

    def begin(self, model: nn.Module, inputs: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        """Called before each forward pass of the whole model."""

    def __enter__(self) -> Self:
        if self._exit is not None:
            raise RuntimeError(f"this {type(self).__name__} is already active; make a second one")
        with ExitStack() as stack:
            if any(_compiled(module) for module in self.model.modules()):
                stack.enter_context(EAGER.held())
            hooks = Hooks(stack)
            hooks.before(self.model, self.begin, with_kwargs=True)
            for name, module in self._watched.items():
                hooks.after(module, self._hook(name))
            self.prepare(stack, hooks)
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stack, self._exit = self._exit, None
        if stack is not None:
            stack.close()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            with torch.no_grad():
                self.see(name, module, inputs, output)

        return hook


class FiringRateMonitor(HookedModules):
    """Spikes per neuron and step in every layer of neurons, over all calls inside the block.

    Outputs that carry the threshold are divided by it, so a step of LM-HT may count several spikes; in
    converted networks, whose heights differ from channel to channel, every value but 0 is one spike. Counts
    stay on the device of the spikes until asked for, so that nothing waits for it. A path is listed once its
    layer has run.

    >>> from spiking.neurons import LIF
    >>> neuron = LIF(tau=2.0)
    >>> with FiringRateMonitor(neuron) as monitor:
    ...     spikes = neuron(torch.full((4, 2, 3), 1.5))
    >>> monitor.rates()
    {'': 0.5}

    Args:
        model: the model.
        raster: keep the spikes of sample 0 of the first call: of all layers, or of those named.

    Raises:
        ValueError: the model holds no neurons, or ``raster`` names a module that is none.
    """

    def __init__(self, model: nn.Module, raster: bool | Sequence[str] = False) -> None:
        super().__init__(model, (Neuron,))
        if not self._watched:
            raise ValueError(f"{model._get_name()} contains no spiking neurons, so it has no firing rate")
        if isinstance(raster, str):
            raster = [raster]
        wanted = self.names if raster is True else list(raster or ())
        for name in wanted:
            if name not in self._watched:
                raise ValueError(f"no neuron at {name!r}; the neurons are {', '.join(self.names)}")
        self._raster_names = frozenset(wanted)
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._spikes: dict[str, Tensor] = {}  # [T] float64, on the device of the layer
        self._elements: dict[str, list[int]] = {}
        self._rasters: dict[str, Tensor] = {}

    def see(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Add the spikes ``[T, B, ...]`` of one call."""
        assert isinstance(module, Neuron)
        spikes = module.fired(output.detach())
        steps = spikes.shape[0]
        each = spikes.numel() // max(steps, 1)
        value = module.spike_value
        plain = isinstance(value, float)  # zeros and ones
        exact = plain and each <= EXACT_FLOAT32 and spikes.dtype != torch.float64
        wide = torch.float32 if exact else torch.float64
        sums = spikes.sum(dim=tuple(range(1, spikes.dim())), dtype=wide).double() / value
        known = self._spikes.get(name)
        counts = self._elements.setdefault(name, [])
        counts.extend([0] * (steps - len(counts)))
        for t in range(steps):
            counts[t] += each
        if known is None:
            self._spikes[name] = sums
        elif known.shape[0] == steps:
            known += sums
        else:  # sequences of unequal length
            longest = max(known.shape[0], steps)
            self._spikes[name] = _padded(known, longest) + _padded(sums, longest)
        if name in self._raster_names and name not in self._rasters:
            self._rasters[name] = (spikes[:, 0].flatten(1) / value).to("cpu", copy=True)

    def counts(self) -> Tensor:
        """Spikes and neurons seen at every layer and step, ``[L, T, 2]`` float64, L as in ``names``.

        Layers that did not run, and steps that a layer did not reach, hold zeros. Sums over
        processes are sums of these tensors: pass an all-reduce as ``reduce`` below.
        """
        steps = max((len(c) for c in self._elements.values()), default=0)
        device = next((s.device for s in self._spikes.values()), torch.device("cpu"))
        table = torch.zeros(len(self._watched), steps, 2, dtype=torch.float64, device=device)
        for row, name in zip(table, self.names, strict=True):
            if name in self._spikes:
                known = self._elements[name]
                row[: len(known), 0] = self._spikes[name].to(device)
                row[: len(known), 1] = torch.tensor(known, dtype=torch.float64)
        return table

    def rates(self, reduce: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """Mean spikes per neuron and step, by path.

        Args:
            reduce: sums a tensor over processes, for instance ``trainer.strategy.reduce`` with
                ``reduce_op="sum"``; every process must then call this.
        """
        table = self.counts().sum(dim=1)
        table = table if reduce is None else reduce(table)
        rows = zip(self.names, table.tolist(), strict=True)
        return {name: spikes / seen for name, (spikes, seen) in rows if seen}

    def rates_per_step(self, reduce: Callable[[Tensor], Tensor] | None = None) -> dict[str, Tensor]:
        """Mean spikes per neuron at every step, ``[T]`` float64 on the CPU, by path."""
        table = self.counts()
        table = (table if reduce is None else reduce(table)).cpu()
        rows = zip(self.names, table, strict=True)
        return {name: row[row[:, 1] > 0, 0] / row[row[:, 1] > 0, 1] for name, row in rows if row[:, 1].any()}

    def rate(self, reduce: Callable[[Tensor], Tensor] | None = None) -> float:
        """Mean spikes per neuron and step of the whole model, each neuron counted alike.

        Raises:
            RuntimeError: no neuron has run yet.
        """
        total = self.counts().sum(dim=(0, 1))
        spikes, seen = (total if reduce is None else reduce(total)).tolist()
        if not seen:
            raise RuntimeError("no neuron has run inside the with block yet, so there is no firing rate")
        return float(spikes / seen)

    def rasters(self) -> dict[str, Tensor]:
        """Spikes of sample 0 of the first call, ``[T, N]`` on the CPU, by path."""
        return dict(self._rasters)


def _padded(x: Tensor, length: int) -> Tensor:
    return nn.functional.pad(x, (0, length - x.shape[0]))


def _compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
