"""From analog to spiking networks: methods, and the engine that they share.

>>> import timm, torch
>>> ann = timm.create_model("resnet18", num_classes=10).eval()
>>> snn = convert(ann, method="qcfs", time_steps=4, calibration=torch.randn(8, 3, 64, 64), progress=False)
>>> snn(torch.randn(2, 3, 64, 64)).shape
torch.Size([2, 10])
"""

from conversion import cos, dcgs, ecmt, lmht, parallel, qcfs, srp
from conversion._batches import CalibrationError
from conversion._convert import calibrate, convert, prepare, rebuild, self_test
from conversion._export import ConversionError
from conversion._method import Method, get_method, list_methods, register_method
from conversion._model import ConvertedModel
from conversion._ops import UnsupportedOperationError
from conversion._report import Report
from conversion._resize import resize
from conversion._site import bypassed

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
]
