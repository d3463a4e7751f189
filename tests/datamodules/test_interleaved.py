"""Captions and images in turn: prompts from files, documents of one to several images."""

from __future__ import annotations

import pytest

from datamodules import CaptionedDigitsDataModule, DataError
from datamodules.interleaved import read_prompts

pytest.importorskip("sklearn")


def test_prompts_of_a_file(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffdigit 3\r\n\r\n  digit 8 \r\n".encode())
    assert read_prompts(file) == ["digit 3", "digit 8"]
    assert CaptionedDigitsDataModule(prompt_file=str(file)).prompts == ["digit 3", "digit 8"]
    with pytest.raises(ValueError, match=r"prompts are given, and the file .*, too: give one"):
        CaptionedDigitsDataModule(prompts=["digit 3"], prompt_file=str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file of prompts"),
        (b"\n \n", "holds no prompt"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_files_that_hold_no_prompts(tmp_path, content, message):
    if content is not None:
        (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path / "prompts.txt")


def test_documents_of_different_lengths():
    data = CaptionedDigitsDataModule(batch_size=64, images_per_sequence=3, varied=True)
    data.setup("fit")
    first, again = (next(iter(data.val_dataloader())) for _ in range(2))
    counts = first["counts"]
    assert set(counts.tolist()) == {1, 2, 3}
    assert counts.sum() == len(first["words"]) == len(first["images"])
    assert all(first[key].equal(again[key]) for key in first)  # evaluation sees the same documents every time
    begins = counts.cumsum(0) - counts
    plain = CaptionedDigitsDataModule(batch_size=64)
    plain.setup("fit")
    alone = next(iter(plain.val_dataloader()))
    assert first["images"][begins].equal(alone["images"])  # a document begins with its own image
    assert first["words"][begins].equal(alone["words"])
