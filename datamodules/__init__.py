"""Data modules: real sets that packages ship or that lie in folders, and made-up ones."""

from datamodules._data import ArrayDataset, Arrays, DataError, PictureDataset, stratified_split
from datamodules._loader import EpochLoader
from datamodules._sampler import EvalSampler, TrainSampler
from datamodules.base import ArrayDataModule, BaseDataModule
from datamodules.cifar import CIFAR10DataModule, CIFAR100DataModule
from datamodules.cifar10_dvs import CIFAR10DVSDataModule
from datamodules.digits import DigitsDataModule
from datamodules.dvs_gesture import DVSGestureDataModule
from datamodules.events import EventDataModule, EventPipeline, Recording
from datamodules.fashion_mnist import FashionMNISTDataModule
from datamodules.image_folder import ImageFolderDataModule
from datamodules.imagenet import ImageNetDataModule
from datamodules.mnist5k import MNIST5kDataModule
from datamodules.nmnist import NMNISTDataModule
from datamodules.synthetic import SyntheticDataModule
from datamodules.tiny_imagenet import TinyImageNetDataModule
from datamodules.transforms import Augmentation, PicturePipeline, TensorPipeline

__all__ = [
    "ArrayDataModule",
    "ArrayDataset",
    "Arrays",
    "Augmentation",
    "BaseDataModule",
    "CIFAR10DVSDataModule",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "DVSGestureDataModule",
    "DataError",
    "DigitsDataModule",
    "EpochLoader",
    "EvalSampler",
    "EventDataModule",
    "EventPipeline",
    "FashionMNISTDataModule",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "MNIST5kDataModule",
    "NMNISTDataModule",
    "PictureDataset",
    "PicturePipeline",
    "Recording",
    "SyntheticDataModule",
    "TensorPipeline",
    "TinyImageNetDataModule",
    "TrainSampler",
    "stratified_split",
]
