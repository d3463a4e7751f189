"""Spiking neuron dynamics as functions over `[T, B, ...]`, the fast counterparts of `reference`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spiking import reference

if TYPE_CHECKING:
    from torch import Tensor


def if_(x: Tensor, v: Tensor | None = None, *, backend: str = "auto", **kwargs: Any) -> Any:
    """Integrate-and-fire over ``x [T, ...]``; see `spiking.reference.if_`."""
    return reference.if_(x, v, **kwargs)


def lif(x: Tensor, v: Tensor | None = None, *, backend: str = "auto", **kwargs: Any) -> Any:
    """Leaky integrate-and-fire over ``x [T, ...]``; see `spiking.reference.lif`."""
    return reference.lif(x, v, **kwargs)


def plif(x: Tensor, w: Tensor, v: Tensor | None = None, *, backend: str = "auto", **kwargs: Any) -> Any:
    """LIF with a learnable time constant; see `spiking.reference.plif`."""
    return reference.plif(x, w, v, **kwargs)


def klif(x: Tensor, k: Tensor, v: Tensor | None = None, *, backend: str = "auto", **kwargs: Any) -> Any:
    """LIF with a learnable gain; see `spiking.reference.klif`."""
    return reference.klif(x, k, v, **kwargs)


def clif(
    x: Tensor,
    v: Tensor | None = None,
    m: Tensor | None = None,
    *,
    backend: str = "auto",
    **kwargs: Any,
) -> Any:
    """Complementary LIF; see `spiking.reference.clif`."""
    return reference.clif(x, v, m, **kwargs)


def glif(*args: Any, backend: str = "auto", **kwargs: Any) -> Any:
    """Gated LIF; see `spiking.reference.glif`."""
    return reference.glif(*args, **kwargs)


def psn(*args: Any, backend: str = "auto", **kwargs: Any) -> Any:
    """Parallel spiking neuron; see `spiking.reference.psn`."""
    return reference.psn(*args, **kwargs)


def masked_psn(*args: Any, backend: str = "auto", **kwargs: Any) -> Any:
    """Masked parallel spiking neuron; see `spiking.reference.masked_psn`."""
    return reference.masked_psn(*args, **kwargs)


def sliding_psn(*args: Any, backend: str = "auto", **kwargs: Any) -> Any:
    """Sliding parallel spiking neuron; see `spiking.reference.sliding_psn`."""
    return reference.sliding_psn(*args, **kwargs)
