"""Errors that several parts of the zoo raise."""

from __future__ import annotations


class UnknownModelError(ValueError):
    """No entry carries this name."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or does not fit; the model was left as it was."""


class NotRebuildableError(ValueError):
    """The model cannot be built again from a name and plain values, so it cannot be saved."""


class ExportError(ValueError):
    """The network cannot be written in this format, or what was written does something else."""


class HubError(OSError):
    """The Hub could not be read or written; the message says why and what to do."""


class HubFileNotFoundError(HubError, FileNotFoundError):
    """A file of a repository can neither be fetched nor found in the local cache."""
