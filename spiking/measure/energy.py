"""Reports of operations and energy of a spiking network, layer by layer.

A layer whose input is spikes only adds: one synaptic operation (SOP) for every spike and weight that
meet. A layer whose input is real-valued multiplies and adds: a MAC for every weight and position. Both
include the positions that fall on zero padding; see `spiking.measure.operations`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# 45 nm, 0.9 V, 32-bit floating point: M. Horowitz, "Computing's energy problem (and what we can do
# about it)", ISSCC 2014: multiplication 3.7 pJ, addition 0.9 pJ.
E_MAC = 4.6  # pJ
E_AC = 0.9  # pJ

# operators that stand in a network where a neuron could: their values are no spikes
_ACTIVATIONS = """
    relu relu6 hardtanh gelu silu sigmoid log_sigmoid tanh hardswish hardsigmoid leaky_relu elu celu selu mish
    softplus softsign prelu rrelu threshold clamp clamp_min clamp_max maximum minimum hardshrink glu
"""
ACTIVATIONS = frozenset(_ACTIVATIONS.split())


@dataclass(frozen=True, kw_only=True)
class LayerEnergy:
    """What one layer does for one sample over all T.

    Attributes:
        name: path in the model.
        kind: ``conv``, ``linear`` or ``matmul``.
        input: ``spikes``, ``analog``, or ``mixed`` where calls differed.
        macs: multiply-accumulates, from analog inputs.
        sops: additions, from spikes.
        firing_rate_in: mean spikes per input element and step; None for analog input.
        dense_macs: MACs that the layer would need over all T if nothing were sparse.
        ann_macs: the same for a single pass, as in an ANN.
        padding: share of ``dense_macs`` that falls on zero padding; ``sops * (1 - padding)`` are the
            additions without it.
    """

    name: str
    kind: str
    input: str
    macs: float
    sops: float
    firing_rate_in: float | None
    dense_macs: float
    ann_macs: float
    padding: float = 0.0

    @property
    def energy_pj(self) -> float:
        """Energy in pJ: 4.6 a MAC, 0.9 a SOP."""
        return E_MAC * self.macs + E_AC * self.sops


@dataclass(frozen=True, kw_only=True)
class EnergyReport:
    """Operations and energy for one sample; ``str()`` makes a table.

    Attributes:
        rows: one a layer, in the order of first use.
        samples: over how many samples the numbers are averaged.
        uncounted: what else is computed for one sample over all T, and not charged: values that each operator
            gives out, by its name (``softmax``, ``layer_norm``, ``neuron updates``, ...).
    """

    rows: tuple[LayerEnergy, ...]
    samples: int = 1
    uncounted: Mapping[str, float] = field(default_factory=dict)

    @property
    def analog_activations(self) -> tuple[str, ...]:
        """Operators that act as activations on real values, which no neuron stands for."""
        return tuple(name for name in self.uncounted if name in ACTIVATIONS)

    @property
    def macs(self) -> float:
        """Multiply-accumulates of layers with analog input."""
        return sum(row.macs for row in self.rows)

    @property
    def sops(self) -> float:
        """Synaptic operations: additions caused by spikes."""
        return sum(row.sops for row in self.rows)

    @property
    def energy_pj(self) -> float:
        """Energy in pJ."""
        return sum(row.energy_pj for row in self.rows)

    @property
    def energy_mj(self) -> float:
        """Energy in mJ."""
        return self.energy_pj * 1e-9

    @property
    def ann_macs(self) -> float:
        """MACs of the same network as an ANN: every layer dense, one pass."""
        return sum(row.ann_macs for row in self.rows)

    @property
    def ann_energy_mj(self) -> float:
        """Energy of the same network as an ANN, in mJ."""
        return self.ann_macs * E_MAC * 1e-9

    def without(self, *names: str) -> EnergyReport:
        """The report without some layers, by path."""
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                raise ValueError(f"no counted layer {name!r}; there are {', '.join(known)}")
        return replace(self, rows=tuple(row for row in self.rows if row.name not in names))

    def inner(self) -> EnergyReport:
        """The report without the first and the last layer, which papers usually leave out."""
        return replace(self, rows=self.rows[1:-1])

    def to_dict(self) -> dict[str, Any]:
        """Totals, constants and rows as plain values."""
        totals = ("macs", "sops", "energy_pj", "energy_mj", "ann_macs", "ann_energy_mj")
        return {
            **{name: getattr(self, name) for name in totals},
            "samples": self.samples,
            "uncounted": dict(self.uncounted),
            "pj_per_mac": E_MAC,
            "pj_per_sop": E_AC,
            "layers": [{**asdict(row), "energy_pj": row.energy_pj} for row in self.rows],
        }

    def __str__(self) -> str:
        head = ("layer", "kind", "input", "rate in", "MACs", "SOPs", "energy")
        lines = [
            (
                row.name or "(model)",
                row.kind,
                row.input,
                "-" if row.firing_rate_in is None else f"{row.firing_rate_in:.4f}",
                _short(row.macs),
                _short(row.sops),
                _joule(row.energy_pj),
            )
            for row in self.rows
        ]
        total = ("total", "", "", "", _short(self.macs), _short(self.sops), _joule(self.energy_pj))
        text = _table([head, *lines, total])
        ratio = f" ({self.energy_mj / self.ann_energy_mj:.2f} of it)" if self.ann_energy_mj else ""
        inner = self.inner()
        others = ", ".join(f"{name} {_short(n)}" for name, n in self.uncounted.items())
        analog = ", ".join(self.analog_activations)
        words = (
            f"real-valued activations, without neurons: {analog}; what they feed multiplies, and is no spike"
        )
        return "\n".join(
            [
                text,
                "",
                f"per sample over all time steps; {E_MAC} pJ a MAC, {E_AC} pJ an addition"
                " (45 nm, Horowitz, ISSCC 2014); no memory traffic",
                f"the same network as an ANN, one pass: {_short(self.ann_macs)} MACs,"
                f" {_joule(self.ann_macs * E_MAC)}{ratio}",
                f"without the first and the last layer, as papers count: {_short(inner.sops)} SOPs,"
                f" {_short(inner.macs)} MACs, {_joule(inner.energy_pj)}",
                f"not counted, in values given out: {others or 'nothing'}",
                *([words] if analog else ()),
            ]
        )


def _short(value: float) -> str:
    for limit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3f}{suffix}"
    return f"{value:.4g}"


def _joule(picojoule: float) -> str:
    for limit, suffix in ((1e9, " mJ"), (1e6, " uJ"), (1e3, " nJ")):
        if picojoule >= limit:
            return f"{picojoule / limit:.3f}{suffix}"
    return f"{picojoule:.4g} pJ"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns aligned: the first three to the left, numbers to the right; rules around the body."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
