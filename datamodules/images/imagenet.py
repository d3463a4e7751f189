"""ImageNet-1k in its usual folders."""

from __future__ import annotations

import re
from typing import Any, Literal

from typing_extensions import override

from datamodules.images.image_folder import ImageFolderDataModule


class ImageNetDataModule(ImageFolderDataModule):
    """ImageNet (ILSVRC-2012): ``root/train/SYNSET/*.JPEG`` and ``root/val/SYNSET/*.JPEG``.

    Labels are the positions of the sorted synset names, as everywhere. Training: random resized
    crop, flip, policy; evaluation: resize and centre crop; both by timm. What is reported is measured on
    the validation set, as in all papers, and named so.

    Args:
        root: the folder; ImageNet's terms do not allow a download by us.
        val: share of the training images that is held out to choose the checkpoint, one in a hundred;
            ``val`` trains on all of them and chooses on the validation set, as the papers do.
        image_size: side of the crops.
        crop_pct: part of the short side that evaluation keeps, missing: 0.875; SpikingResformer uses 0.95.
        flip: probability of a horizontal flip.
        kwargs: see `ImageFolderDataModule`.
    """

    title = "ImageNet-1k"
    hub_id = "ILSVRC/imagenet-1k"
    licence = "ImageNet's own terms: research, not commercial"

    hold_out = 0.01
    how_to_get = (
        "\nImageNet cannot be downloaded for you: get it from image-net.org and"
        " unpack it to {root}/train/SYNSET/*.JPEG and {root}/val/SYNSET/*.JPEG"
    )

    @override
    def is_genuine(self) -> bool:
        return self.num_classes == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in self.class_names)

    def __init__(
        self,
        root: str = "data/imagenet",
        *,
        val: Literal["val", "test"] | float | None = None,
        image_size: int | tuple[int, int] = 224,
        crop_pct: float | None = None,
        flip: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root,
            val=val,
            style="imagenet",
            image_size=image_size,
            crop_pct=crop_pct,
            flip=flip,
            **kwargs,
        )
