"""Emu3.5 (arXiv 2510.26583): text and images as tokens of one vocabulary, read and written by one decoder."""

from zoo.models.emu3_5.model import TinyEmu35, emu3_5_tiny
from zoo.models.emu3_5.vocabulary import Vocabulary, emu3_5_vocabulary, tiny_vocabulary

__all__ = ["TinyEmu35", "Vocabulary", "emu3_5_tiny", "emu3_5_vocabulary", "tiny_vocabulary"]
