"""Data modules: real sets that packages ship or that lie in folders, and made-up ones."""

from datamodules._data import ArrayDataset, Arrays, DataError, PictureDataset, stratified_split
from datamodules._loader import EpochLoader
from datamodules._sampler import EvalSampler, TrainSampler
from datamodules.base import ArrayDataModule, BaseDataModule
from datamodules.digits import DigitsDataModule
from datamodules.mnist5k import MNIST5kDataModule
from datamodules.synthetic import SyntheticDataModule
from datamodules.transforms import Augmentation, PicturePipeline, TensorPipeline

__all__ = [
    "ArrayDataModule",
    "ArrayDataset",
    "Arrays",
    "Augmentation",
    "BaseDataModule",
    "DataError",
    "DigitsDataModule",
    "EpochLoader",
    "EvalSampler",
    "MNIST5kDataModule",
    "PictureDataset",
    "PicturePipeline",
    "SyntheticDataModule",
    "TensorPipeline",
    "TrainSampler",
    "stratified_split",
]
