"""Networks as files that other programs run; `zoo.export.formats` lists the formats."""

from zoo.export.export import export
from zoo.export.formats import FORMATS, Format
from zoo.export.request import Exported, Request

__all__ = ["FORMATS", "Exported", "Format", "Request", "export"]
