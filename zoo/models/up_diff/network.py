"""UP-Diff (arXiv 2407.11578): the image after a planned change, from the image before and a change map.

A latent diffusion model: the UNet of Stable Diffusion 1, shown both as further input channels, as layout
tokens through gated cross-attention, and as a feature map that every spatial transformer adds.

Axes: N images, C H W channels and pixels, h w pixels of the latent, L D tokens and channels of a caption.
Images lie in [-1, 1]; a change map ``[N, 1, H, W]`` is 1 where something changes and -1 elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from spiking.arguments import integer
from zoo.base import ZooModel
from zoo.models.up_diff import start
from zoo.models.up_diff.autoencoder import IdentityAutoencoder, KLAutoencoder
from zoo.models.up_diff.captions import CaptionBuffer, LearnedCaption, embed
from zoo.models.up_diff.extra import require
from zoo.models.up_diff.fuser import GatedCrossAttention
from zoo.models.up_diff.layout import (
    ConvNeXtTiny,
    InputBranch,
    LayoutEncoder,
    LayoutMap,
    LayoutProjection,
    SmallBackbone,
)
from zoo.models.up_diff.noise import NoiseSchedule, Prediction
from zoo.models.up_diff.unet import UNetSizes, build_unet, each

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

Trained = Literal["conditioning", "all"]
LayoutInit = Literal["random", "zero"]
BACKBONES: dict[str, type[ConvNeXtTiny] | type[SmallBackbone]] = {
    "convnext_tiny": ConvNeXtTiny,
    "small": SmallBackbone,
}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the network sees beside the noisy latent; the same at every step of sampling.

    Attributes:
        channels: of the input branch, ``[N, 8, h, w]``.
        tokens: of the layout, ``[N, M, D]``.
        features: feature map of the layout, ``[N, F, h', w']``.
        caption: embedded text, ``[N, L, D]``.
    """

    channels: Tensor
    tokens: Tensor
    features: Tensor
    caption: Tensor


