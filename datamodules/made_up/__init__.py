"""Made-up images whose targets are no single class: an angle, several labels, a class for every pixel."""

from datamodules.made_up.canvas import DigitCanvasDataModule
from datamodules.made_up.roads import RoadsDataModule
from datamodules.made_up.shapes import ShapesDataModule

__all__ = ["DigitCanvasDataModule", "RoadsDataModule", "ShapesDataModule"]
