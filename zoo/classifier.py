"""Image classifiers: ``[B, C, H, W]`` or ``[T, B, C, H, W]`` -> logits of K classes, under timm's names.

Axes: T time, B batch, C channels, H W map, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from spiking.budget import require_memory
from zoo.base import ZooModel
from zoo.layers.checkpointing import checkpoint_block
from zoo.layers.head import StepLinear

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.layers.token_block import TokenBlock


class ImageClassifier(ZooModel):
    """A classifier with timm's names; `SpikingModel` and `AnalogModel` add how time is handled.

    Args:
        num_classes: K; 0 leaves the head out.
        in_chans: C of the input.
        time_steps: T for still images; a sequence brings its own.
        num_features: channels of the last stage.

    Attributes:
        classifier_name: path of the layer that makes logits.
        check_finite: set False to skip the test for NaN in the input (one pass over it).
        label_names: of the classes, in the order of the logits.
    """

    recorded: ClassVar[tuple[str, ...]] = ("num_classes", "in_chans", "time_steps")
    classifier_name: str = "classifier"
    check_finite: bool = True
    label_names: list[str] | None = None

    def __init__(self, *, num_classes: int, in_chans: int, time_steps: int, num_features: int) -> None:
        super().__init__()
        for label, value, low in (
            ("num_classes", num_classes, 0),
            ("in_chans", in_chans, 1),
            ("time_steps", time_steps, 1),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ValueError(f"{label} must be an integer of at least {low}, got {value!r}")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.time_steps = time_steps
        self.num_features = self.head_hidden_size = num_features
        self.feature_info: list[dict[str, Any]] = []

    def configuration(self, cfg: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The entry's, with K and with ``(C, H, W)`` as the caller asked for them."""
        size = arguments.get("img_size")
        height, width = cfg["input_size"][1:] if size is None else _pair(size)
        own = {"input_size": (self.in_chans, height, width), "num_classes": self.num_classes}
        other = self.in_chans != cfg["input_size"][0]  # statistics are those of other images then
        return {k: v for k, v in cfg.items() if not (other and k in ("mean", "std"))} | own

    # -- what a kind of model writes -----------------------------------------------------------

    def encode(self, x: Tensor) -> Tensor:
        """Check the input and run the stem."""
        raise NotImplementedError

    def stages(self) -> Sequence[nn.Module]:
        """The modules after the stem, in order: those that ``feature_info`` names."""
        return [self.get_submodule(info["module"]) for info in self.feature_info]

    # -- what all share ------------------------------------------------------------------------

    def forward_features(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` or ``[T, B, C, H, W]`` -> features ``[T, B, C', H', W']``.

        Analog models have no T there: ``[B, C', H', W']``, or ``[T * B, C', H', W']`` of a sequence.
        """
        x = self.encode(x)
        for stage in self.stages():
            x = self.run_stage(stage, x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features ``[..., C, H, W]`` -> mean over the map -> logits ``[..., K]``."""
        x = x.mean(dim=(-2, -1))
        return x if pre_logits else self.get_classifier()(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Outputs of the stages, each in the shape of `forward_features`.

        Args:
            x: input, as for `forward`.
            indices: which stages; an integer means the last so many, ``None`` all.
            intermediates_only: leave the final features out of the answer.

        Returns:
            The list of outputs, or ``(features, list)``.
        """
        stages = self.stages()
        wanted = _stage_indices(indices, len(stages))
        outputs: list[Tensor] = []
        x = self.encode(x)
        for index, stage in enumerate(stages):
            if intermediates_only and wanted and index > max(wanted):
                break
            x = self.run_stage(stage, x)
            if index in wanted:
                outputs.append(x)
        return outputs if intermediates_only else (x, outputs)

    def run_stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        """One stage, block by block under activation checkpointing if that is on."""
        if not (self.grad_checkpointing and self.training and torch.is_grad_enabled()):
            y: Tensor = stage(x)
            return y
        blocks = stage if isinstance(stage, nn.Sequential) else [stage]
        for block in blocks:
            x = checkpoint_block(block, x)
        return x

    def get_classifier(self) -> nn.Module:
        """The layer that makes logits."""
        return self.get_submodule(self.classifier_name)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """A new classifier; families with another initialisation or a bias override it."""
        return StepLinear(self.num_features, num_classes) if num_classes else nn.Identity()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a fresh one with ``num_classes`` outputs (0 removes it)."""
        if global_pool not in (None, "", "avg"):
            raise ValueError(f"global_pool {global_pool!r} is not supported; only 'avg' is")
        reference = next(self.parameters())
        new = self.make_classifier(num_classes).to(reference.device, reference.dtype)
        parent, _, child = self.classifier_name.rpartition(".")
        setattr(self.get_submodule(parent), child, new)
        self.num_classes = num_classes
        self.model_args["num_classes"] = num_classes
        self.label_names = None

    def check_input(self, x: Tensor) -> None:
        """Raise an error that names axes if ``x`` cannot be an input of this model."""
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"expected a tensor [B, C, H, W] or [T, B, C, H, W], got {type(x).__name__}")
        shape = tuple(x.shape)
        if x.dim() not in (4, 5):
            hint = "; add the batch axis with x.unsqueeze(0)" if x.dim() == 3 else ""
            raise ValueError(f"expected [B, C, H, W] or [T, B, C, H, W], got {x.dim()} axes {shape}{hint}")
        if shape[-3] != self.in_chans:
            axes = "[B, C, H, W]" if x.dim() == 4 else "[T, B, C, H, W]"
            raise ValueError(
                f"expected C = {self.in_chans} channels in {axes}, got C = {shape[-3]} in {shape};"
                f" build the model with in_chans={shape[-3]} if that is the data"
            )
        if torch.compiler.is_compiling():
            return  # what follows looks at values or would fix the batch size of the graph
        if not x.is_floating_point():
            raise TypeError(
                f"expected a floating-point input, got {x.dtype}; scale and normalise it first,"
                " e.g. x.float() / 255"
            )
        weight = next(self.parameters(), None)
        if weight is not None and weight.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(
                f"the input is {x.dtype} but the weights are {weight.dtype};"
                f" use x.to({weight.dtype}) or model.to({x.dtype})"
            )
        if x.numel() == 0:
            raise ValueError(f"empty input {shape}: every axis needs at least one element")
        if self.check_finite and x.device.type != "meta" and not bool(x.detach().sum().isfinite()):
            bad = int((~x.detach().isfinite()).sum())
            if bad:  # a half-precision sum can overflow where every entry is finite
                raise ValueError(
                    f"{bad} of {x.numel()} input values are NaN or infinite; neurons would turn"
                    " them into silence, so they are refused"
                )


class SpikingModel(ImageClassifier):
    """A classifier over ``[B, C, H, W]`` still images or ``[T, B, C, H, W]`` sequences.

    A subclass calls ``super().__init__(...)``, builds its layers, fills ``feature_info``
    (one ``{"num_chs", "reduction", "module"}`` a stage) and implements

    * ``forward_stem(x, repeats)``: the first convolution and norm, ``[T', B, C, H, W]`` ->
      ``[T', B, C', H', W']``. A still image arrives as one step with ``repeats = T``, and the norm
      takes that factor, so that the stem runs once instead of T times; or ``encode(x)``, where a neuron
      follows in one pass with the norm;
    * the stages, the modules that ``feature_info`` names: they run after the stem, in order, each
      mapping ``[T, B, C, H, W]`` to ``[T, B, C', H', W']``.

    Its arguments are those of `ImageClassifier`.
    """

    takes_time_steps: ClassVar[bool] = True
    mean_frame: bool = False  # whether the frames of a sequence are averaged into one still image

    # -- what a family writes ------------------------------------------------------------------

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """First convolution and norm: ``[T', B, C, H, W]`` -> ``[T', B, C', H', W']``."""
        raise NotImplementedError

    def token_blocks(self) -> Sequence[TokenBlock]:
        """Blocks that can run on part of their tokens, in order; none unless a family lists them."""
        return []

    # -- what all share ------------------------------------------------------------------------

    def encode(self, x: Tensor) -> Tensor:
        """Check the input and run the stem: a still image once, then expanded over T (a view)."""
        x, repeats = self.unrolled(x)
        y = self.forward_stem(x, repeats=repeats)
        if repeats == 1:
            return y
        require_memory(
            f"the first layer's output over time_steps = {self.time_steps}, {tuple(y.shape[1:])} a step,",
            self.time_steps * y.numel() * y.element_size(),
            y.device,
            "use fewer time_steps or a smaller batch",
        )
        return y.expand(self.time_steps, *y.shape[1:])

    def unrolled(self, x: Tensor) -> tuple[Tensor, int]:
        """The checked input as ``[T', B, C, H, W]``, and for how many equal steps each of them stands."""
        self.check_input(x)
        if x.dim() == 5 and not self.mean_frame:
            return x, 1
        return (x.unsqueeze(0) if x.dim() == 4 else x.mean(0, keepdim=True)), self.time_steps

    def forward(self, x: Tensor, *, steps: bool = False) -> Tensor:
        """Logits: their mean over T, ``[B, K]``, or with ``steps=True`` all, ``[T, B, K]``."""
        logits = self.forward_head(self.forward_features(x))
        return logits if steps else logits.mean(dim=0)


class AnalogModel(ImageClassifier):
    """A classifier without neurons: the source of a conversion, with the entry point of all models.

    A subclass is written as `SpikingModel` says, without the time axis: ``forward_stem(x)`` and the
    stages map ``[B, C, H, W]`` to ``[B, C', H', W']``, and nothing may depend on B, so that exported
    programs take any. T is 1; the frames of a sequence are independent of each other.
    """

    def __init__(self, *, num_classes: int, in_chans: int, num_features: int) -> None:
        super().__init__(num_classes=num_classes, in_chans=in_chans, time_steps=1, num_features=num_features)

    def forward_stem(self, x: Tensor) -> Tensor:
        """What comes before the stages, if anything: ``[B, C, H, W]`` -> ``[B, C', H', W']``."""
        return x

    def encode(self, x: Tensor) -> Tensor:
        """Check the input, fold a sequence to ``[T * B, C, H, W]``, and run the stem."""
        self.check_input(x)
        return self.forward_stem(x if x.dim() == 4 else x.flatten(0, 1))

    def forward(self, x: Tensor, *, steps: bool = False) -> Tensor:
        """Logits ``[B, K]``, of a sequence their mean over T; with ``steps=True`` all, ``[T, B, K]``."""
        logits = self.forward_head(self.forward_features(x))
        if x.dim() == 4:
            return logits.unsqueeze(0) if steps else logits
        logits = logits.reshape(*x.shape[:2], *logits.shape[1:])
        return logits if steps else logits.mean(dim=0)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _stage_indices(indices: int | Sequence[int] | None, count: int) -> set[int]:
    if indices is None:
        return set(range(count))
    if isinstance(indices, int):
        if not 1 <= indices <= count:
            raise ValueError(f"indices={indices} asks for the last {indices} of {count} stages")
        return set(range(count - indices, count))
    wanted = {i + count if i < 0 else i for i in indices}
    if any(not 0 <= i < count for i in wanted):
        raise ValueError(f"stage indices {list(indices)} are out of range for {count} stages")
    return wanted
