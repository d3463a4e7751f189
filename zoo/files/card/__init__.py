"""The model card: a YAML header for machines, tables for people; only what was recorded."""

from zoo.files.card.licences import licence_fields
from zoo.files.card.page import write_card

__all__ = ["licence_fields", "write_card"]
