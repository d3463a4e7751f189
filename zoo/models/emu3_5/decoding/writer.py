"""Text and images written in turn: text token by token, images the same way or all at once by DiDA."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.models.emu3_5.decoding.grammar import Grammar, block_length
from zoo.models.emu3_5.decoding.reader import Reader, Rereader
from zoo.models.emu3_5.dida.sampler import Denoising, denoise

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator

    from zoo.models.emu3_5.decoding.processors import Choice
    from zoo.models.emu3_5.dida.path import NoisePath


@dataclass(kw_only=True)
class Written:
    """What came of a prompt.

    Attributes:
        tokens: prompts and answers, ``[B, L]``; rows that ended early are filled up with padding.
        prompt: tokens of a prompt.
        passes: times that the decoder ran, guidance counted apart.
        image_passes: those that drew image codes.
        seconds: that everything took.
        image_seconds: that the drawing of images took.
    """

    tokens: Tensor
    prompt: int = 0
    passes: int = 0
    image_passes: int = 0
    seconds: float = 0.0
    image_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Is told how the writing goes on.

    Attributes:
        text: gets each token of text as it comes, of the first row that still writes.
        image: gets the steps of the image that are done, and their number.
    """

    text: Callable[[int], None] = field(default=lambda token: None)
    image: Callable[[int, int], None] = field(default=lambda done, of: None)


class Writer:
    """Continues prompts.

    Args:
        decoder: a causal language model of transformers.
        grammar: the rules of its sequences.
        text: how tokens of text are drawn.
        image: how image codes are drawn one by one.
        guidance: scale of classifier-free guidance inside images; 1 is without. What guides away reads an
            unconditional prompt and the images of the answer, not its text, as in the authors' code.
        denoising: draws images at once; None draws them token by token.
        path: of the noise; needed for ``denoising``.
        cache: remember keys and values of what was read; without, every pass reads everything again, for
            comparisons.

    Raises:
        ValueError: ``denoising`` without a path.
    """

    def __init__(
        self,
        decoder: Any,
        grammar: Grammar,
        *,
        text: Choice | None = None,
        image: Choice | None = None,
        guidance: float = 1.0,
        denoising: Denoising | None = None,
        path: NoisePath | None = None,
        cache: bool = True,
    ) -> None:
        from zoo.models.emu3_5.decoding.processors import Choice, ChoiceByKind, ImageRules

        if denoising is not None and path is None:
            raise ValueError("images are drawn at once along a path of noise: give path, too")
        self.decoder, self.grammar, self.vocabulary = decoder, grammar, grammar.vocabulary
        self.processors = [
            ImageRules(grammar),
            ChoiceByKind(grammar, text or Choice(), image or Choice()),
        ]
        self.guidance, self.denoising, self.path = guidance, denoising, path
        self.reader: type[Reader] = Reader if cache else Rereader

    @property
    def guides(self) -> bool:
        """Whether an unconditional prompt is needed."""
        return self.guidance != 1.0 or (self.denoising is not None and self.denoising.guidance != 1.0)

    @torch.no_grad()
    def write(
        self,
        prompts: Tensor,
        *,
        unconditional: Tensor | None = None,
        images: int | None = None,
        generator: Generator | None = None,
        listener: Listener | None = None,
    ) -> Written:
        """Continue prompts of equal length until each has come to its end, or to the limit.

        Args:
            prompts: ids ``[B, L]``.
            unconditional: the same prompts without what guides them, ``[B, L']``; for guidance.
            images: stop after so many images.
            generator: of the random numbers.
            listener: is told how it goes on.

        Raises:
            ValueError: see `check`; or rows come to their images at different times.
        """
        self.check(prompts)
        if self.guides and unconditional is None:
            raise ValueError("guidance needs an unconditional prompt")
        guide = unconditional if self.guides else None
        session = _Session(self, prompts, guide, generator, listener or Listener())
        return session.run(images)

    def check(self, prompts: Tensor) -> None:
        """Make sure that ``prompts [B, L]`` can be continued.

        Raises:
            ValueError: ids outside the vocabulary, or a prompt that leaves no room.
        """
        v, limit = self.vocabulary, self.grammar.limit
        if prompts.numel() == 0:
            raise ValueError("an empty prompt cannot be continued")
        low, high = int(prompts.min()), int(prompts.max())
        if low < 0 or high >= v.size:
            wrong = low if low < 0 else high
            raise ValueError(f"token {wrong} is outside of the vocabulary, which has ids 0 to {v.size - 1}")
        if limit is not None and prompts.shape[1] >= limit:
            raise ValueError(f"a prompt of {prompts.shape[1]} tokens leaves no room in a context of {limit}")
        for row in prompts:
            state = self.grammar.state(row)
            if state.phase == "text" or limit is None or state.grid is None:
                continue
            begun, needed = int((row == v.image_start).nonzero()[-1]), self.grammar.needed(state.grid)
            if begun + needed > limit:
                height, width = state.grid
                raise ValueError(
                    f"an image of {height} x {width} codes needs {needed} tokens, but the"
                    f" context of {limit} cuts it off after {limit - begun}; shorten the prompt"
                )


