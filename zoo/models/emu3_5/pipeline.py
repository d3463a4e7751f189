"""A prompt in words, and an answer of text and images: a model with all that stands around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.models.emu3_5.dida.sampler import Denoising
from zoo.models.emu3_5.sequences import images_in, parts_of, prompt, unconditional_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator

    from zoo.models.emu3_5.decoding import Choice, Listener, Writer, Written
    from zoo.models.emu3_5.ibq import Codec
    from zoo.models.emu3_5.levels import Levels
    from zoo.models.emu3_5.model import Emu35
    from zoo.models.emu3_5.sequences import Kind

AR, DIDA = "ar", "dida"  # token by token, and images at once


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was written behind a prompt, and what it cost.

    Attributes:
        parts: in their order: ``"text"``, ``"reasoning"`` or ``"image reasoning"`` with a string, ``"image"``
            with an image ``[C, H, W]`` in [0, 1].
        text: all that is text.
        ended: whether the model ended it; otherwise the context did.
        passes: times that the decoder ran, guidance included.
        image_passes: those that drew image codes.
        seconds: that everything took.
        image_seconds: that the drawing of images took.
    """

    parts: list[tuple[Kind, str | Tensor]]
    text: str
    ended: bool
    passes: int
    image_passes: int
    seconds: float
    image_seconds: float

    @property
    def images(self) -> list[Tensor]:
        """The images among the parts."""
        return [content for _, content in self.parts if isinstance(content, Tensor)]


class Pipeline:
    """Continues prompts in words with a model; needs the extra ``multimodal``.

    Args:
        model: a trained one.
        pictures: makes codes of images in [0, 1], and images of codes; the model's own if missing.
        text: how tokens of text are drawn.
        image: how image codes are drawn one by one.
        guidance: scale of classifier-free guidance of these; 1 is without.
        denoising: how images are drawn at once, by a model that DiDA adapted.
    """

    def __init__(
        self,
        model: Emu35,
        pictures: Levels | Codec | None = None,
        *,
        text: Choice | None = None,
        image: Choice | None = None,
        guidance: float = 1.0,
        denoising: Denoising | None = None,
    ) -> None:
        self.model, self.pictures = model, pictures or model.pictures
        self.text, self.image, self.guidance = text, image, guidance
        self.denoising = denoising or Denoising()

    @property
    def device(self) -> torch.device:
        """Where the first layer of the model is."""
        return next(self.model.parameters()).device

    @property
    def grid(self) -> tuple[int, int] | None:
        """(h, w) of the codes of every image; None: the model writes the sizes itself."""
        return None if self.model.grid is None else (self.model.grid[0], self.model.grid[1])

    @property
    def ways(self) -> tuple[str, ...]:
        """``"ar"``, token by token, and for a model that DiDA adapted ``"dida"``, images at once."""
        return (AR,) if self.model.noise is None else (AR, DIDA)

    def writer(self, way: str = AR, **options: Any) -> Writer:
        """What continues sequences of ids.

        Args:
            way: one of `ways`.
            **options: see `zoo.models.emu3_5.decoding.Writer`.

        Raises:
            ValueError: a way that the model does not know.
        """
        from zoo.models.emu3_5.decoding import Grammar, Writer

        if way not in self.ways:
            missing = "; DiDA adapts a trained model, see DiDATask" if way == DIDA else ""
            raise ValueError(f"this model writes {' or '.join(self.ways)}, not {way!r}{missing}")
        model = self.model
        grammar = Grammar(vocabulary=model.vocabulary, grid=self.grid, limit=model.context)
        known: dict[str, Any] = {"text": self.text, "image": self.image, "guidance": self.guidance}
        if way == DIDA:
            known |= {"denoising": self.denoising, "path": model.noise_path(self.pictures.embeddings())}
        return Writer(model.decoder, grammar, **{**known, **options})

    def prompt(
        self,
        text: str | None,
        *,
        image: bool = False,
        task: str | None = None,
        images: Sequence[Tensor] = (),
    ) -> Tensor:
        """Ids of a prompt, ``[1, L]``.

        Args:
            text: of the user; None asks for the unconditional prompt.
            image: let an image begin behind it.
            task: see `zoo.models.emu3_5.sequences.prompt`.
            images: of the user, ``[C, H, W]`` in [0, 1] each.
        """
        v, grid = self.model.vocabulary, self.grid
        codes = [self.pictures.encode(one[None].to(self.device))[0] for one in images]
        ids = unconditional_prompt(v, codes) if text is None else prompt(v, text, task=task, images=codes)
        opening = [v.image_start, *(v.grid_tokens(*grid) if grid else ())] if image else []
        return torch.tensor([[*ids, *opening]], device=self.device)

    def write(self, writer: Writer, texts: Sequence[str], *, image: bool = False, **options: Any) -> Written:
        """Continue prompts of one length.

        Args:
            writer: how.
            texts: what to continue.
            image: each with an image at once.
            **options: see `zoo.models.emu3_5.decoding.Writer.write`.
        """
        prompts = torch.cat([self.prompt(text, image=image) for text in texts])
        guide = self.prompt(None, image=image).expand(len(texts), -1) if writer.guides else None
        return writer.write(prompts, unconditional=guide, **options)

    def __call__(
        self,
        text: str,
        *,
        way: str = AR,
        task: str | None = None,
        images: Sequence[Tensor] = (),
        listener: Listener | None = None,
        generator: Generator | None = None,
    ) -> Answer:
        """Continue one prompt.

        Args:
            text: of the user.
            way: one of `ways`.
            task: see `zoo.models.emu3_5.sequences.prompt`.
            images: of the user, ``[C, H, W]`` in [0, 1] each, behind the text.
            listener: is told how it goes on.
            generator: of the random numbers.

        Raises:
            ValueError: words that there are not, an unknown task or way, or a prompt that leaves no room.
        """
        writer = self.writer(way)
        guide = self.prompt(None, images=images) if writer.guides else None
        asked = self.prompt(text, task=task, images=images)
        return self.answer(writer.write(asked, unconditional=guide, listener=listener, generator=generator))

    def drawn(self, written: Written) -> Tensor:
        """The first image behind the beginning of each row, ``[B, C, H, W]``."""
        codes = torch.stack([images_in(self.model.vocabulary, row)[0] for row in written.tokens])
        return self.pictures.decode(codes)

    def answer(self, written: Written) -> Answer:
        """What was written behind the first prompt; an image that the prompt begins belongs to it."""
        v, row = self.model.vocabulary, written.tokens[0].tolist()
        asked = row[: written.prompt]
        begun = max((n for n, token in enumerate(asked) if token == v.image_start), default=-1)
        inside = begun >= 0 and v.image_end not in asked[begun:]
        behind = written.tokens[0, begun if inside else written.prompt :]
        parts: list[tuple[Kind, str | Tensor]] = []
        said: list[int] = []
        for kind, tokens in parts_of(v, behind):
            if kind == "image":
                parts.append((kind, self.pictures.decode(tokens[None])[0]))
            else:
                parts.append((kind, v.decode(tokens.tolist())))
                said += tokens.tolist() if kind == "text" else []
        return Answer(
            parts=parts,
            text=v.decode(said),
            ended=bool((behind == v.eos).any()),
            passes=written.passes,
            image_passes=written.image_passes,
            seconds=written.seconds,
            image_seconds=written.image_seconds,
        )
