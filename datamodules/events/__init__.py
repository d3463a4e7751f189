"""Sets of event-camera recordings."""

from datamodules.events.base import EventDataModule, Recording
from datamodules.transforms.events import EventPipeline

__all__ = ["EventDataModule", "EventPipeline", "Recording"]
