"""What happens to images between disk and network."""

from datamodules.transforms.pipelines import Augmentation, Interpolation, PicturePipeline, TensorPipeline

__all__ = ["Augmentation", "Interpolation", "PicturePipeline", "TensorPipeline"]
