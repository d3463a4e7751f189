"""What a conversion did, for a person to read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from conversion.network.site import sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from conversion.network.network import Network

# Of a report, what rebuilding the network does not tell.
RECALLED = {"time_steps": int, "images": int, "self_test": float, "seconds": dict, "remarks": list}


@dataclass(frozen=True)
class SiteRow:
    """One neuron: its path, the activation that it replaces, its shape and thresholds.

    ``fallback`` says which threshold stands in for a measured one, and why; empty where it was measured.
    """

    name: str
    neuron: str
    activation: str
    shape: tuple[int, ...]
    v_threshold: torch.Tensor
    fallback: str = ""

    def threshold_text(self) -> str:
        """The threshold, or the range of thresholds."""
        low, high = float(self.v_threshold.min()), float(self.v_threshold.max())
        dead = int((self.v_threshold <= 0).sum())
        text = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        return text + (f" ({dead} silent)" if dead else "")


@dataclass
class Report:
    """Sites, layers, and what stayed real-valued; ``str()`` makes a table.

    Attributes:
        method: its name and settings.
        time_steps: T when the network was converted.
        rows: one a neuron.
        analog: operations behind the first neuron that run on running means, by module path.
        skipped: activations that got no neuron, and why.
        spiking_layers: layers whose input is spikes.
        layers: all layers with weights.
        images: how many calibration images were used.
        self_test: largest difference between the ANN and the network with its neurons bypassed, relative to
            the largest logit.
        seconds: what the steps of the conversion took.
        remarks: what the method has to say about this network and this T.
    """

    method: str
    time_steps: int
    rows: list[SiteRow]
    analog: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    spiking_layers: int = 0
    layers: int = 0
    images: int = 0
    self_test: float = float("nan")
    seconds: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, thresholds as (lowest, highest), for a JSON file."""
        sites = [
            {"name": r.name, "neuron": r.neuron, "activation": r.activation, "shape": list(r.shape)}
            | {"v_threshold": [float(r.v_threshold.min()), float(r.v_threshold.max())]}
            | ({"fallback": r.fallback} if r.fallback else {})
            for r in self.rows
        ]
        plain = {k: v for k, v in vars(self).items() if k != "rows"}
        return {**plain, "sites": sites}

    def recall(self, told: Mapping[str, Any], network: Network) -> None:
        """Take over what `to_dict` told of the conversion of ``network``, whose weights are there by now.

        Thresholds are read anew. What another version tells in another way is left out.

        Args:
            told: a report as plain values, from a file.
            network: the network, rebuilt.
        """
        for key, kind in RECALLED.items():
            if isinstance(told.get(key), kind):
                setattr(self, key, told[key])
        there = sites(network)
        for row in told.get("sites") or ():
            if isinstance(row, dict) and row.get("name") in there:
                there[row["name"]].fallback = str(row.get("fallback", ""))
        self.rows = site_rows(network)

    def __str__(self) -> str:
        head = ("site", "neuron", "replaces", "shape", "threshold")
        body = [
            (r.name, r.neuron, r.activation, "x".join(map(str, r.shape)), r.threshold_text())
            for r in self.rows
        ]
        widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in (head, *body)
        ]
        rule = "-" * max(map(len, lines))
        text = [f"{self.method}, T = {self.time_steps}: {len(self.rows)} layers of neurons", ""]
        text += [lines[0], rule, *lines[1:], rule]
        text.append(f"{self.spiking_layers} of {self.layers} layers with weights receive spikes")
        if self.analog:
            text.append("on running means (expectation compensation): " + _listed(self.analog))
        if self.skipped:
            text.append("without a neuron: " + _listed(self.skipped))
        text += [f"not measured: the threshold at {r.name} is {r.fallback}" for r in self.rows if r.fallback]
        if self.images:
            text.append(f"calibrated on {self.images} images")
        text += self.remarks
        if self.self_test == self.self_test:
            text.append(f"self-test with neurons bypassed: within {self.self_test:.1e} of the source")
        return "\n".join(text)


def site_rows(network: Network) -> list[SiteRow]:
    """One row for each site of ``network``, with its thresholds as they are now."""
    return [
        SiteRow(
            name,
            type(s).__name__,
            str(s.activation),
            s.shape,
            s.v_threshold.detach().cpu().clone(),
            s.fallback,
        )
        for name, s in sites(network).items()
    ]


def _listed(items: dict[str, str], most: int = 6) -> str:
    shown = [f"{path} ({what})" for path, what in list(items.items())[:most]]
    more = len(items) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