class UpDiff(ZooModel):
    """UP-Diff, see the head of this file.

    Args:
        image_size: pixels a side that it is trained on.
        branch_size: to which image and map are resized for the input branch: four times the latent.
        layout_size: to which they are resized for the layout.
        autoencoder: ``"kl"``: that of Stable Diffusion; ``"identity"``: the image is the latent.
        caption: ``"clip"``: two embedded captions, see `embed_captions`; ``"learned"``: learned tokens.
        backbone: of the layout: ``"convnext_tiny"``, or ``"small"`` for small images.
        channels: of each resolution of the UNet.
        attention: whether each resolution has spatial transformers.
        blocks: residual blocks of each resolution.
        heads: of all attentions.
        context: D.
        caption_length: L.
        groups: of the UNet's group norms.
        autoencoder_channels: of each resolution of the KL autoencoder; its norms have at most 32 groups.
        prediction: what it predicts, see `NoiseSchedule`.
        layout_init: ``"random"``: as published, the layout map disturbs the UNet from the start; ``"zero"``:
            at the start the network is the plain UNet.
        trained: ``"conditioning"``: gradients for what UP-Diff adds and the weight of the first convolution;
            ``"all"``: for everything but the autoencoder.

    Raises:
        ModuleNotFoundError: diffusers is missing.
        ValueError: a size or choice is wrong.
    """

    def __init__(
        self,
        image_size: int = 512,
        branch_size: int = 256,
        layout_size: int = 256,
        *,
        autoencoder: Literal["kl", "identity"] = "kl",
        caption: Literal["clip", "learned"] = "clip",
        backbone: Literal["convnext_tiny", "small"] = "convnext_tiny",
        channels: Sequence[int] = (320, 640, 1280, 1280),
        attention: Sequence[bool] = (True, True, True, False),
        blocks: int = 2,
        heads: int = 8,
        context: int = 768,
        caption_length: int = 77,
        groups: int = 32,
        autoencoder_channels: Sequence[int] = (128, 256, 512, 512),
        prediction: Prediction = "epsilon",
        layout_init: LayoutInit = "random",
        trained: Trained = "conditioning",
    ) -> None:
        super().__init__()
        require("diffusers")
        for label, value, choices in (
            ("autoencoder", autoencoder, ("kl", "identity")),
            ("caption", caption, ("clip", "learned")),
            ("backbone", backbone, tuple(BACKBONES)),
            ("layout_init", layout_init, get_args(LayoutInit)),
        ):
            _one_of(label, value, choices)
        self.image_size = integer("image_size", image_size)
        self.schedule = NoiseSchedule(prediction)
        self.autoencoder: KLAutoencoder | IdentityAutoencoder = (
            KLAutoencoder(autoencoder_channels, groups=min(32, *autoencoder_channels))
            if autoencoder == "kl"
            else IdentityAutoencoder()
        )
        latent, *_, side = self.latent_shape(image_size, image_size)
        if branch_size != 4 * side:
            raise ValueError(f"branch_size must be 4 times the latent's {side} pixels, got {branch_size}")
        self.register_buffer("latent_scale", torch.tensor(self.autoencoder.scale))
        self._shared = LayoutMap()
        sizes = UNetSizes(
            latent_channels=latent, channels=channels, attention=attention, blocks=blocks, heads=heads,
            context=context, groups=groups,
        )  # fmt: skip
        features = BACKBONES[backbone]
        self.unet = build_unet(sizes, features.channels, self._shared)
        self.layout_encoder = LayoutEncoder(
            features(), size=layout_size, channels=features.channels, stride=features.stride,
            token_channels=context,
        )  # fmt: skip
        self.input_branch = InputBranch(branch_size)
        kind = CaptionBuffer if caption == "clip" else LearnedCaption
        self.caption: CaptionBuffer | LearnedCaption = kind(caption_length, context)
        if layout_init == "zero":
            for name, parameter in self.unet.named_parameters():
                if ".proj_sem." in name:
                    nn.init.zeros_(parameter)
        self.set_trained(trained)

    def configuration(self, cfg: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The entry's facts with the sizes of this network."""
        side = self.image_size
        sizes = {"image": (3, side, side), "change_map": (1, side, side)}
        return {**cfg, **sizes, "latent": self.latent_shape(side, side)}

    # -- images and latents ------------------------------------------------------------------------

    latent_scale: Tensor

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """C, h and w of the latent of an image of ``height`` x ``width`` pixels.

        Raises:
            ValueError: the autoencoder cannot halve it as often as it does.
        """
        r = self.autoencoder.reduction
        if height % r or width % r:
            raise ValueError(f"height and width must be multiples of {r}, got {height} x {width}")
        return self.autoencoder.latent_channels, height // r, width // r

    @torch.no_grad()
    def encode(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Scaled latents ``[N, C, h, w]`` of images ``[N, 3, H, W]``, drawn from the posterior."""
        self.latent_shape(*images.shape[-2:])
        return self.autoencoder.encode(images, generator) * self.latent_scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images ``[N, 3, H, W]`` of scaled latents ``[N, C, h, w]``, not clamped."""
        return self.autoencoder.decode(latents / self.latent_scale)

    def rescale_latents(self, std: float) -> None:
        """Change the scale so that latents, now of standard deviation ``std``, have 1."""
        if not 0 < std < float("inf"):
            raise ValueError(f"the standard deviation of latents must be positive and finite, got {std}")
        self.latent_scale.div_(std)

    # -- the network -------------------------------------------------------------------------------

    def condition(
        self, before: Tensor, change: Tensor, *, layout: bool = True, caption: bool = True
    ) -> Condition:
        """What image and change map become, for any number of steps.

        Args:
            before: ``[N, 3, H, W]``.
            change: ``[N, 1, H, W]``.
            layout: False shows the layout branch zeros and the null feature; the input branch sees both.
            caption: False takes the empty caption.

        Raises:
            ValueError: shapes are wrong, or the sizes are not those of ``image_size``.
        """
        self._check(before, change)
        shown = (before, change) if layout else (torch.zeros_like(before), torch.zeros_like(change))
        mask = before.new_full((len(before),), float(layout))
        tokens, features = self.layout_encoder(*shown, mask)
        return Condition(
            channels=self.input_branch(before, change),
            tokens=tokens,
            features=features,
            caption=self.caption(len(before), empty=not caption),
        )

    def predict(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """What `NoiseSchedule.target` asks for, ``[N, C, h, w]``, from z_t of that shape and t ``[N]``."""
        if noisy.shape[-2:] != condition.channels.shape[-2:]:
            expected, got = (tuple(x.shape[-2:]) for x in (condition.channels, noisy))
            raise ValueError(f"expected a latent of {expected[0]} x {expected[1]}, got {got[0]} x {got[1]}")
        self._shared.features = condition.features
        try:
            made: Tensor = self.unet(
                torch.cat([noisy, condition.channels], 1),
                t,
                condition.caption,
                cross_attention_kwargs={"gligen": {"objs": condition.tokens}},
                return_dict=False,
            )[0]
        finally:
            self._shared.features = None
        return made

    def forward(
        self,
        noisy: Tensor,
        t: Tensor,
        before: Tensor,
        change: Tensor,
        *,
        layout: bool = True,
        caption: bool = True,
    ) -> Tensor:
        """`predict` with the `condition` of image and change map; for whole images see `sample`."""
        return self.predict(noisy, t, self.condition(before, change, layout=layout, caption=caption))

    def set_gate(self, gate: float) -> None:
        """Factor of all gates of the layout tokens: 1 in training, less at inference weakens the layout."""
        each(self.unet, GatedCrossAttention, lambda module: setattr(module, "gate", float(gate)))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations of the UNet in the backward pass."""
        super().set_grad_checkpointing(enable)
        if enable:
            self.unet.enable_gradient_checkpointing()
        else:
            self.unet.disable_gradient_checkpointing()

    # -- what is trained ---------------------------------------------------------------------------

    def set_trained(self, trained: Trained) -> None:
        """Which parameters have gradients, see the arguments of the class."""
        _one_of("trained", trained, get_args(Trained))
        self.requires_grad_(trained == "all")
        self.autoencoder.requires_grad_(False)
        for part in (self.layout_encoder, self.input_branch, self.unet.conv_in.weight):
            part.requires_grad_(True)
        each(self.unet, GatedCrossAttention, lambda module: module.requires_grad_(True))
        each(self.unet, LayoutProjection, lambda module: module.proj_sem.requires_grad_(True))

    # -- weights of others ---------------------------------------------------------------------------

    def load_autoencoder(self, path: str | Path) -> None:
        """Take the weights of an autoencoder of Stable Diffusion 1 in the layout of diffusers.

        Args:
            path: a file, its folder, or the folder above ``vae``.

        Raises:
            FileNotFoundError: there is none.
            CheckpointError: it is of another size or layout; nothing is changed.
            ValueError: this network has no autoencoder.
        """
        if isinstance(self.autoencoder, IdentityAutoencoder):
            raise ValueError(f"{self.architecture or 'this network'} works on images, without an autoencoder")
        start.fill(self.autoencoder.network, start.renamed_attention(start.read(path, "vae")), path)

    def start_from(self, path: str | Path) -> None:
        """Start from the UNet of Stable Diffusion 1.4 in the layout of diffusers.

        Its 4 input channels are copied, the 8 new ones become zero; what UP-Diff adds stays as it is.

        Args:
            path: a file, its folder, or the folder above ``unet``.

        Raises:
            FileNotFoundError: there is none.
            CheckpointError: it is of another size or layout; nothing is changed.
        """
        start.fill(self.unet, start.widened(start.read(path, "unet"), self.unet, path), path)

    def embed_captions(self, path: str | Path) -> None:
        """Embed the caption and the empty one, once, by the text encoder of Stable Diffusion 1.

        Args:
            path: its folder in the layout of diffusers, with ``text_encoder`` and ``tokenizer`` in it.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: it holds no text encoder of this size, or this network has learned captions.
        """
        if isinstance(self.caption, LearnedCaption):
            raise ValueError(f"{self.architecture or 'this network'} learns its caption; none is embedded")
        self.caption.embedded.copy_(embed(path, *self.caption.embedded.shape[1:]))

    def require_ready(self) -> None:
        """Refuse to work with captions that nobody embedded.

        Raises:
            RuntimeError: says how they are made.
        """
        if isinstance(self.caption, CaptionBuffer) and not bool(self.caption.embedded.any()):
            raise RuntimeError(
                f"{self.architecture or 'UP-Diff'} knows no captions yet: embed them once with"
                " model.embed_captions(PATH), the text encoder and tokenizer of Stable Diffusion 1"
            )

    def _check(self, before: Tensor, change: Tensor) -> None:
        if before.dim() != 4 or before.shape[1] != 3:
            raise ValueError(f"expected images N, C = 3, H, W, got {tuple(before.shape)}")
        if change.shape != (len(before), 1, *before.shape[-2:]):
            expected = (len(before), 1, *before.shape[-2:])
            raise ValueError(f"expected change maps {expected}, got {tuple(change.shape)}")
        if before.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"expected images of {self.image_size} x {self.image_size} pixels, got"
                f" {before.shape[-2]} x {before.shape[-1]}"
            )


def _one_of(label: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{label} must be {' or '.join(map(repr, choices))}, got {value!r}")
