"""IBQ (arXiv 2412.02692), the vision tokenizer of Emu3.5: images as grids of codes."""

from zoo.models.emu3_5.ibq.codec import Codec
from zoo.models.emu3_5.ibq.entries import emu3_5_ibq, emu3_5_ibq_tiny, tokenizer_of
from zoo.models.emu3_5.ibq.network import IBQ
from zoo.models.emu3_5.ibq.official import load_ibq
from zoo.models.emu3_5.ibq.quantizer import IndexPropagation, Quantized
from zoo.models.emu3_5.ibq.resize import smart_size

__all__ = [
    "IBQ",
    "Codec",
    "IndexPropagation",
    "Quantized",
    "emu3_5_ibq",
    "emu3_5_ibq_tiny",
    "load_ibq",
    "smart_size",
    "tokenizer_of",
]
