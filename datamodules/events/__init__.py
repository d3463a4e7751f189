"""Sets of event-camera recordings."""

from datamodules.events.base import EventDataModule, EventPipeline, Recording

__all__ = ["EventDataModule", "EventPipeline", "Recording"]
