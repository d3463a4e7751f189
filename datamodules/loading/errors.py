"""The error of data that cannot be used."""

from __future__ import annotations


class DataError(RuntimeError):
    """Data that is missing, unreadable, or not what it should be."""
