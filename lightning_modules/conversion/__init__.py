"""Conversion as a task: where the source comes from, the run, and how it compares."""

from lightning_modules.conversion.task import ConversionTask

__all__ = ["ConversionTask"]
