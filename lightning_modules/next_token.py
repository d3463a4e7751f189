"""Language models of text and images, trained to predict the next token."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchmetrics import MeanMetric
from typing_extensions import override

from lightning_modules.base import BaseTask
from lightning_modules.callbacks.narration import Narration
from lightning_modules.callbacks.writings import WritingWriter
from lightning_modules.language_start import build_language_model, load_tokenizer
from lightning_modules.low_rank import with_lora
from lightning_modules.token_losses import next_tokens, target_weights, weighted_cross_entropy
from zoo.models.emu3_5.dida import Roles, block_mask, clean_places, dense_mask
from zoo.models.emu3_5.packing import pack
from zoo.models.emu3_5.pipeline import AR, Pipeline
from zoo.models.emu3_5.sequences import document

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import lightning.pytorch as pl

    from zoo.models.emu3_5.decoding import Writer, Written
    from zoo.models.emu3_5.dida import Places
    from zoo.models.emu3_5.ibq import Codec
    from zoo.models.emu3_5.levels import Levels


class NextTokenTask(BaseTask):
    """Trains a decoder of text and images on the next token (Emu3.5, arXiv 2510.26583).

    Batches are packed rows ``{"tokens", "documents", "positions"}``, int64 ``[B, L]`` each, or captions and
    images ``{"words": [N, W], "images": [N, C, H, W], "counts": [D]}``: words are numbers in ``lexicon``,
    and ``counts`` tell how many captions and images each of the D documents has.

    Args:
        model: name of an entry of the task ``language``.
        model_args: its arguments; ``weights: PATH`` starts from a checkpoint, from the folder of a run, or
            from that of the published model, see `zoo.models.emu3_5.official.load_emu3_5`.
        lexicon: words of the data; taken from the data on the command line.
        grid: (h, w) of an image's codes; taken from the data on the command line.
        pack_length: most tokens of a row of documents; missing: each document has a row of its own; taken
            from the data on the command line.
        tokenizer: what ``zoo.load`` takes, or the folder of a run: a tokenizer of images, which becomes part
            of checkpoints; missing: levels of grey, a code a pixel.
        visual_weight: of image codes in the loss, where text has 1.
        lora: arguments of ``peft.LoraConfig`` (``r``, ``lora_alpha``, ...): trains small additions to the
            weights alone.
        text: how text is drawn: ``temperature``, ``top_k``, ``top_p``.
        image: how image codes are drawn one by one: the same.
        guidance: scale of classifier-free guidance of codes drawn one by one; 1 is without. Emu3.5 takes 3
            for text and images in turn, 2 or 5 for single images.
        score_samples: images drawn in a test, where the data can judge them; 0: none.
        **arguments: optimiser and schedule, see `BaseTask`.
    """

    method: ClassVar[str] = "next-token prediction over text and images"
    paper: ClassVar[str | None] = "2510.26583"
    curves_over: ClassVar[Literal["epoch", "step"]] = "step"
    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[Literal["min", "max"]] = "min"
    output: ClassVar[str] = "writings"
    begins_with: ClassVar[tuple[str, ...]] = ("tokenizer",)

    words: Tensor

    def __init__(
        self,
        model: str,
        model_args: dict[str, Any] | None = None,
        lexicon: Sequence[str] = (),
        grid: tuple[int, int] | None = None,
        pack_length: int | None = None,
        tokenizer: str | dict[str, Any] | None = None,
        visual_weight: float = 0.5,
        lora: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        image: dict[str, Any] | None = None,
        guidance: float = 1.0,
        score_samples: int = 100,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        if not visual_weight >= 0:
            raise ValueError(f"visual_weight must be 0 or more, got {visual_weight!r}")
        self.save_hyperparameters()
        kept = None if tokenizer is None else load_tokenizer(tokenizer)
        facts = {**({"tokenizer": kept.described} if kept else {}), **self.model_facts()}
        self.model: Any = build_language_model(model, {"grid": grid, **(model_args or {}), **facts})
        if kept is not None:
            self.model.take(kept)
        self.vocabulary = self.model.vocabulary
        if pack_length is not None and not 1 <= pack_length <= self.model.context:
            raise ValueError(
                f"pack_length must lie between 1 and the model's context of {self.model.context} tokens,"
                f" got {pack_length}"
            )
        self.pack_length = pack_length
        if lora is not None:
            self.model.decoder = with_lora(self.model.decoder, lora)
        self.grid = None if grid is None else (int(grid[0]), int(grid[1]))
        self.register_buffer("words", self._words(lexicon), persistent=False)
        self.visual_weight, self.score_samples = visual_weight, score_samples
        self.text, self.image, self.guidance = dict(text or {}), dict(image or {}), guidance
        self.loss_metric, self.accuracy = MeanMetric(), MeanMetric()

    @property
    def pictures(self) -> Levels | Codec:
        """Makes codes of images in [0, 1], and images of codes; part of the model."""
        found: Levels | Codec = self.model.pictures
        return found

    def model_facts(self) -> dict[str, Any]:
        """Further arguments of the model, which its weights are useless without."""
        return {}

    def _words(self, lexicon: Sequence[str]) -> Tensor:
        ids = [self.vocabulary.encode(word) for word in lexicon]
        return torch.tensor([found[0] for found in ids], dtype=torch.long)

    @property
    def roles(self) -> Roles:
        """Ids that layouts need."""
        v = self.vocabulary
        return Roles(v.image_token, v.image_end, v.first_visual)

    # -- sequences -----------------------------------------------------------------------------

    def packed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, documents and positions ``[B, L]`` of a batch.

        Raises:
            ValueError: ids outside of the vocabulary.
        """
        if "tokens" in batch:
            tokens, documents, positions = (batch[k] for k in ("tokens", "documents", "positions"))
        else:
            codes = self.pictures.encode(batch["images"])
            counts = batch["counts"].tolist()
            told = zip(self.words[batch["words"]].split(counts), codes.split(counts), strict=True)
            made = [document(self.vocabulary, list(words), list(images)) for words, images in told]
            tokens, documents, positions = pack(made, self.vocabulary.pad, self.pack_length)
        if bool((tokens < 0).any() | (tokens >= self.vocabulary.size).any()):
            wrong = tokens[(tokens < 0) | (tokens >= self.vocabulary.size)][0]
            raise ValueError(
                f"token {int(wrong)} of the data is outside of the vocabulary, which has ids 0 to"
                f" {self.vocabulary.size - 1}"
            )
        return tokens, documents, positions

    @override
    def samples_in(self, batch: dict[str, Tensor]) -> int:
        """Documents; rows, where the data are rows of tokens."""
        return len(batch["counts" if "counts" in batch else "tokens"])

    def mask(self, places: Places) -> Any:
        """Who sees whom, in the form that the network's attention takes."""
        kind = getattr(self.model.decoder.config, "_attn_implementation", "")
        return block_mask(places) if kind == "flex_attention" else dense_mask(places)

    def logits(self, tokens: Tensor, documents: Tensor, positions: Tensor) -> Tensor:
        """Logits ``[B, L, V]`` of packed rows, whose documents do not see each other."""
        mask = self.mask(clean_places(documents, positions))
        made = self.model.decoder(
            input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False
        )
        logits: Tensor = made.logits
        return logits

    # -- steps ---------------------------------------------------------------------------------

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        tokens, documents, positions = self.packed(batch)
        loss = self.next_token_loss(self.logits(tokens, documents, positions), tokens, documents)
        self.require_finite(loss)
        self.log("train/loss", loss, batch_size=len(tokens), prog_bar=True)
        return loss

    def next_token_loss(self, logits: Tensor, tokens: Tensor, documents: Tensor) -> Tensor:
        """Cross-entropy of the next token, weighted by its kind."""
        targets, counted = next_tokens(tokens, documents, self.vocabulary.pad)
        weights = target_weights(targets, counted, self.vocabulary.first_visual, self.visual_weight)
        return weighted_cross_entropy(logits, targets, weights)

    def _measure(self, batch: Any, stage: str) -> None:
        tokens, documents, positions = self.packed(batch)
        logits = self.logits(tokens, documents, positions)
        targets, counted = next_tokens(tokens, documents, self.vocabulary.pad)
        losses = torch.nn.functional.cross_entropy(
            logits[counted].float(), targets[counted], reduction="none"
        )
        self.loss_metric.update(losses)
        self.accuracy.update((logits[counted].argmax(-1) == targets[counted]).float())

    def _report(self, stage: str) -> None:
        loss = self.loss_metric.compute()
        self.log(f"{stage}/loss", loss, prog_bar=True)
        self.log(f"{stage}/perplexity", loss.exp())
        self.log(f"{stage}/accuracy", self.accuracy.compute())
        self.loss_metric.reset()
        self.accuracy.reset()

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._measure(batch, "val")

    @override
    def on_validation_epoch_end(self) -> None:
        self._report("val")

    @override
    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._measure(batch, "test")

    @override
    def on_test_epoch_end(self) -> None:
        self._report("test")
        data = getattr(self.trainer, "datamodule", None)
        if self.score_samples and hasattr(data, "judge") and self.grid is not None:
            for name, value in self.scores(data).items():
                self.log(f"test/{name}", value, rank_zero_only=True)

    # -- writing -------------------------------------------------------------------------------

    @property
    def pipeline(self) -> Pipeline:
        """What continues prompts with this network."""
        from zoo.models.emu3_5.decoding import Choice

        text, image = Choice(**self.text), Choice(**self.image)
        return Pipeline(self.model, self.pictures, text=text, image=image, guidance=self.guidance)

    def writer(self, **options: Any) -> Writer:
        """What continues sequences of ids, with options of `zoo.models.emu3_5.decoding.Writer`."""
        return self.pipeline.writer(**options)

    def writers(self) -> dict[str, Writer]:
        """The ways in which this network can write, by the prefix of their measurements."""
        return {"": self.writer()}

    def prompt(self, text: str, image: bool = False) -> Tensor:
        """Ids ``[1, L]`` of a prompt; with the start of an image behind it if asked for."""
        return self.pipeline.prompt(text, image=image)

    def drawn(self, written: Written) -> Tensor:
        """The first image that was written in each row, ``[B, C, H, W]``."""
        return self.pipeline.drawn(written)

    @torch.no_grad()
    def scores(self, data: Any) -> dict[str, float]:
        """How many drawn images the data's judge recognises as what was asked for, and what they cost."""
        texts, labels = data.questions(self.score_samples)
        found: dict[str, float] = {}
        pipeline = self.pipeline
        for prefix, writer in self.writers().items():
            generator = torch.Generator(self.device).manual_seed(0)
            together = pipeline.write(writer, texts, image=True, images=1, generator=generator)
            found[f"{prefix}score"] = float((data.judge(pipeline.drawn(together)) == labels).mean())
            alone = pipeline.write(writer, texts[:1], image=True, images=1, generator=generator)
            found[f"{prefix}image_passes"] = float(alone.image_passes)
            found[f"{prefix}image_seconds"] = alone.image_seconds
            rank_zero_info(f"{prefix or 'token by token: '}{found[f'{prefix}score']:.2%} recognised")
        return found

    @override
    def prediction_callbacks(
        self,
        output: Path,
        *,
        class_names: Sequence[str] = (),
        top_k: int = 5,
        explain: Literal["tokens"] | None = None,
    ) -> list[pl.Callback]:
        if explain is not None:
            raise ValueError("a language model has no token maps: leave --explain out")
        return [WritingWriter(output)]

    @override
    def on_predict_start(self) -> None:
        """Look at all prompts before any is continued; one that cannot be is named."""
        writer = self.writer()
        for text in getattr(getattr(self.trainer, "datamodule", None), "prompts", ()):
            try:
                writer.check(self.prompt(text))
            except ValueError as error:
                shown = textwrap.shorten(text, 60, placeholder=" ...")
                raise ValueError(f"prompt {shown!r}: {error}") from error

    @override
    def predict_step(self, batch: dict[str, str], batch_idx: int) -> list[dict[str, Any]]:
        """Continue one prompt in every way that there is."""
        from zoo.models.emu3_5.decoding import Listener

        told, pipeline = [], self.pipeline
        shown = self.trainer.progress_bar_callback is not None and self.trainer.is_global_zero
        for prefix, writer in self.writers().items():
            way = prefix.rstrip("_") or AR
            with Narration(f"{batch['text']} ({way})", self.vocabulary.decode, shown=shown) as narration:
                listener = Listener(text=narration.text, image=narration.image)
                answer = pipeline.answer(pipeline.write(writer, [batch["text"]], listener=listener))
            told.append({"prompt": batch["text"], "way": way, **vars(answer)})
        return told

    # -- checkpoints ---------------------------------------------------------------------------

    @override
    def recorded_beginning(self) -> dict[str, Any]:
        """How the tokenizer is built; its weights are part of the checkpoint."""
        return {"tokenizer": self.model.tokenizer} if self.model.tokenizer else {}

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        # what zoo.load builds: with the size of images, and the noise that the model knows
        checkpoint["entry"] = {"model": self.hparams["model"], "model_args": self.model.model_args}
        sizes = {key: value for key, value in self.model.model_args.items() if key not in self.model.recorded}
        checkpoint["hyper_parameters"]["model_args"] = sizes  # some are known from published files alone
        checkpoint["origin"] = self.model.origin or {}

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if "origin" in checkpoint:
            self.model.origin = checkpoint["origin"]

    # -- optimiser -----------------------------------------------------------------------------

    @override
    def optimizer_options(self) -> dict[str, Any]:
        return {"betas": (0.9, 0.95)} if "adam" in self.optimizer_name else {}
