"""Rows of tokens come as documents with places of their own, and nothing else is taken."""

import numpy as np
import pytest
import torch

from datamodules import DataError, TokenRowsDataModule


def folder(root, rows):
    for name in ("train", "val", "test"):
        np.save(root / f"{name}.npy", np.array(rows, dtype=np.int32))
    return TokenRowsDataModule(root=str(root), bos=1, pad=0, batch_size=2, num_workers=0, pin_memory=False)


def test_documents_are_counted_and_begin_at_zero(tmp_path):
    data = folder(tmp_path, [[1, 7, 2, 1, 8, 9, 2, 0], [1, 5, 5, 5, 5, 5, 5, 2]])
    data.setup("fit")
    (batch,) = data.val_dataloader()
    assert batch["tokens"].dtype == torch.long
    assert batch["documents"].tolist() == [[1, 1, 1, 2, 2, 2, 2, 0], [1] * 8]
    assert batch["positions"].tolist() == [[0, 1, 2, 0, 1, 2, 3, 0], [*range(8)]]
    assert len(data.train_dataloader()) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([1, 2, 3], r"holds int32 \[3\]; expected are integers \[rows, tokens\]"),
        ([[1, 2], [7, 2]], "row 1 of .* begins with 7, no document: each begins with bos, 1"),
    ],
)
def test_other_files_are_refused_in_words(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        folder(tmp_path, rows).setup("fit")
    (tmp_path / "val.npy").unlink()
    (tmp_path / "train.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"train\.npy cannot be read"):
        TokenRowsDataModule(root=str(tmp_path), bos=1, pad=0).setup("fit")
    with pytest.raises(DataError, match=r"gone.train\.npy is missing"):
        TokenRowsDataModule(root=str(tmp_path / "gone"), bos=1, pad=0).setup("fit")
