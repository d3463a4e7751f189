"""Emu3.5's decoder: Qwen3 over a vocabulary of text and image codes; needs the extra ``multimodal``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from zoo.base import ZooModel
from zoo.build import build_model
from zoo.models.emu3_5.dida.path import MetricPath, MixturePath
from zoo.models.emu3_5.ibq import IBQ, Codec, tokenizer_of
from zoo.models.emu3_5.levels import Levels
from zoo.models.emu3_5.low_rank import merged
from zoo.models.emu3_5.vocabulary import emu3_5_vocabulary, tiny_vocabulary
from zoo.registry import register_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.models.emu3_5.dida.path import NoisePath
    from zoo.models.emu3_5.vocabulary import Vocabulary

CALL = (
    "from zoo.models.emu3_5 import Pipeline\n\n"
    'answer = Pipeline(model)("digit 3")  # answer.text, answer.images'
)
VOCABULARIES = {"emu3_5": emu3_5_vocabulary, "tiny": tiny_vocabulary}


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


class Emu35(ZooModel):
    """A model of text and images: ids ``[B, L]`` -> logits ``[B, L, V]``.

    Args:
        vocabulary: ``"emu3_5"``, that of the published model, or ``"tiny"``.
        visual_codes: number of image codes.
        layers: of the decoder.
        width: of its residual stream.
        ffn: hidden width of its feed-forward layers.
        heads: of queries.
        kv_heads: of keys and values.
        head_dim: width of a head.
        context: most tokens of a sequence.
        rope_theta: base of the rotary positions.
        eps: of the norms.
        attention: ``"sdpa"``, or ``"flex_attention"``, which skips what DiDA's mask hides; CUDA only.
        grid: (h, w) of the codes of every image; missing: the model writes the sizes itself.
        noise: of a model that DiDA adapted: ``path``, ``c`` and ``alpha``.
        tokenizer: ``{"model": NAME, "model_args": {...}}``, entry and arguments of what makes its codes,
            which becomes part of the model; missing: codes are levels of grey.

    Raises:
        ImportError: transformers is missing.
        ValueError: an unknown vocabulary, or a tokenizer that does not fit.
    """

    recorded: ClassVar[tuple[str, ...]] = ("grid", "noise", "tokenizer")

    def __init__(
        self,
        vocabulary: str = "tiny",
        visual_codes: int = 9,
        layers: int = 4,
        width: int = 64,
        ffn: int = 160,
        heads: int = 4,
        kv_heads: int = 2,
        head_dim: int = 16,
        context: int = 512,
        rope_theta: float = 1e4,
        eps: float = 1e-6,
        attention: str = "sdpa",
        grid: Sequence[int] | None = None,
        noise: dict[str, Any] | None = None,
        tokenizer: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if vocabulary not in VOCABULARIES:
            raise ValueError(f"vocabulary must be one of {', '.join(VOCABULARIES)}, got {vocabulary!r}")
        self.vocabulary = VOCABULARIES[vocabulary](visual_codes)
        self.context = context
        self.grid = None if grid is None else [int(side) for side in grid]
        self.noise = None if noise is None else dict(noise)
        self.tokenizer: dict[str, Any] | None = None
        self.codec: Codec | None = None
        if tokenizer is not None:
            self.take(tokenizer_of(tokenizer))
        self.decoder = qwen3(
            self.vocabulary,
            hidden_size=width,
            intermediate_size=ffn,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            max_position_embeddings=context,
            rms_norm_eps=eps,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
            attn_implementation=attention,
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[B, L, V]`` of what follows each of the ``tokens [B, L]``."""
        logits: Tensor = self.decoder(input_ids=tokens, use_cache=False).logits
        return logits

    def take(self, tokenizer: IBQ) -> None:
        """Make a tokenizer of images part of the model.

        Raises:
            ValueError: it has another number of codes than the model.
        """
        codes = self.vocabulary.visual_codes
        if tokenizer.codes != codes:
            raise ValueError(
                f"the tokenizer has {tokenizer.codes} codes and the model {codes}; set"
                f" model_args.visual_codes to {tokenizer.codes}"
            )
        self.codec, self.tokenizer = Codec(tokenizer), tokenizer.described
        self.model_args = {**self.model_args, "tokenizer": self.tokenizer}

    @property
    def pictures(self) -> Levels | Codec:
        """Makes codes of images in [0, 1], and images of codes.

        Raises:
            ValueError: the model has no tokenizer, and its codes are no levels of grey.
        """
        if self.codec is not None:
            return self.codec
        if self.vocabulary.times_id is not None:
            raise ValueError(
                "this model has no tokenizer of images: load_emu3_5(FOLDER, tokenizer=PLACE) gives it one"
            )
        return Levels(self.vocabulary.visual_codes)

    def noise_path(self, embeddings: Tensor) -> NoisePath | None:
        """The noise that the network was adapted to; None for one that draws token by token only.

        Args:
            embeddings: of the image codes, ``[K, D]``.
        """
        if self.noise is None:
            return None
        if self.noise["path"] == "mixture":
            return MixturePath(self.vocabulary.visual_codes)
        learned = embeddings.shape[1] > 1  # levels of grey lie on a line; unit length would leave their sign
        return MetricPath(embeddings, self.noise["c"], self.noise["alpha"], normalize=learned)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass: less memory, identical gradients."""
        super().set_grad_checkpointing(enable)
        if enable:
            self.decoder.gradient_checkpointing_enable()
        else:
            self.decoder.gradient_checkpointing_disable()


@register_model(
    paper="2510.26583",
    task="language",
    cfg={"context": 512, "output": "text and images", "call": CALL},
    checkpoint_filter_fn=merged,
    parameters=176_192,
    small={"layers": 1, "width": 16, "ffn": 24, "heads": 2, "kv_heads": 1, "head_dim": 8},
)
def emu3_5_tiny(**kwargs: Any) -> Emu35:
    """0.18 M parameters: Emu3.5's architecture at the size of a toy, for digits as text and image."""
    return build_model(Emu35, "emu3_5_tiny", {}, **kwargs)
