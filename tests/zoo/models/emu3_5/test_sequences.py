"""Prompts, documents of text and images as tokens, and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.models.emu3_5.packing import pack
from zoo.models.emu3_5.sequences import (
    document,
    image_block,
    images_in,
    parts_of,
    prompt,
    unconditional_prompt,
)
from zoo.models.emu3_5.vocabulary import emu3_5_vocabulary, tiny_vocabulary


class Letters:
    """A text tokenizer for tests: an id a character."""

    def encode(self, text):
        return [ord(c) for c in text]

    def decode(self, ids):
        return "".join(chr(n) for n in ids if n < 10_000)


V = emu3_5_vocabulary(visual_codes=50, text=Letters())
CODES = torch.arange(6).view(2, 3)


def test_prompts_are_the_published_ones():
    made = prompt(V, "a cat", task="T2I")
    assert (made[0], made[-1]) == (V.bos, V.answer.begin)
    assert V.decode(made[1:-1]) == "You are a helpful assistant for t2i task. USER: a cat ASSISTANT: "
    bare = unconditional_prompt(V)
    assert V.decode(bare[1:-1]) == "You are a helpful assistant. USER:  ASSISTANT: "


def test_images_of_the_user_stand_behind_the_text():
    made = prompt(V, "make it blue", task="x2i", images=[CODES])
    block = image_block(V, CODES[None])[0].tolist()
    start = made.index(V.image_start)
    assert made[start : start + len(block)] == block
    assert V.decode(made[1:start]) == "You are a helpful assistant for x2i task. USER: make it blue"
    assert V.decode(made[start + len(block) : -1]) == " ASSISTANT: "
    assert V.decode(unconditional_prompt(V, [CODES])[1:27]) == "You are a helpful assistan"
    assert torch.equal(images_in(V, torch.tensor(made))[0], CODES)


def test_small_vocabularies_prompt_with_words():
    v = tiny_vocabulary()
    assert prompt(v, "digit 3") == [v.bos, *v.encode("digit 3")]
    assert unconditional_prompt(v) == [v.bos]
    with pytest.raises(ValueError, match="name no task"):
        prompt(v, "digit 3", task="t2i")
    with pytest.raises(ValueError, match=r"task must be one of t2i, x2i, .*, got 'paint'"):
        prompt(V, "a cat", task="paint")


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 12), st.text("ab ", max_size=4)), max_size=4))
@settings(max_examples=25, deadline=None)
def test_images_and_texts_come_back(items):
    torch.manual_seed(0)
    for v, text_of in ((V, lambda t: t), (tiny_vocabulary(50), lambda t: "digit 7 " if t.strip() else "")):
        ids, expected = [v.bos, *(v.answer or ())[:1]], []
        for height, width, drawn in items:
            text, codes = text_of(drawn), torch.randint(50, (height, width))
            read = v.encode(text)
            ids += [*read, *image_block(v, codes[None])[0].tolist()]
            expected += [("text", read)] if read else []
            expected.append(("image", codes.tolist()))
        ids += [*(v.answer or ())[1:], v.eos, v.pad]
        assert [(kind, t.tolist()) for kind, t in parts_of(v, torch.tensor(ids))] == expected


def test_thoughts_are_told_from_the_answer():
    v = V
    ids = [v.bos, v.answer.begin, v.reasoning.begin, 65, 66, v.reasoning.end, 67, v.image_reasoning.begin, 68]
    ids += [v.image_reasoning.end, *image_block(v, CODES[None])[0].tolist(), 69, v.answer.end, v.eos]
    told = parts_of(v, torch.tensor(ids))
    assert [part.kind for part in told] == ["reasoning", "text", "image reasoning", "image", "text"]
    assert [part.tokens.tolist() for part in told if part.kind != "image"] == [[65, 66], [67], [68], [69]]


def broken(change):
    ids = image_block(V, CODES[None])[0].tolist()
    change(ids)
    return torch.tensor([V.bos, *ids])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: ids.remove(V.image_end), "begins at token 1 is cut off: it has no end"),
        (lambda ids: ids.remove(V.image_token), "no image token before its end"),
        (lambda ids: ids.remove(V.first_visual), "rows of unequal length"),
        (lambda ids: ids.__setitem__(6, 70), "other tokens than codes"),
        (lambda ids: ids.__setitem__(6, V.size), "other tokens than codes"),
        (lambda ids: ids.__setitem__(1, V.digit_ids[4]), r"says 4\*3, but has 2 rows of 3 codes"),
        (lambda ids: ids.__setitem__(2, V.digit_ids[4]), r"states the size '243' where h\*w was expected"),
    ],
)
def test_images_that_cannot_be_read(change, message):
    with pytest.raises(ValueError, match=message):
        images_in(V, broken(change))


# -- packing ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(20, 40) | st.none())
@settings(max_examples=100, deadline=None)
def test_rows_hold_every_document_whole(lengths, length):
    documents = [torch.arange(n) + 100 * k + 1 for k, n in enumerate(lengths)]
    tokens, numbers, positions = pack(documents, 0, length)
    assert tokens.shape[1] <= (length or max(lengths))
    found = []
    for row, which, place in zip(tokens, numbers, positions, strict=True):
        assert torch.equal(row == 0, which == 0)
        for number in range(1, int(which.max()) + 1):
            found.append(row[which == number].tolist())
            assert place[which == number].tolist() == list(range(len(found[-1])))
    assert sorted(found) == sorted(d.tolist() for d in documents)
    if length is None:
        assert len(tokens) == len(documents)


def test_documents_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="document 1 of a batch has 9 tokens, but rows are packed to 8"):
        pack([torch.arange(3), torch.arange(9)], 0, 8)
    with pytest.raises(ValueError, match="no document"):
        pack([], 0, 8)


def test_documents_begin_and_end():
    v = tiny_vocabulary()
    words, codes = torch.tensor(v.encode("digit 3")), torch.tensor([[1, 2], [3, 4]])
    made = document(v, [words, words], [codes, codes]).tolist()
    assert (made[0], made[-1]) == (v.bos, v.eos)
    assert v.decode(made) == "digit 3 digit 3"
    assert len(images_in(v, torch.tensor(made))) == 2
