"""The libraries that a diffusion model needs, and how to get them."""

from __future__ import annotations

import importlib.util


def require(*libraries: str) -> None:
    """Refuse in words where a library is missing.

    Raises:
        ModuleNotFoundError: names it and the extra that brings it.
    """
    for name in libraries:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(
                f"latent diffusion needs {name}: pip install 'fulgurite[diffusion]'", name=name
            )
