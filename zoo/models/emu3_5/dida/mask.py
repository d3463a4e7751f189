"""Who sees whom where clean sequences and noisy copies of their images stand side by side: one rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


class Places(NamedTuple):
    """Where tokens stand, a tensor of one shape for each fact, ``[B, L]``.

    Attributes:
        document: number of the document that a token belongs to; documents never see each other.
        position: place within the document; a noisy copy has the places of what it copies.
        noisy: whether the token belongs to a noisy copy.
        image: number of the image that a noisy token copies, unique within the row; no matter elsewhere.
        start: place of the first token of that image; no matter elsewhere.
    """

    document: Tensor
    position: Tensor
    noisy: Tensor
    image: Tensor
    start: Tensor

    def at(self, *index: Any) -> Places:
        """The facts of some of the tokens."""
        return Places(*(fact[index] for fact in self))


def sees(query: Places, key: Places) -> Tensor:
    """Whether queries may attend to keys, elementwise.

    Clean tokens see clean ones up to themselves. Noisy ones see the clean tokens before their image, and all
    noisy ones of the same image: never the clean image that they are to find, nor what follows it. So clean
    tokens are what they would be without noisy copies (Emu3.5, arXiv 2510.26583, section on DiDA).
    """
    same = query.document == key.document
    before_self = ~query.noisy & ~key.noisy & (key.position <= query.position)
    before_image = query.noisy & ~key.noisy & (key.position < query.start)
    own_copy = query.noisy & key.noisy & (key.image == query.image)
    return same & (before_self | before_image | own_copy)


def dense_mask(places: Places) -> Tensor:
    """The rule as a table for ``scaled_dot_product_attention``: bool ``[B, 1, L, L]``, true where seen."""
    return sees(places.at(..., slice(None), None), places.at(..., None, slice(None))).unsqueeze(1)


def mask_rule(places: Places) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The rule as FlexAttention takes it: a function of the numbers of batch, head, query and key."""

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(places.at(batch, query), places.at(batch, key))

    return rule


def block_mask(places: Places) -> Any:
    """The rule for models whose attention is ``flex_attention``; empty blocks are skipped."""
    from torch.nn.attention.flex_attention import create_block_mask

    rows, length = places.document.shape
    device = places.document.device.type
    return create_block_mask(mask_rule(places), rows, None, length, length, device=device)
