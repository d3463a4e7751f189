"""What all models of the zoo have, whatever their task: a name, arguments, weights with an origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from spiking.neurons import Neuron

if TYPE_CHECKING:
    from collections.abc import Mapping


class ZooModel(nn.Module):
    """A network that an entry of the zoo builds from plain values.

    It knows nothing about inputs and outputs: a kind of model does, such as `zoo.ImageClassifier`, and the
    entry's task (`zoo.tasks.Task`) says how they are told to people.

    Attributes:
        recorded: arguments whose present value always belongs to ``model_args``, given or not.
        takes_time_steps: whether the network runs over T steps.
        time_steps: T.
        architecture: name of the entry, set by `zoo.build_model`.
        model_args: plain arguments with which the entry builds this network again.
        default_cfg: what the entry says about inputs and preprocessing, under timm's names.
        pretrained_cfg: the same for the weights at hand.
        origin: ``name``, ``licence`` and ``url`` of the weights that were loaded; empty if it is known that
            they derive from nobody's.
        task: what the network was trained for (`zoo.list_tasks`), where its entry is for something else.
    """

    recorded: ClassVar[tuple[str, ...]] = ()
    takes_time_steps: ClassVar[bool] = False
    time_steps: int = 1
    architecture: str = ""
    model_args: dict[str, Any]
    default_cfg: dict[str, Any]
    pretrained_cfg: dict[str, Any]
    origin: dict[str, Any] | None = None
    task: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.model_args = {}
        self.default_cfg = self.pretrained_cfg = {}

    def configuration(self, cfg: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What ``default_cfg`` becomes.

        Args:
            cfg: of the entry, for its default arguments.
            arguments: those of the caller.
        """
        return dict(cfg)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass: less memory, identical gradients."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay must leave alone (beyond 0-d and 1-d ones)."""
        return {
            f"{path}.{name}"
            for path, module in self.named_modules()
            if isinstance(module, Neuron)
            for name in module.parameter_names
        }

    def after_import(self) -> None:
        """Called once weights that the zoo did not write have been loaded."""
