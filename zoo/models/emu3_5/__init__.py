"""Emu3.5 (arXiv 2510.26583): text and images as tokens of one vocabulary, read and written by one decoder."""

from zoo.models.emu3_5.entries import emu3_5
from zoo.models.emu3_5.ibq import IBQ, Codec, emu3_5_ibq, emu3_5_ibq_tiny, load_ibq, smart_size
from zoo.models.emu3_5.model import Emu35, emu3_5_tiny
from zoo.models.emu3_5.official import load_emu3_5
from zoo.models.emu3_5.pipeline import Answer, Pipeline
from zoo.models.emu3_5.vocabulary import Vocabulary, emu3_5_vocabulary, tiny_vocabulary

__all__ = [
    "IBQ",
    "Answer",
    "Codec",
    "Emu35",
    "Pipeline",
    "Vocabulary",
    "emu3_5",
    "emu3_5_ibq",
    "emu3_5_ibq_tiny",
    "emu3_5_tiny",
    "emu3_5_vocabulary",
    "load_emu3_5",
    "load_ibq",
    "smart_size",
    "tiny_vocabulary",
]
