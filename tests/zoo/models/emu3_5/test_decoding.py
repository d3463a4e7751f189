"""Whatever a network would like to say, its images can be read back, and the cache changes nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zoo.models.emu3_5.words import Words, decoder
from zoo.models.emu3_5.dida import Denoising, MixturePath

pytest.importorskip("transformers")
from zoo.models.emu3_5.decoding import Choice, Grammar, ImageRules, Listener, Reader, Writer, guided
from zoo.models.emu3_5.sequences import parts_of
from zoo.models.emu3_5.vocabulary import emu3_5_vocabulary

SIZED, PLAIN = Words(), Words(sized=False)


def images_of(tokens, v):
    """Parse strictly: rows of codes of every image, or an AssertionError."""
    found, tokens = [], tokens.tolist()
    while v.image_start in tokens:
        tokens = tokens[tokens.index(v.image_start) + 1 :]
        opened = tokens.index(v.image_token)
        size = "".join("*" if t == v.times_id else str(v.digit_ids.index(t)) for t in tokens[:opened])
        body = tokens[opened + 1 : tokens.index(v.image_end)]
        tokens = tokens[tokens.index(v.image_end) + 1 :]
        rows = [[]]
        for token in body:
            if token == v.end_of_line:
                rows.append([])
            else:
                assert v.first_visual <= token < v.size
                rows[-1].append(token)
        assert len({len(row) for row in rows}) == 1
        found.append((size, len(rows), len(rows[0])))
    assert not {v.image_token, v.image_end, v.end_of_line} & set(tokens)
    assert all(token < v.first_visual for token in tokens)
    return found


@pytest.mark.parametrize("denoising", [None, Denoising(passes=3), Denoising(passes=3, form="jump")])
@pytest.mark.parametrize("vocabulary", [SIZED, PLAIN], ids=["sized", "plain"])
def test_images_of_random_networks_can_be_read(vocabulary, denoising):
    grammar = Grammar(vocabulary=vocabulary, grid=(2, 3), limit=60)
    seen = 0
    for seed in range(4):
        writer = Writer(decoder(vocabulary, seed), grammar, denoising=denoising, path=MixturePath(8))
        made = writer.write(torch.tensor([[1, 8]]), generator=torch.Generator().manual_seed(seed))
        found = images_of(made.tokens[0], vocabulary)
        assert all(image == ("2*3" if vocabulary.sized else "", 2, 3) for image in found)
        assert made.tokens.shape[1] <= 60
        seen += len(found)
        per_image = denoising.passes if denoising else 2 * 4
        assert made.image_passes == per_image * len(found)
    assert seen


@pytest.mark.parametrize("denoising", [None, Denoising(passes=2)])
def test_sizes_of_the_networks_own_choice_fit_into_the_context(denoising):
    limit, seen = 300, 0
    grammar = Grammar(vocabulary=SIZED, limit=limit)
    for seed in range(3):
        writer = Writer(decoder(SIZED, seed), grammar, denoising=denoising, path=MixturePath(8))
        prompt = torch.tensor([[1, 8, SIZED.image_start]])
        made = writer.write(prompt, images=1, generator=torch.Generator().manual_seed(seed))
        assert made.tokens.shape[1] <= limit
        for size, height, width in images_of(made.tokens[0], SIZED):
            assert size == f"{height}*{width}"
            assert min(height, width) >= 10
            seen += 1
    assert seen == 3


@pytest.mark.parametrize("denoising", [None, Denoising(passes=3), Denoising(passes=3, guidance=2.0)])
def test_what_is_drawn_with_a_cache_is_drawn_without(denoising):
    """Sampled text and images, two prompts and a guide: every pass reads anew what the cache remembers."""
    grammar = Grammar(vocabulary=PLAIN, grid=(2, 3), limit=60)
    prompts, bare = torch.tensor([[1, 8, 9, 3], [1, 9, 9, 3]]), torch.tensor([[1, 3], [1, 3]])
    made = []
    for cache in (True, False):
        options = {"guidance": 2.0, "denoising": denoising, "path": MixturePath(8), "cache": cache}
        writer = Writer(decoder(PLAIN), grammar, text=Choice(temperature=0.8, top_k=30), **options)
        generator = torch.Generator().manual_seed(3)
        made.append(writer.write(prompts, unconditional=bare, images=1, generator=generator))
        alone = writer.write(
            prompts[:1], unconditional=bare[:1], generator=generator
        )  # text between images, too
        assert alone.tokens.shape[1] > 15
        made.append(alone)
    for cached, plain in zip(made[:2], made[2:], strict=True):
        assert torch.equal(cached.tokens, plain.tokens)
        assert (cached.passes, cached.image_passes) == (plain.passes, plain.image_passes)
    assert not torch.equal(made[0].tokens[0], made[0].tokens[1])


def test_the_cache_changes_nothing():
    model = decoder(PLAIN)
    grammar = Grammar(vocabulary=PLAIN, grid=(2, 3), limit=40)
    greedy = Choice(top_k=1)
    made = Writer(model, grammar, text=greedy, image=greedy).write(torch.tensor([[1, 8, 3]]), images=1)
    tokens = torch.tensor([[1, 8, 3]])
    rules = ImageRules(grammar)
    with torch.no_grad():
        for _ in range(made.tokens.shape[1] - 3):
            scores = rules(tokens, model(input_ids=tokens, use_cache=False).logits[:, -1])
            tokens = torch.cat([tokens, scores.argmax(-1, keepdim=True)], 1)
    assert torch.equal(made.tokens, tokens)


def test_transformers_own_loop_takes_the_rules():
    grammar = Grammar(vocabulary=SIZED, grid=(2, 3), limit=40)
    made = decoder(SIZED).generate(
        torch.tensor([[1, 3]]),
        logits_processor=[ImageRules(grammar)],
        do_sample=True,
        max_new_tokens=30,
        eos_token_id=2,
        pad_token_id=0,
    )
    assert images_of(made[0], SIZED)[0] == ("2*3", 2, 3)


def test_drawing_at_once_reads_what_training_laid_out():
    """After an image at once, the text goes on behind the clean image, as if it had been read."""
    model = decoder(PLAIN)
    grammar = Grammar(vocabulary=PLAIN, grid=(2, 3), limit=30)
    greedy = Choice(top_k=1)
    writer = Writer(model, grammar, text=greedy, denoising=Denoising(passes=3), path=MixturePath(8))
    made = writer.write(torch.tensor([[1, 8, 3]]), generator=torch.Generator().manual_seed(0)).tokens
    end = int((made[0] == 4).nonzero()[0])
    assert made.shape[1] > end + 1
    with torch.no_grad():
        logits = model(input_ids=made[:, : end + 1], use_cache=False).logits[:, -1]
    scores = ImageRules(grammar)(made[:, : end + 1], logits)
    assert int(scores.argmax()) == int(made[0, end + 1])


def test_guidance_bends_images_only():
    c, u = torch.randn(2, 7), torch.randn(2, 7)
    torch.testing.assert_close(guided(c, u, 1.0), c.log_softmax(-1))
    torch.testing.assert_close(guided(c, c, 5.0), c.log_softmax(-1))
    grammar = Grammar(vocabulary=PLAIN, grid=(2, 3), limit=30)
    for denoising in (None, Denoising(passes=2, guidance=3.0)):
        writer = Writer(decoder(PLAIN), grammar, guidance=3.0, denoising=denoising, path=MixturePath(8))
        prompt, bare = torch.tensor([[1, 8, 9, 3]]), torch.tensor([[1, 3]])
        with pytest.raises(ValueError, match="guidance needs an unconditional prompt"):
            writer.write(prompt)
        made = writer.write(prompt, unconditional=bare, images=1)
        assert images_of(made.tokens[0], PLAIN) == [("", 2, 3)]
        same = writer.write(
            prompt, unconditional=prompt, images=1, generator=torch.Generator().manual_seed(1)
        )
        plain = Writer(
            decoder(PLAIN),
            grammar,
            denoising=denoising and Denoising(passes=2),
            path=MixturePath(8),
        ).write(prompt, images=1, generator=torch.Generator().manual_seed(1))
        assert torch.equal(same.tokens, plain.tokens)  # an equal guide guides nowhere


class Babble:
    """A decoder whose logits are noise of any strength; it likes one token."""

    def __init__(self, size, scale, seed, liked=0, liking=0.0):
        self.size, self.scale, self.liked, self.liking = size, scale, liked, liking
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids, logits_to_keep, **rest):
        kept = logits_to_keep if isinstance(logits_to_keep, int) else len(logits_to_keep)
        noise = torch.randn(len(input_ids), kept, self.size, generator=self.generator)
        logits = self.scale * noise
        logits[..., self.liked] += self.liking
        return SimpleNamespace(logits=logits)


@given(
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.0, 1.0, 50.0]),
    temperature=st.floats(0.05, 5.0),
    top_k=st.integers(0, 30),
    top_p=st.floats(0.01, 1.0),
    guidance=st.sampled_from([1.0, 3.0]),
    grid=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)),
    limit=st.integers(8, 160),
    passes=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_images_can_always_be_read(seed, scale, temperature, top_k, top_p, guidance, grid, limit, passes):
    """At any temperature, by any filter, within any context, at once or code by code."""
    v = SIZED
    choice = Choice(temperature=temperature, top_k=top_k, top_p=top_p)
    denoising = Denoising(passes=passes, guidance=guidance, temperature=temperature) if passes else None
    grammar = Grammar(vocabulary=v, grid=grid, limit=limit)
    model = Babble(v.size, scale, seed)
    options = {"text": choice, "image": choice, "guidance": guidance, "denoising": denoising}
    writer = Writer(model, grammar, path=MixturePath(8), **options)
    made = writer.write(
        torch.tensor([[1, 8]]),
        unconditional=torch.tensor([[1]]),
        generator=torch.Generator().manual_seed(seed),
    )
    assert made.tokens.shape[1] <= limit
    for size, height, width in images_of(made.tokens[0], v):
        assert size == f"{height}*{width}"
        assert (height, width) == grid if grid else min(height, width) >= 10


def test_what_guides_away_reads_the_images_of_an_answer_alone():
    v = PLAIN
    grammar = Grammar(vocabulary=v, grid=(2, 3), limit=60)
    for denoising in (None, Denoising(passes=2, guidance=3.0)):
        model = Babble(v.size, 1.0, 0, liked=v.image_start, liking=3.0)
        writer = Writer(model, grammar, guidance=3.0, denoising=denoising, path=MixturePath(8))
        seen = {}

        def remembered(own, tokens, read=Reader.read, seen=seen):
            seen.setdefault(own, []).extend(tokens[0].tolist())
            return read(own, tokens)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Reader, "read", remembered)
            made = writer.write(
                torch.tensor([[1, 8, 9]]),
                unconditional=torch.tensor([[1]]),
                generator=torch.Generator().manual_seed(2),
            )
        assert len(images_of(made.tokens[0], v)) > 1
        _, guide = seen.values()
        texts = [token for token in guide[1:] if token < v.first_visual]
        assert set(texts) <= {v.image_start, v.image_token, v.image_end, v.end_of_line}
        assert guide[0] == 1
        assert guide.count(v.image_start) > 1


def test_text_and_sizes_are_told_apart():
    """Who listens gets the words, not the digits of an image's size."""
    heard, steps = [], []
    grammar = Grammar(vocabulary=SIZED, grid=(2, 3), limit=80)
    listener = Listener(text=heard.append, image=lambda done, of: steps.append((done, of)))
    model = Babble(SIZED.size, 1.0, 0, liked=SIZED.image_start, liking=2.0)
    made = Writer(model, grammar).write(
        torch.tensor([[1, 8]]), listener=listener, generator=torch.Generator().manual_seed(0)
    )
    inside, outside = False, []
    for token in made.tokens[0, 2:].tolist():
        if not inside:
            outside.append(token)
        inside = token == SIZED.image_start or (inside and token != SIZED.image_end)
    assert heard == outside
    assert steps.count((8, 8)) == len(images_of(made.tokens[0], SIZED)) > 0


