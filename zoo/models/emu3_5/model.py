"""Emu3.5's decoder: Qwen3 over a vocabulary of text and image codes; needs the extra ``multimodal``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.base import ZooModel
from zoo.build import build_model
from zoo.models.emu3_5.vocabulary import tiny_vocabulary
from zoo.registry import register_model

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.models.emu3_5.vocabulary import Vocabulary


def qwen3(vocabulary: Vocabulary, **config: Any) -> Any:
    """``Qwen3ForCausalLM`` of transformers over a vocabulary, with random weights.

    Raises:
        ImportError: transformers is missing.
    """
    try:
        from transformers import Qwen3Config, Qwen3ForCausalLM
    except ImportError as error:
        raise ImportError("Emu3.5 needs transformers: pip install 'fulgurite[multimodal]'") from error
    made = Qwen3Config(
        vocab_size=vocabulary.size,
        pad_token_id=vocabulary.pad,
        bos_token_id=vocabulary.bos,
        eos_token_id=vocabulary.eos,
        tie_word_embeddings=False,
        **config,
    )
    return Qwen3ForCausalLM(made)


class TinyEmu35(ZooModel):
    """A small model of text and images: ids ``[B, L]`` -> logits ``[B, L, V]``.

    Args:
        visual_codes: number of image codes.
        layers: of the decoder.
        width: of its residual stream.
        ffn: hidden width of its feed-forward layers.
        heads: of queries.
        kv_heads: of keys and values.
        head_dim: width of a head.
        context: most tokens of a sequence.
        rope_theta: base of the rotary positions.
    """

    def __init__(
        self,
        visual_codes: int = 9,
        layers: int = 4,
        width: int = 64,
        ffn: int = 160,
        heads: int = 4,
        kv_heads: int = 2,
        head_dim: int = 16,
        context: int = 512,
        rope_theta: float = 1e4,
    ) -> None:
        super().__init__()
        self.vocabulary = tiny_vocabulary(visual_codes)
        self.context = context
        self.decoder = qwen3(
            self.vocabulary,
            hidden_size=width,
            intermediate_size=ffn,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            max_position_embeddings=context,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[B, L, V]`` of what follows each of the ``tokens [B, L]``."""
        logits: Tensor = self.decoder(input_ids=tokens, use_cache=False).logits
        return logits


@register_model(
    paper="2510.26583",
    task="language",
    cfg={"context": 512, "output": "text and images"},
    small={"layers": 1, "width": 16, "ffn": 24, "heads": 2, "kv_heads": 1, "head_dim": 8},
)
def emu3_5_tiny(**kwargs: Any) -> TinyEmu35:
    """0.18 M parameters: Emu3.5's architecture at the size of a toy, for digits as text and image."""
    return build_model(TinyEmu35, "emu3_5_tiny", {}, **kwargs)
