"""Models by name: load trained ones, create fresh ones, list, describe, register and save them."""

import importlib
import pkgutil

from zoo import models
from zoo.base import ZooModel
from zoo.build import build_model
from zoo.classifier import AnalogModel, ImageClassifier, SpikingModel
from zoo.describe import Description, describe
from zoo.errors import (
    CheckpointError,
    ExportError,
    HubError,
    HubFileNotFoundError,
    NotRebuildableError,
    UnknownModelError,
)
from zoo.export import Exported, export
from zoo.factory import create, load, register_with_timm
from zoo.files.checkpoint import read_checkpoint
from zoo.files.provenance import Provenance
from zoo.files.weights import WeightsCfg
from zoo.hub.push import LicenceError, Published
from zoo.layers.checkpointing import checkpoint_block
from zoo.layers.token_block import TokenBlock
from zoo.listing import list_models
from zoo.models.converted import resize
from zoo.publishing import push
from zoo.recognize import Fit, UnrecognizedError, import_checkpoint, recognize
from zoo.registry import is_registered, normalize_name, on_register, register_model, task_of
from zoo.saving import save
from zoo.tasks import Metric, Task, get_task, list_tasks, register_task
from zoo.tokens.hooks import Scorer
from zoo.tokens.maps import TokenImportance, token_importance
from zoo.tokens.reduce import reduce_tokens
from zoo.tokens.uncert import FluctuationChoice, choose_fluctuation_weight
from zoo.transform import Transform, transform

on_register(register_with_timm)
for _module in sorted(m.name for m in pkgutil.iter_modules(models.__path__)):
    importlib.import_module(f"zoo.models.{_module}")  # each file registers its entries, here and with timm

__all__ = [
    "AnalogModel",
    "CheckpointError",
    "Description",
    "ExportError",
    "Exported",
    "Fit",
    "FluctuationChoice",
    "HubError",
    "HubFileNotFoundError",
    "ImageClassifier",
    "LicenceError",
    "Metric",
    "NotRebuildableError",
    "Provenance",
    "Published",
    "Scorer",
    "SpikingModel",
    "Task",
    "TokenBlock",
    "TokenImportance",
    "Transform",
    "UnknownModelError",
    "UnrecognizedError",
    "WeightsCfg",
    "ZooModel",
    "build_model",
    "checkpoint_block",
    "choose_fluctuation_weight",
    "create",
    "describe",
    "export",
    "get_task",
    "import_checkpoint",
    "is_registered",
    "list_models",
    "list_tasks",
    "load",
    "normalize_name",
    "push",
    "read_checkpoint",
    "recognize",
    "reduce_tokens",
    "register_model",
    "register_task",
    "resize",
    "save",
    "task_of",
    "token_importance",
    "transform",
]
