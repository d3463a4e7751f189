"""From analog to spiking networks: methods, and the engine that they share.

>>> import timm, torch
>>> ann = timm.create_model("resnet18", num_classes=10).eval()
>>> snn = convert(ann, method="qcfs", time_steps=4, calibration=torch.randn(8, 3, 64, 64), progress=False)
>>> snn(torch.randn(2, 3, 64, 64)).shape
torch.Size([2, 10])
"""

import sys

from conversion import energy, lmht, thresholds
from conversion.calibration.batches import CalibrationError
from conversion.convert import calibrate, convert, prepare, rebuild
from conversion.graph.ops import UnsupportedOperationError
from conversion.graph.program import ConversionError
from conversion.methods import cos, dcgs, ecmt, parallel, qcfs, srp
from conversion.methods.base import Method, get_method, list_methods, register_method
from conversion.model import ConvertedModel
from conversion.network.site import bypassed
from conversion.report import Report
from conversion.resize import resize
from conversion.self_test import self_test

for _method in (cos, dcgs, ecmt, parallel, qcfs, srp):  # a method is also a module of this package by name
    sys.modules[_method.__name__.replace(".methods", "")] = _method

__all__ = [
    "CalibrationError",
    "ConversionError",
    "ConvertedModel",
    "Method",
    "Report",
    "UnsupportedOperationError",
    "bypassed",
    "calibrate",
    "convert",
    "cos",
    "dcgs",
    "ecmt",
    "energy",
    "get_method",
    "list_methods",
    "lmht",
    "parallel",
    "prepare",
    "qcfs",
    "rebuild",
    "register_method",
    "resize",
    "self_test",
    "srp",
    "thresholds",
]
