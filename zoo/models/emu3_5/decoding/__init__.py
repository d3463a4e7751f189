"""Sequences of text and images are continued; needs the extra ``multimodal`` (transformers)."""

from zoo.models.emu3_5.decoding.grammar import Grammar, State, block_length
from zoo.models.emu3_5.decoding.processors import Choice, ChoiceByKind, ImageRules, guided
from zoo.models.emu3_5.decoding.reader import Reader
from zoo.models.emu3_5.decoding.writer import Listener, Writer, Written

__all__ = [
    "Choice",
    "ChoiceByKind",
    "Grammar",
    "ImageRules",
    "Listener",
    "Reader",
    "State",
    "Writer",
    "Written",
    "block_length",
    "guided",
]
