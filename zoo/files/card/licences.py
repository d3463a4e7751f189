"""Licences of weights and data, and how the header of a card states them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.files.card.markdown import slug, table

if TYPE_CHECKING:
    from zoo.files.description import Record

# https://huggingface.co/docs/hub/repositories-licenses: identifiers that a header may carry as they are
LICENCES = (
    "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc", "cc0-1.0", "cc-by-3.0",
    "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "gpl",
    "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "isc", "unlicense",
    "wtfpl", "zlib", "openrail", "creativeml-openrail-m", "apple-ascl", "apple-amlr", "gemma",
)  # fmt: skip


def licence_fields(licence: str | None) -> dict[str, str]:
    """How the header of a card states a licence that may be none of the Hub's own list."""
    if not licence:
        return {}
    plain = licence.strip().lower()
    return {"license": plain} if plain in LICENCES else {"license": "other", "license_name": slug(plain)}


def licence_table(own: Record) -> str:
    """Licences of the weights, of what they derive from and of the data."""
    rows: list[tuple[str, ...]] = [("", "")]
    rows.append(("Weights", own.licence or "not stated: ask the owner before you use them"))
    if own.origin is not None:
        name = own.origin.name or "unknown"
        link = f"[{name}]({own.origin.url})" if own.origin.url else name
        rows.append(("Derived from", f"{link}, licence: {own.origin.licence or 'unknown'}"))
        if own.origin.sha256:
            rows.append(("SHA-256 of it", f"`{own.origin.sha256}`"))
    if own.dataset:
        rows.append(("Data", f"{own.dataset}, licence: {own.dataset_licence or 'not stated'}"))
    return table(rows)
