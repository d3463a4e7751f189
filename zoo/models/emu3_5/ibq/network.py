"""IBQ, the vision tokenizer of Emu3.5: images as grids of codes, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from zoo.base import ZooModel
from zoo.models.emu3_5.ibq.blocks import Decoder, Encoder
from zoo.models.emu3_5.ibq.quantizer import IndexPropagation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.models.emu3_5.ibq.quantizer import Quantized


class IBQ(ZooModel):
    """Autoencoder with K codes between encoder and decoder (Emu3.5, arXiv 2510.26583; IBQ, 2412.02692).

    Images are float ``[N, C, H, W]`` in [-1, 1], codes int64 ``[N, H/f, W/f]`` with f = 2^(levels - 1).

    Args:
        codes: K.
        embed_dim: width of a code's vector.
        z_channels: of the encoder's output.
        in_chans: C of the images that go in.
        out_chans: C of those that come out.
        channels: of the first level.
        multipliers: of the channels, one a level, that of the full resolution first.
        blocks: residual blocks of a level.
        attention: sides of feature maps that get attention, for images of ``resolution``.
        resolution: side of the images that ``attention`` counts from; other sizes work as well.
        groups: of the norms.
        dropout: inside residual blocks.
        beta: weight of what draws the features to the codes.
        temperature: of the entropy term.
        spread: numbers of the codes begin uniform in [-spread, spread]; 1 / K if missing, as published. Codes
            that begin so small tell softmax and encoder next to nothing for hundreds of steps.
    """

    def __init__(
        self,
        codes: int = 131_072,
        embed_dim: int = 256,
        z_channels: int = 256,
        in_chans: int = 3,
        out_chans: int = 3,
        channels: int = 256,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        blocks: int = 4,
        attention: Sequence[int] = (16,),
        resolution: int = 256,
        groups: int = 32,
        dropout: float = 0.0,
        beta: float = 0.25,
        temperature: float = 0.01,
        spread: float | None = None,
    ) -> None:
        super().__init__()
        widths = [channels * m for m in multipliers]
        looks = [resolution // 2**n in tuple(attention) for n in range(len(widths))]
        self.codes = codes
        self.in_chans = in_chans
        self.factor = 2 ** (len(widths) - 1)
        self.encoder = Encoder(in_chans, z_channels, widths, channels, blocks, looks, groups, dropout)
        self.decoder = Decoder(out_chans, z_channels, widths, blocks, looks, groups, dropout)
        self.quantize = IndexPropagation(codes, embed_dim, beta, temperature, spread)
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    @property
    def described(self) -> dict[str, Any] | None:
        """Entry and plain arguments that build the like; None for one that no entry built."""
        if not self.architecture:
            return None
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in self.model_args.items()}
        return {"model": self.architecture, "model_args": plain}

    def forward(self, images: Tensor) -> Tensor:
        """Images there and back: ``[N, C, H, W]`` -> the same shape."""
        return self.decode(self.quantized(images).z)

    def features(self, images: Tensor) -> Tensor:
        """What is quantised, ``[N, D, H/f, W/f]``.

        Raises:
            ValueError: another number of channels, or a side that f does not divide.
        """
        if images.dim() != 4 or images.shape[1] != self.in_chans:
            raise ValueError(
                f"images must be [N, {self.in_chans}, H, W] in [-1, 1], got {tuple(images.shape)}"
            )
        if any(side % self.factor for side in images.shape[2:]):
            raise ValueError(
                f"the sides of images must be multiples of {self.factor}, got "
                f"{images.shape[2]} x {images.shape[3]}; resize or pad them"
            )
        out: Tensor = self.quant_conv(self.encoder(images))
        return out

    def quantized(self, images: Tensor, *, entropy: bool = False) -> Quantized:
        """Vectors, codes and, in training mode, the losses of ``images [N, C, H, W]``."""
        found: Quantized = self.quantize(self.features(images), entropy=entropy)
        return found

    def encode(self, images: Tensor) -> Tensor:
        """Codes, int64 ``[N, H/f, W/f]``, of images."""
        return self.quantized(images).codes

    def decode(self, z: Tensor) -> Tensor:
        """Images ``[N, C, f h, f w]`` of vectors ``[N, D, h, w]``."""
        out: Tensor = self.decoder(self.post_quant_conv(z))
        return out

    def decode_code(self, codes: Tensor) -> Tensor:
        """Images ``[N, C, f h, f w]`` of ``codes [N, h, w]``.

        Raises:
            ValueError: not a batch of grids, or a code that there is not.
        """
        if codes.dim() != 3:
            raise ValueError(f"codes must be [N, h, w], got {tuple(codes.shape)}")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codes:
            raise ValueError(
                f"codes must lie in 0..{self.codes - 1}, got {int(codes.min())}..{int(codes.max())}; "
                "the ids of a language model begin at its vocabulary's first_visual"
            )
        return self.decode(self.quantize.entry(codes))
