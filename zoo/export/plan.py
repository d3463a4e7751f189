"""What is traced of a network, and what the file is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.export.interface import interface_of
from zoo.export.step import driven, one_step

if TYPE_CHECKING:
    from torch import nn

    from zoo.export.ports import Interface, Run
    from zoo.export.request import Request


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Two views of a network.

    Attributes:
        traced: what the file holds.
        compared: what it should amount to, computed by the network itself.
    """

    traced: Interface
    compared: Interface

    def whole(self, run: Run) -> Run:
        """What ``run``, the file, amounts to: itself, or its steps one after the other."""
        return run if self.traced is self.compared else driven(self.traced, run)


def plan_of(model: nn.Module, request: Request) -> Plan:
    """How ``model`` is written.

    Raises:
        ExportError: it has no such form.
    """
    whole = interface_of(model, request.sequence, request.step)
    if not request.step:
        return Plan(traced=whole, compared=whole)
    request.say("looking at the states of all neurons")
    traced, compared = one_step(model, whole)
    return Plan(traced=traced, compared=compared)
