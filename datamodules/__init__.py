"""Data modules: real sets that packages ship or that lie in folders, and made-up ones."""

from datamodules.arrays import ArrayDataModule
from datamodules.base import BaseDataModule
from datamodules.change_pairs import ChangePairsDataModule, SyntheticCitiesDataModule
from datamodules.classification import ClassificationDataModule
from datamodules.control.data import ControlDataModule
from datamodules.control.replay import ReplayBuffer, Transitions
from datamodules.events.base import EventDataModule, Recording
from datamodules.events.cifar10_dvs import CIFAR10DVSDataModule
from datamodules.events.dvs_gesture import DVSGestureDataModule
from datamodules.events.folder import EventFolderDataModule
from datamodules.events.made_up_speech import MadeUpSpeechDataModule
from datamodules.events.mnist5k import MNIST5kEventsDataModule
from datamodules.events.nmnist import NMNISTDataModule
from datamodules.events.speech import SHDDataModule, SSCDataModule
from datamodules.images.cifar import CIFAR10DataModule, CIFAR100DataModule
from datamodules.images.digits import DigitsDataModule
from datamodules.images.fashion_mnist import FashionMNISTDataModule
from datamodules.images.image_folder import ImageFolderDataModule
from datamodules.images.imagenet import ImageNetDataModule
from datamodules.images.mnist5k import MNIST5kDataModule
from datamodules.images.of_datasets import DatasetDataModule, HuggingFaceDataModule
from datamodules.images.tiny_imagenet import TinyImageNetDataModule
from datamodules.interleaved import CaptionedDigitsDataModule, CaptionedMNIST5kDataModule
from datamodules.loading.datasets import ArrayDataset, Arrays, ImageDataset
from datamodules.loading.errors import DataError
from datamodules.loading.loader import EpochLoader
from datamodules.loading.sampler import EvalSampler, TrainSampler
from datamodules.loading.splits import stratified_split
from datamodules.made_up import DigitCanvasDataModule, RoadsDataModule, ShapesDataModule
from datamodules.spike_camera import SpikeSceneDataModule, SyntheticSpikeSceneDataModule
from datamodules.synthetic import SyntheticDataModule
from datamodules.token_rows import TokenRowsDataModule
from datamodules.transforms.augmentation import Augmentation
from datamodules.transforms.events import EventPipeline
from datamodules.transforms.image import ImagePipeline
from datamodules.transforms.tensor import TensorPipeline

__all__ = [
    "ArrayDataModule",
    "ArrayDataset",
    "Arrays",
    "Augmentation",
    "BaseDataModule",
    "CIFAR10DVSDataModule",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "CaptionedDigitsDataModule",
    "CaptionedMNIST5kDataModule",
    "ChangePairsDataModule",
    "ClassificationDataModule",
    "ControlDataModule",
    "DVSGestureDataModule",
    "DataError",
    "DatasetDataModule",
    "DigitCanvasDataModule",
    "DigitsDataModule",
    "EpochLoader",
    "EvalSampler",
    "EventDataModule",
    "EventFolderDataModule",
    "EventPipeline",
    "FashionMNISTDataModule",
    "HuggingFaceDataModule",
    "ImageDataset",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "ImagePipeline",
    "MNIST5kDataModule",
    "MNIST5kEventsDataModule",
    "MadeUpSpeechDataModule",
    "NMNISTDataModule",
    "Recording",
    "ReplayBuffer",
    "RoadsDataModule",
    "SHDDataModule",
    "SSCDataModule",
    "ShapesDataModule",
    "SpikeSceneDataModule",
    "SyntheticCitiesDataModule",
    "SyntheticDataModule",
    "SyntheticSpikeSceneDataModule",
    "TensorPipeline",
    "TinyImageNetDataModule",
    "TokenRowsDataModule",
    "TrainSampler",
    "Transitions",
    "stratified_split",
]
