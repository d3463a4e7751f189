"""What happens to images between disk and network."""

from datamodules.transforms.pipelines import Augmentation, ImagePipeline, Interpolation, TensorPipeline

__all__ = ["Augmentation", "ImagePipeline", "Interpolation", "TensorPipeline"]
