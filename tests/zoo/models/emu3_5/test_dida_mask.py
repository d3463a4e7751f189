"""Noisy copies never learn from the image they are to find, and clean tokens never hear of noisy copies."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from zoo.models.emu3_5 import dida

pytest.importorskip("transformers")
ROLES = dida.Roles(image_token=5, image_end=4, first_visual=12)
VOCABULARY, CODES, GRID = 20, 8, (2, 3)
BLOCK = 1 + GRID[0] * (GRID[1] + 1) - 1
# two documents, the first with two images; then padding
LINE_END, START, WORD = 6, 3, 8


def image(generator):
    rows = torch.randint(12, 20, GRID, generator=generator).tolist()
    body = [token for row in rows for token in (*row, LINE_END)][:-1]
    return [START, ROLES.image_token, *body, ROLES.image_end]


@pytest.fixture(scope="module")
def decoder():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    return Qwen3ForCausalLM(config).double().eval()


@pytest.fixture(scope="module")
def batch():
    g = torch.Generator().manual_seed(1)
    first = [1, WORD, *image(g), 9, *image(g), 2]
    second = [1, 10, *image(g), 2]
    row = first + second + [0, 0]
    documents = [1] * len(first) + [2] * len(second) + [0, 0]
    positions = [*range(len(first)), *range(len(second)), 0, 1]
    other = [1, 10, *image(g), 2]
    other_row = other + [0] * (len(row) - len(other))
    other_documents = [1] * len(other) + [0] * (len(row) - len(other))
    return (
        torch.tensor([row, other_row]),
        torch.tensor([documents, other_documents]),
        torch.tensor([positions, [*range(len(other)), *range(len(row) - len(other))]]),
    )


def forward(decoder, tokens, noisy, documents, positions, copies):
    places = dida.joined(dida.clean_places(documents, positions), copies.places)
    return decoder(
        input_ids=torch.cat([tokens, noisy], 1),
        attention_mask=dida.dense_mask(places),
        position_ids=places.position,
        use_cache=False,
    ).logits


def noise(copies, tokens, seed):
    g = torch.Generator().manual_seed(seed)
    return dida.noisy_tokens(
        tokens,
        copies,
        ROLES,
        lambda codes, t: torch.randint(CODES, codes.shape, generator=g),
        torch.zeros(tokens.shape[0], 4),
    )


def changed(before, after):
    """Which places differ, for both rows."""
    return (before - after).abs().amax(-1) > 0


def test_a_noisy_copy_does_not_see_the_image_it_is_to_find(decoder, batch):
    tokens, documents, positions = batch
    copies = dida.noisy_copies(*batch, ROLES)
    noisy = noise(copies, tokens, 3)
    before = forward(decoder, tokens, noisy, documents, positions, copies)[:, tokens.shape[1] :]
    blocks = dida.inside_images(tokens, ROLES)
    number = (tokens == ROLES.image_token).long().cumsum(1)
    for wanted in (1, 2, 3):
        other = tokens.clone()
        place = blocks & (number == wanted)
        place[1] = False
        other[place] = torch.where(other[place] >= 12, 12 + (other[place] - 11) % CODES, other[place])
        assert not torch.equal(other, tokens)
        after = forward(decoder, other, noisy, documents, positions, copies)[:, tokens.shape[1] :]
        moved = changed(before, after)[0]
        own, later = copies.places.image[0] == wanted, copies.places.image[0] > wanted
        assert not moved[own].any()  # the leak test
        assert not moved[copies.places.image[0] < wanted].any()
        same_document = copies.places.document[0] == documents[0][place[0]][0]
        assert moved[later & same_document].all()  # a later image does hear of the clean one before it
        assert not moved[later & ~same_document].any()


def test_clean_tokens_do_not_hear_of_noisy_copies(decoder, batch):
    tokens, documents, positions = batch
    copies = dida.noisy_copies(*batch, ROLES)
    length = tokens.shape[1]
    with_one = forward(decoder, tokens, noise(copies, tokens, 3), documents, positions, copies)[:, :length]
    with_other = forward(decoder, tokens, noise(copies, tokens, 4), documents, positions, copies)[:, :length]
    assert torch.equal(with_one, with_other)  # to the last bit
    places = dida.clean_places(documents, positions)
    alone = decoder(
        input_ids=tokens, attention_mask=dida.dense_mask(places), position_ids=positions, use_cache=False
    ).logits
    torch.testing.assert_close(alone, with_one, rtol=0, atol=1e-12)  # sums over more keys round otherwise
    lone = decoder(input_ids=tokens[:, :20], use_cache=False).logits  # an ordinary causal model
    torch.testing.assert_close(lone[0], alone[0, :20], rtol=0, atol=1e-12)


def test_a_noisy_place_hears_all_of_its_own_copy_and_of_no_other(decoder, batch):
    tokens, documents, positions = batch
    copies = dida.noisy_copies(*batch, ROLES)
    noisy = noise(copies, tokens, 3)
    before = forward(decoder, tokens, noisy, documents, positions, copies)[0, tokens.shape[1] :]
    for place in range(3 * BLOCK):
        if noisy[0, place] < 12:
            continue
        other = noisy.clone()
        other[0, place] = 12 + (other[0, place] - 11) % CODES
        after = forward(decoder, tokens, other, documents, positions, copies)[0, tokens.shape[1] :]
        moved = (before - after).abs().amax(-1) > 0
        assert torch.equal(moved, copies.places.image[0] == copies.places.image[0, place])


def test_no_later_clean_token_is_heard(decoder, batch):
    tokens, documents, positions = batch
    copies = dida.noisy_copies(*batch, ROLES)
    noisy = noise(copies, tokens, 3)
    before = forward(decoder, tokens, noisy, documents, positions, copies)[0, tokens.shape[1] :]
    for place in (0, 1, 2):  # the beginning of the document and the word before its first image
        other = tokens.clone()
        other[0, place] = 11
        after = forward(decoder, other, noisy, documents, positions, copies)[0, tokens.shape[1] :]
        moved = (before - after).abs().amax(-1) > 0
        assert torch.equal(moved, copies.places.document[0] == 1)
    other = tokens.clone()
    second = 3 + BLOCK + 1  # the word between the images of the first document
    assert other[0, second - 1] == ROLES.image_end
    other[0, second] = 11
    after = forward(decoder, other, noisy, documents, positions, copies)[0, tokens.shape[1] :]
    moved = (before - after).abs().amax(-1) > 0
    assert torch.equal(moved, copies.places.image[0] == 2)


def test_drawing_sees_what_training_showed(decoder):
    """Prefix and block alone, with a cache, give the logits of the training layout."""
    g = torch.Generator().manual_seed(5)
    tokens = torch.tensor([[1, WORD, *image(g), 2]])
    documents, positions = torch.ones_like(tokens), torch.arange(tokens.shape[1])[None]
    copies = dida.noisy_copies(tokens, documents, positions, ROLES)
    noisy = noise(copies, tokens, 3)
    trained = forward(decoder, tokens, noisy, documents, positions, copies)[:, tokens.shape[1] :]
    cache = decoder(input_ids=tokens[:, :3], use_cache=True).past_key_values
    mask = torch.ones(1, 1, BLOCK, 3 + BLOCK, dtype=torch.bool)
    drawn = decoder(input_ids=noisy, attention_mask=mask, cache=cache, use_cache=True).logits
    torch.testing.assert_close(drawn, trained, rtol=0, atol=1e-12)


def test_both_forms_of_the_rule_agree(batch):
    _, documents, positions = batch
    copies = dida.noisy_copies(*batch, ROLES)
    places = dida.joined(dida.clean_places(documents, positions), copies.places)
    dense, rule = dida.dense_mask(places), dida.mask_rule(places)
    length = dense.shape[-1]
    grid = torch.meshgrid(torch.arange(2), torch.arange(length), torch.arange(length), indexing="ij")
    assert torch.equal(rule(grid[0], torch.tensor(0), grid[1], grid[2]), dense[:, 0])
    blocks = dida.block_mask(places)
    assert blocks.shape[-2:] == (length, length)
    assert dense.any(-1).all()  # nobody sees nothing, not even what only fills up
    from torch.nn.attention.flex_attention import create_mask

    assert torch.equal(create_mask(rule, 2, None, length, length, device="cpu"), dense)


def test_what_is_predicted_stands_one_further(batch):
    tokens, _, _ = batch
    copies = dida.noisy_copies(*batch, ROLES)
    codes = GRID[0] * GRID[1]
    assert copies.counted.sum(1).tolist() == [3 * codes, codes]
    first = copies.source[0, 0]
    assert tokens[0, first] == ROLES.image_token
    assert copies.target[0, 0] == tokens[0, first + 1]
    assert copies.counted[0, 0]
    line_end = 1 + GRID[1]  # the last code of a line predicts its end, which is given
    assert not copies.counted[0, line_end - 1]
    assert copies.counted[0, line_end]  # the end of a line predicts the first code of the next
    noisy = noise(copies, tokens, 3)
    assert noisy[0, 0] == ROLES.image_token
    assert noisy[0, line_end] == LINE_END
    logits = torch.zeros(*copies.target.shape, VOCABULARY)
    assert cross_entropy(logits[copies.counted], copies.target[copies.counted]) > 0


def test_an_image_that_is_cut_off_is_refused_in_words(batch):
    tokens, documents, positions = batch
    with pytest.raises(ValueError, match=r"the image that row 0 ends with is cut off.*context longer"):
        dida.noisy_copies(tokens[:, :8], documents[:, :8], positions[:, :8], ROLES)
