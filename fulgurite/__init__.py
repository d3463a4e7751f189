"""One name for all packages: ``from fulgurite import zoo``, or ``fulgurite.zoo.load("...")``.

Each package is imported when it is first used, so that this one costs nothing. All of them can also
be imported by their own names, as the documentation does.

>>> import fulgurite
>>> "spikingresformer_l" in fulgurite.zoo.list_models()
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import cli
    import conversion
    import datamodules
    import lightning_modules
    import spiking
    import zoo

    __version__: str

__all__ = ["__version__", "cli", "conversion", "datamodules", "lightning_modules", "spiking", "zoo"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("fulgurite")
    if name in __all__:
        from fulgurite import shadows

        shadows.check(name)
        return import_module(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
