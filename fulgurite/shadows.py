"""Whether a folder or file of the user's hides one of our packages, whose names are common words."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

IMPORTED = {  # what comes with each package, whichever is asked for
    "spiking": (),
    "datamodules": (),
    "conversion": ("spiking",),
    "zoo": ("spiking", "conversion"),
    "lightning_modules": ("spiking", "conversion", "zoo"),
    "cli": ("spiking", "conversion", "zoo", "lightning_modules", "datamodules"),
}
ROOT = Path(__file__).resolve().parents[1]  # ours lie beside this package, in a wheel as in a checkout


class ShadowedPackageError(ImportError):
    """Python finds another module under the name of one of our packages."""


def check(*names: str) -> None:
    """Make sure that Python finds our packages, and those that they import, before one of them is imported.

    Args:
        *names: of packages; all if none is given.

    Raises:
        ShadowedPackageError: names the file that is found instead, and the ways out.
    """
    asked = names or tuple(IMPORTED)
    needed = {other: None for package in asked for other in (package, *IMPORTED[package])}
    for name in needed:
        own, found = ROOT / name / "__init__.py", _found(name)
        if found is not None and own.is_file() and found.resolve() != own:
            place = found.parent if found.name == "__init__.py" else found
            raise ShadowedPackageError(
                f"{place} hides the package '{name}' of Fulgurite, because Python looks there first; rename"
                " it, or keep Python from looking into the folder of the script: `python -P ...`, or"
                " PYTHONSAFEPATH=1. The command `fulgurite` does not look there"
            )


def _found(name: str) -> Path | None:
    loaded = sys.modules.get(name)
    origin = getattr(loaded, "__file__", None) if loaded else getattr(find_spec(name), "origin", None)
    return Path(origin) if origin else None
