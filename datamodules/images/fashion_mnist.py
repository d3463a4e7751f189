"""Fashion-MNIST (arXiv 1708.07747): 60,000 and 10,000 grey images of clothes, 28x28."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import override

from datamodules.arrays import ArrayDataModule
from datamodules.loading.datasets import Arrays
from datamodules.loading.errors import DataError
from datamodules.loading.idx import FILES, has_idx, read_split
from datamodules.loading.splits import HOLD_OUT, Val

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist


class FashionMNISTDataModule(ArrayDataModule):
    """Fashion-MNIST from its IDX files, gzipped or plain.

    Looked for in ``root/FashionMNIST/raw``, in ``root`` itself, and where Debian's package
    ``dataset-fashion-mnist`` puts it. Only if it is nowhere, `prepare_data` downloads it into the
    first of these.

    Args:
        root: folder of data sets.
        val: see `ArrayDataModule`.
        download: allow `prepare_data` to download.
        kwargs: see `ClassificationDataModule`.
    """

    title = "Fashion-MNIST"
    hub_id = "zalando-datasets/fashion_mnist"
    licence = "MIT"
    num_classes, in_chans, native_size = 10, 1, (28, 28)
    class_names = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip

    def __init__(
        self,
        root: str = "data",
        *,
        val: Val = HOLD_OUT,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(val=val, **kwargs)
        self.root = Path(root).expanduser()
        self.download = download
        self.set_statistics((0.2860,), (0.3530,))

    def find_folder(self) -> Path | None:
        """Return the folder that holds the four files; ``None`` if there is none."""
        places = (self.root / "FashionMNIST" / "raw", self.root, DEBIAN)
        return next((place for place in places if has_idx(place)), None)

    @override
    def prepare_data(self) -> None:
        """Download the files if they are nowhere."""
        if self.find_folder() is not None:
            return
        reason = "downloading is switched off"
        if self.download:
            from torchvision.datasets import FashionMNIST

            try:
                FashionMNIST(str(self.root), download=True)
            except (OSError, RuntimeError) as error:
                reason = f"downloading failed: {str(error).strip().splitlines()[-1]}"
            if self.find_folder() is not None:
                return
        raise DataError(self._missing(reason))

    def _missing(self, reason: str) -> str:
        names = ", ".join(f"{name}.gz" for pair in FILES.values() for name in pair)
        return (
            f"Fashion-MNIST is missing ({reason}). Put {names} into"
            f" {self.root / 'FashionMNIST' / 'raw'}, or on Debian and Ubuntu:"
            " apt-get install dataset-fashion-mnist"
        )

    @override
    def load_arrays(self) -> tuple[Arrays, Arrays]:
        """Return the training and the test set, uint8 ``[N, 1, 28, 28]``."""
        folder = self.find_folder()
        if folder is None:
            raise DataError(self._missing("prepare_data() was not called"))
        return read_split(folder, "train"), read_split(folder, "test")
