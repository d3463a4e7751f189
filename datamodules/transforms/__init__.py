"""What happens to samples between disk and network."""

from datamodules.transforms.augmentation import Augmentation
from datamodules.transforms.events import EventPipeline
from datamodules.transforms.fit import FitImage
from datamodules.transforms.image import ImagePipeline
from datamodules.transforms.policies import Interpolation
from datamodules.transforms.tensor import TensorPipeline

__all__ = ["Augmentation", "EventPipeline", "FitImage", "ImagePipeline", "Interpolation", "TensorPipeline"]
