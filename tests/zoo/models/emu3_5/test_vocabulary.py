"""Ids of the published vocabulary, and text as ids."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from zoo.errors import CheckpointError
from zoo.models.emu3_5.text import FILE, BytePairs
from zoo.models.emu3_5.vocabulary import emu3_5_vocabulary, tiny_vocabulary

ROOT = Path(__file__).resolve().parents[4]
V = emu3_5_vocabulary()
COUNT = 265  # byte pairs of the small tokenizer


def test_published_ids():
    v = V
    assert (v.pad, v.bos, v.eos) == (151_643, 151_849, 151_850)
    assert (v.image_token, v.image_start, v.image_end) == (151_851, 151_852, 151_853)
    assert (v.end_of_line, v.end_of_frame, v.timestamp) == (151_846, 151_847, 151_848)
    assert v.answer == (151_746, 151_747)
    assert v.reasoning == (151_706, 151_707)
    assert v.image_reasoning == (151_696, 151_697)
    assert (v.first_visual, v.size) == (151_854, 282_926)


@pytest.mark.parametrize("vocabulary", [V, tiny_vocabulary()], ids=["emu3_5", "tiny"])
def test_every_role_has_an_id_of_its_own(vocabulary):
    v = vocabulary
    pairs = [pair for pair in (v.answer, v.reasoning, v.image_reasoning) if pair]
    ids = [v.pad, v.bos, v.eos, v.image_start, v.image_token, v.image_end, v.end_of_line, *v.digit_ids]
    ids += [n for n in (v.times_id, v.end_of_frame, v.timestamp) if n is not None]
    ids += [n for pair in pairs for n in pair]
    assert len(set(ids)) == len(ids)
    assert max(ids) < v.first_visual


def test_no_other_file_repeats_an_id():
    found = []
    for package in ("zoo", "lightning_modules", "datamodules", "cli", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            written = re.findall(r"(?<![\d.])\d{3}_?\d{3}(?![\d.])", path.read_text(encoding="utf-8"))
            ids = {int(n.replace("_", "")) for n in written}
            found += [path.name] * any(V.pad <= n <= V.first_visual or n == V.size for n in ids)
    assert found == ["vocabulary.py"]


# -- text ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks():
    """A tokenizer in the published layout, in small: bytes in Qwen's order, and a few pairs."""
    convert = pytest.importorskip("transformers.convert_slow_tokenizer")
    alphabet = [bytes([byte]) for byte in convert.bytes_to_unicode()]  # GPT-2's order, which Qwen keeps
    pairs = [b"im", b"ag", b"imag", b"e ", b"image", b"15", b"2*", b"*3", "é".encode()]
    return {token: rank for rank, token in enumerate([*alphabet, *pairs])}


@pytest.fixture(scope="module")
def file(ranks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    (folder / FILE).write_text("".join(lines))
    return folder / FILE


@pytest.fixture(scope="module")
def vocabulary(file):
    pytest.importorskip("tiktoken")
    return emu3_5_vocabulary(text=BytePairs.read(file.parent, COUNT))


def test_sizes_are_written_digit_by_digit(vocabulary):
    for size in ((32, 64), (10, 99), (5, 120)):
        assert vocabulary.grid_tokens(*size) == tuple(vocabulary.encode("{}*{}".format(*size)))


def test_text_comes_back(vocabulary):
    for text in ("an image, 15 of 23*32", "Ein Bild: Äpfel\n\n 猫 🐈", ""):
        ids = vocabulary.encode(text)
        assert vocabulary.decode([vocabulary.bos, *ids, vocabulary.eos, vocabulary.first_visual]) == text
    assert len(vocabulary.encode("image")) == 1
    assert vocabulary.encode("e\u0301") == vocabulary.encode("é")  # one normal form
    assert vocabulary.decode(vocabulary.encode("猫")[:2]) == "\ufffd"


def test_names_of_control_tokens_are_plain_text(vocabulary):
    for name in ("<|image start|>", "<|extra_100|>", "<|endoftext|>"):
        assert max(vocabulary.encode(name)) < vocabulary.pad
        assert vocabulary.decode(vocabulary.encode(name)) == name


def test_text_without_its_file_is_refused():
    with pytest.raises(ValueError, match=r"knows ids only.* emu3\.tiktoken, which .*text=PLACE"):
        V.encode("a cat")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: lines[:-5], r"has 260 byte pairs, Emu3.5's emu3.tiktoken has ids 0 to 264"),
        (lambda lines: [*lines[:-1], "@@@ 264"], "is no list of byte pairs in base64 and their ids"),
        (lambda lines: [*lines[:-1], "one"], "is no list of byte pairs in base64 and their ids"),
        (lambda lines: ["//////8= 0", *lines[1:]], "has no id for byte 33"),
    ],
    ids=["truncated", "no base64", "no rank", "no byte"],
)
def test_damaged_files_are_named(file, tmp_path, damage, message):
    (tmp_path / FILE).write_text("\n".join(damage(file.read_text().splitlines())) + "\n")
    with pytest.raises(CheckpointError, match=message):
        BytePairs.read(tmp_path, COUNT)
    with pytest.raises(CheckpointError, match=r"nowhere.* does not exist"):
        BytePairs.read(tmp_path / "nowhere", COUNT)
