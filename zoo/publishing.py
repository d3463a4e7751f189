"""A model, or a folder of it, onto the Hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from zoo.errors import HubError
from zoo.hub.download import split_repository
from zoo.hub.push import Published, push_folder
from zoo.hub.token import find_token
from zoo.saving import save


def push(
    model: nn.Module | str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    licence: str | None = None,
    message: str | None = None,
    token_from: str = "any",
    **facts: Any,
) -> Published:
    """Publish a model, or a folder of ``zoo.save``, on the Hub: everything in one commit, or nothing.

    Args:
        model: the model, which is saved first, or the folder.
        repo_id: ``OWNER/NAME``; made if it does not exist.
        private: whether a new repository is private.
        revision: branch, made if it does not exist; missing: ``main``.
        licence: licence of the weights, where the folder does not say it or says it wrongly.
        message: of the commit.
        token_from: ``"env"`` (HF_TOKEN), ``"login"`` (what ``hf auth login`` stored) or ``"any"``.
        **facts: arguments of ``zoo.save``, with a model.

    Returns:
        Repository, commit and address.

    Raises:
        LicenceError: if the weights are, or come from, somebody else's and no licence is known.
        NotRebuildableError: if the model cannot be rebuilt from names and plain values.
        HubError: if the Hub refuses or cannot be reached; the repository is what it was.
    """
    repo_id, at = split_repository(repo_id)
    revision = revision or at
    if "/" not in repo_id:
        raise ValueError(f"expected OWNER/NAME, got {repo_id!r}")
    if facts and not isinstance(model, nn.Module):
        raise TypeError(f"{sorted(facts)[0]} belongs to zoo.save; a folder has been saved already")
    token = find_token(token_from)
    if token is None:
        raise HubError("publishing needs a token; log in with `hf auth login`, or set HF_TOKEN")
    with tempfile.TemporaryDirectory(prefix="fulgurite-") as scratch:
        if isinstance(model, nn.Module):
            folder = save(model, Path(scratch) / "model", licence=licence, **facts)
        else:
            folder = Path(str(model).removeprefix("local-dir:")).expanduser()
        return push_folder(
            folder, repo_id, private=private, revision=revision, licence=licence, message=message, token=token
        )
