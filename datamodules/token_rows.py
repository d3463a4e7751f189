"""Sequences that are tokens already, packed into rows of equal length and kept in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import override

from datamodules.base import BaseDataModule
from datamodules.loading.datasets import BatchDataset, Key, split_keys
from datamodules.loading.errors import DataError

FILES = {"train": "train.npy", "val": "val.npy", "test": "test.npy"}


class TokenRows(BatchDataset):
    """Rows of documents, each of which begins with the same token.

    Args:
        rows: ids, integers ``[N, L]``.
        bos: id that begins a document.
        pad: id that fills up rows.
    """

    def __init__(self, rows: npt.NDArray[Any], bos: int, pad: int) -> None:
        self.rows, self.bos, self.pad = rows, bos, pad

    @override
    def __len__(self) -> int:
        return len(self.rows)

    @override
    def __getitems__(self, keys: Sequence[Key]) -> Any:
        """``tokens``, ``documents`` counted from 1, 0 where rows are filled up, ``positions``: ``[B, L]``."""
        indices, _ = split_keys(keys)
        tokens = torch.from_numpy(np.stack([self.rows[n] for n in indices]).astype(np.int64))
        begins = tokens == self.bos
        places = torch.arange(tokens.shape[1]).expand_as(tokens)
        start = torch.where(begins, places, torch.zeros_like(places)).cummax(1).values
        filled = tokens != self.pad
        return {
            "tokens": tokens,
            "documents": begins.long().cumsum(1) * filled,
            "positions": (places - start) * filled,
        }


class TokenRowsDataModule(BaseDataModule):
    """``train.npy``, ``val.npy`` and ``test.npy`` of a folder: ids ``[N, L]``, integers of ``numpy.save``.

    A row is documents one behind the other, each beginning with ``bos``, and padding at its end. Files are
    read as they are needed and may be larger than memory. Batches are ``{"tokens", "documents",
    "positions"}``, int64 ``[B, L]`` each.

    Args:
        root: the folder.
        bos: id that begins a document.
        pad: id that fills up rows.
        kwargs: see `BaseDataModule`.

    Raises:
        datamodules.DataError: a file is missing or holds something else.
    """

    title = "rows of tokens"
    in_memory = False

    def __init__(self, *, root: str, bos: int, pad: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.bos, self.pad = root, bos, pad

    @override
    def setup(self, stage: str) -> None:
        if self.train_set is not None:
            return
        for part, name in FILES.items():
            setattr(self, f"{part}_set", TokenRows(self._read(name), self.bos, self.pad))

    def _read(self, name: str) -> npt.NDArray[Any]:
        path = Path(self.root).expanduser() / name
        if not path.is_file():
            raise DataError(
                f"{path} is missing; {self.root} must hold {', '.join(FILES.values())}, rows of tokens that"
                " numpy.save wrote"
            )
        try:
            rows: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.integer):
            raise DataError(
                f"{path} holds {rows.dtype} {list(rows.shape)}; expected are integers [rows, tokens]"
            )
        wrong = np.flatnonzero(np.asarray(rows[:, 0]) != self.bos)
        if len(wrong):
            first = int(rows[wrong[0], 0])
            raise DataError(
                f"row {wrong[0]} of {path} begins with {first}, no document: each begins with bos, {self.bos}"
            )
        return rows