def test_the_published_vocabulary_writes_what_can_be_read():
    v = emu3_5_vocabulary(visual_codes=20)
    grammar = Grammar(vocabulary=v, grid=(12, 3), limit=160)
    writer = Writer(
        Babble(v.size, 1.0, 0), grammar, text=Choice(top_k=1024, top_p=0.9), image=Choice(top_k=10)
    )
    prompt = torch.tensor([[v.bos, v.answer.begin, v.image_start]])
    made = writer.write(prompt, images=1, generator=torch.Generator().manual_seed(0))
    (part,) = parts_of(v, made.tokens[0])
    assert (part.kind, part.tokens.shape) == ("image", (12, 3))


def test_a_batch_is_written_together():
    grammar = Grammar(vocabulary=PLAIN, grid=(2, 3), limit=30)
    prompts = torch.tensor([[1, 8, 3], [1, 9, 3]])
    heard = []
    writer = Writer(decoder(PLAIN), grammar, denoising=Denoising(passes=4), path=MixturePath(8))
    made = writer.write(prompts, images=1, listener=Listener(image=lambda done, of: heard.append((done, of))))
    assert [images_of(row, PLAIN) for row in made.tokens] == [[("", 2, 3)]] * 2
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (made.passes, made.image_passes) == (5, 4)
    with pytest.raises(ValueError, match="come to their images at different times; write them one by one"):
        writer.write(torch.tensor([[1, 8, 3], [1, 9, 9]]))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([1, 48], "token 48 is outside of the vocabulary, which has ids 0 to 47"),
        ([-1, 1], "token -1 is outside of the vocabulary"),
        ([], "an empty prompt cannot be continued"),
        ([1] * 20, "a prompt of 20 tokens leaves no room in a context of 20"),
        (
            [1] * 14 + [3],
            "an image of 2 x 3 codes needs 10 tokens, but the context of 20 cuts it off after 6",
        ),
    ],
)
def test_prompts_that_cannot_be_continued(prompt, message):
    writer = Writer(decoder(PLAIN), Grammar(vocabulary=PLAIN, grid=(2, 3), limit=20))
    with pytest.raises(ValueError, match=message):
        writer.write(torch.tensor([prompt], dtype=torch.long))


def test_wrong_settings_are_named():
    with pytest.raises(
        ValueError, match=r"does not write the sizes of images: a grid \(h, w\) must be given"
    ):
        Grammar(vocabulary=PLAIN)
    with pytest.raises(ValueError, match="give path, too"):
        Writer(decoder(PLAIN), Grammar(vocabulary=PLAIN, grid=(2, 3)), denoising=Denoising())
    with pytest.raises(ValueError, match=r"an image states the size '\?2' where h\*w was expected"):
        Grammar(vocabulary=SIZED).state(torch.tensor([1, 3, 9, 22, 5, 41]))
    for wrong in ({"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Choice(**wrong)