class _Session:
    """One call of `Writer.write`."""

    def __init__(
        self,
        writer: Writer,
        prompts: Tensor,
        unconditional: Tensor | None,
        generator: Generator | None,
        listener: Listener,
    ) -> None:
        self.writer, self.v, self.grammar = writer, writer.vocabulary, writer.grammar
        self.generator, self.listener = generator, listener
        self.tokens = prompts
        self.reader = writer.reader(writer.decoder)
        self.guide = None if unconditional is None else writer.reader(writer.decoder)
        self.fresh, self.guide_fresh = prompts, unconditional  # what is not read yet
        self.ended = (prompts[:, -1] == self.v.eos).clone()
        self.written = Written(tokens=prompts, prompt=prompts.shape[1])

    def run(self, images: int | None) -> Written:
        begun = time.perf_counter()
        limit = self.grammar.limit
        drawn = 0
        while not bool(self.ended.all()) and (limit is None or self.tokens.shape[1] < limit):
            if self.writer.denoising is not None and self._at_image():
                self._draw_image(self.writer.denoising)
                drawn += 1
            else:
                drawn += self._next_token()
            if images is not None and drawn >= images:
                break
        self.written.tokens = self.tokens
        self.written.passes = self.reader.passes + (self.guide.passes if self.guide else 0)
        self.written.seconds = time.perf_counter() - begun
        return self.written

    def _append(self, tokens: Tensor, of_image: bool) -> None:
        self.tokens = torch.cat([self.tokens, tokens], 1)
        self.fresh = torch.cat([self.fresh, tokens], 1)
        if self.guide_fresh is not None and of_image:
            self.guide_fresh = torch.cat([self.guide_fresh, tokens], 1)

    def _read(self) -> Tensor:
        """Read what is new; logits ``[B, V]``."""
        logits, self.fresh = self.reader.read(self.fresh), self.fresh[:, :0]
        return logits

    def _read_guide(self) -> Tensor | None:
        """The same of what guides; None without guidance."""
        if self.guide is None or self.guide_fresh is None:
            return None
        logits, self.guide_fresh = self.guide.read(self.guide_fresh), self.guide_fresh[:, :0]
        return logits

    def _together(self, found: list[Any]) -> None:
        """Make sure that all rows that still write are at the same point."""
        rows = {now for now, done in zip(found, self.ended.tolist(), strict=True) if not done}
        if len(rows) > 1:
            raise ValueError(
                "the prompts of a batch come to their images at different times; write them one by one"
            )

    def _first(self) -> int:
        """The first row that still writes."""
        return int((~self.ended).nonzero()[0])

    # -- token by token ------------------------------------------------------------------------

    def _next_token(self) -> int:
        """Write one token; 1 if it ended an image."""
        from zoo.models.emu3_5.decoding.processors import guided

        first = self._first()
        state = self.grammar.state(self.tokens[first])
        begun, passes = time.perf_counter(), self.reader.passes
        scores = self._read()
        if self.guide is not None:
            self._together([self.grammar.state(row) for row in self.tokens])
            if state.phase == "codes" and self.writer.guidance != 1.0:
                other = self._read_guide()
                assert other is not None
                scores = guided(scores, other, self.writer.guidance)
        for processor in self.writer.processors:
            scores = processor(self.tokens, scores)
        token = torch.multinomial(scores.softmax(-1), 1, generator=self.generator)
        token = token.masked_fill(self.ended[:, None], self.v.pad)
        told = int(token[first])
        self._append(token, of_image=state.phase != "text" or told == self.v.image_start)
        self.ended |= token[:, 0] == self.v.eos
        if state.phase == "text":
            self.listener.text(told)
        if state.phase != "codes":
            return 0
        assert state.grid is not None
        self.written.image_passes += self.reader.passes - passes
        self.written.image_seconds += time.perf_counter() - begun
        self.listener.image(state.place + 1, block_length(state.grid) + 1)
        return int(told == self.v.image_end)

    # -- an image at once ----------------------------------------------------------------------

    def _at_image(self) -> bool:
        """Whether all rows are about to open an image."""
        opens = [self.grammar.opens(row) for row in self.tokens]
        self._together(opens)
        return any(opens)

    def _draw_image(self, settings: Denoising) -> None:
        """Draw the image's block and its end."""
        assert self.writer.path is not None
        row = self.tokens[self._first()]
        grid = self.grammar.state(row).grid or self._written_size(row)
        height, width = grid
        if self.fresh.shape[1]:
            self._read()  # the prefix; it stays in the cache
        if self.guide_fresh is not None and self.guide_fresh.shape[1]:
            self._read_guide()
        begun, passes = time.perf_counter(), self.reader.passes
        template = block_template(self.v, grid, self.tokens)
        place = (template[0] == -1).nonzero()[:, 0]
        codes = denoise(
            lambda codes, t: self._look(
                filled(template, codes + self.v.first_visual), place - 1, t, settings
            ),
            self.writer.path,
            (len(self.tokens), height * width),
            settings,
            self.generator,
            self.tokens.device,
            self.listener.image,
        )
        self.written.image_passes += self.reader.passes - passes
        self.written.image_seconds += time.perf_counter() - begun
        end = torch.full_like(template[:, :1], self.v.image_end)
        block = torch.cat([filled(template, codes + self.v.first_visual), end], 1)
        self._append(block.masked_fill(self.ended[:, None], self.v.pad), of_image=True)

    def _written_size(self, row: Tensor) -> tuple[int, int]:
        opened = torch.cat([row, self.tokens.new_tensor([self.v.image_token])])
        grid = self.grammar.state(opened).grid
        assert grid is not None
        return grid

    def _look(self, block: Tensor, places: Tensor, t: float, settings: Denoising) -> Tensor:
        logits = self._codes(self.reader.look(block, places))
        if self.guide is None or settings.guidance == 1.0 or t >= settings.guided_until:
            return logits
        other = self._codes(self.guide.look(block, places))
        return other + settings.guidance * (logits - other)

    def _codes(self, logits: Tensor) -> Tensor:
        return logits[..., self.v.first_visual : self.v.first_visual + self.v.visual_codes]


def block_template(vocabulary: Any, grid: tuple[int, int], like: Tensor) -> Tensor:
    """The block of an image with -1 where codes go, from the image token to the last code, ``[B, N]``."""
    height, width = grid
    row = [-1] * width
    body = [token for _ in range(height) for token in (*row, vocabulary.end_of_line)][:-1]
    return like.new_tensor([vocabulary.image_token, *body]).expand(len(like), -1)


def filled(template: Tensor, codes: Tensor) -> Tensor:
    """The same block with the ids ``[B, h w]`` in their places."""
    block = template.clone()
    block[template == -1] = codes.reshape(-1)
    return block
