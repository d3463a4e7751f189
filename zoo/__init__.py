"""Models by name: load trained ones, create fresh ones, list, describe, register and save them."""

import importlib
import pkgutil

from zoo._base import AnalogModel, SpikingModel, ZooModel, checkpoint_block
from zoo._build import build_model, create, load
from zoo._checkpoint import CheckpointError, read_checkpoint
from zoo._describe import Description, describe
from zoo._import import Fit, UnrecognizedError, import_checkpoint, recognize
from zoo._push import LicenceError, Published, push
from zoo._registry import (
    UnknownModelError,
    is_registered,
    list_models,
    normalize_name,
    register_model,
)
from zoo._remote import HubError, HubFileNotFoundError
from zoo._save import NotRebuildableError, save
from zoo._tokens import Scorer, TokenBlock
from zoo._weights import WeightsCfg
from zoo.converted import resize
from zoo.token_maps import TokenImportance, token_importance
from zoo.token_reduction import reduce_tokens
from zoo.uncert import FluctuationChoice, choose_fluctuation_weight

for _module in sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")):
    importlib.import_module(f"zoo.{_module}")  # each file registers its entries, here and with timm

__all__ = [
    "AnalogModel",
    "CheckpointError",
    "Description",
    "Fit",
    "FluctuationChoice",
    "HubError",
    "HubFileNotFoundError",
    "LicenceError",
    "NotRebuildableError",
    "Published",
    "Scorer",
    "SpikingModel",
    "TokenBlock",
    "TokenImportance",
    "UnknownModelError",
    "UnrecognizedError",
    "WeightsCfg",
    "ZooModel",
    "build_model",
    "checkpoint_block",
    "choose_fluctuation_weight",
    "create",
    "describe",
    "import_checkpoint",
    "is_registered",
    "list_models",
    "load",
    "normalize_name",
    "push",
    "read_checkpoint",
    "recognize",
    "reduce_tokens",
    "register_model",
    "resize",
    "save",
    "token_importance",
]
