"""A folder of ``zoo.save`` into a repository on the Hub, in one commit."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import CheckpointError, HubError
from zoo.files.card import licence_fields, write_card
from zoo.files.checkpoint import weights_file
from zoo.files.description import read_description
from zoo.files.folder import tidy
from zoo.files.layout import (
    CARD_FILE,
    CONFIG_FILE,
    FIGURES,
    INDEX_FILE,
    PART,
    SETTINGS_FILE,
    UNKNOWN,
    check_shard_names,
    sha256_of,
)
from zoo.hub.explain import explain, unexplained
from zoo.hub.secrets import find_secret, text_of
from zoo.hub.token import endpoint, harmless

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from huggingface_hub import HfApi

    from zoo.files.description import Description, Record

OUR_FILES = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|figures/[^/]+\.png|training\.yaml")
RACES = 3  # commits tried again when somebody else publishes between our look and our commit


class LicenceError(ValueError):
    """Weights of others must not be published before their licence is known."""


@dataclass(frozen=True)
class Published:
    """Where a folder went.

    Attributes:
        repo_id: ``OWNER/NAME``.
        commit: the commit; ``hf-hub:OWNER/NAME@COMMIT`` loads exactly this.
        url: its page.
    """

    repo_id: str
    commit: str
    url: str


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    licence: str | None = None,
    message: str | None = None,
    token: str,
) -> Published:
    """Publish a folder of ``zoo.save``; see `zoo.push`."""
    files = prepare(folder, repo_id, licence=licence, token=token)
    message = message or f"Publish {read_description(folder).architecture}"
    return _send(files, repo_id, private, revision, message, token)


def prepare(
    folder: Path, repo_id: str | None = None, *, licence: str | None = None, token: str | None = None
) -> dict[str, Path | bytes]:
    """What is published of a folder, by its path in the repository, after all checks.

    Raises:
        CheckpointError: if the folder is not whole.
        LicenceError: see `push`.
        HubError: if a file holds something like a secret, or is a link to another place.
    """
    tidy(folder)
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{folder} is no folder of zoo.save: it has no {CONFIG_FILE}")
    before = read_description(folder)
    if before.record is None:
        raise CheckpointError(f"{folder}/{CONFIG_FILE} has no {PART!r} part; write it with zoo.save")
    files: dict[str, Path | bytes] = {name: folder / name for name in _weights(folder, before.record)}
    after = before
    if licence is not None:
        after = replace(before, record=replace(before.record, licence=licence))
    check_licence(after.recorded)
    files |= {f"{FIGURES}/{p.name}": p for p in sorted((folder / FIGURES).glob("*.png"))}
    if os.path.lexists(folder / SETTINGS_FILE):
        files[SETTINGS_FILE] = folder / SETTINGS_FILE
    refuse_links(folder, (FIGURES, CONFIG_FILE, CARD_FILE, *files))
    card = _card(folder, before, after, repo_id).encode()
    own = replace(after.recorded, files=_hashes({**files, CARD_FILE: card}))
    files |= {CONFIG_FILE: replace(after, record=own).to_json(), CARD_FILE: card}
    for name, content in files.items():
        text = content.decode("latin-1") if isinstance(content, bytes) else text_of(content)
        if (what := find_secret(text)) is not None or (token is not None and token in text):
            raise HubError(
                f"{name} holds what looks like an access token or another secret ({what or 'your token'}):"
                " take it out before publishing"
            )
    return files


def _hashes(files: Mapping[str, Path | bytes]) -> dict[str, str]:
    """SHA-256 of what lies beside the weights, as the description records it."""
    return {
        name: hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_of(content)
        for name, content in files.items()
        if not name.startswith("model")
    }


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Refuse what is not the folder's own: a link would publish a file that lies elsewhere.

    Raises:
        HubError: if one of the names is a link, a pipe or a device.
    """
    for path in (folder / name for name in names):
        if path.is_symlink():
            raise HubError(
                f"{path} is a link to {path.readlink()}, and links are not followed; publish a copy of the"
                f" folder with the files themselves (cp -rL {folder} COPY)"
            )
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise HubError(f"{path} is no regular file; take it out before publishing")


def check_licence(own: Record) -> None:
    """Refuse weights of others without a licence.

    Raises:
        LicenceError: if the weights come from somebody else's and the folder states no licence.
    """
    if own.licence not in (*UNKNOWN, "none"):
        return
    origin = own.origin
    if origin is None or not origin.name:
        return  # trained from random weights by whoever publishes them
    raise LicenceError(
        f"these weights come from {origin.name}, whose licence is unknown, so they are not published; find it"
        f" out{' at ' + origin.url if origin.url else ''} and name it with --licence"
        " (zoo.push(..., licence='apache-2.0'))"
    )


def _weights(folder: Path, own: Record) -> list[str]:
    """Names of the files with weights, the one that the description's hash belongs to last."""
    main = weights_file(folder)
    if own.sha256 is not None and sha256_of(main) != own.sha256:
        raise CheckpointError(
            f"{main} is not the file that {CONFIG_FILE} describes (SHA-256 differs); save the model again"
        )
    shards = check_shard_names(main) if main.name == INDEX_FILE else {}
    for name, sha256 in shards.items():
        if not (folder / name).is_file() or (sha256 and sha256_of(folder / name) != sha256):
            raise CheckpointError(f"{folder / name} is missing or damaged; save the model again")
    return [*shards, main.name]


def _card(folder: Path, before: Description, after: Description, repo_id: str | None) -> str:
    """The card, written for its repository; one that somebody edited is kept."""
    from huggingface_hub import ModelCard

    size = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    figures = sorted(p.name for p in (folder / FIGURES).glob("*.png"))
    path = folder / CARD_FILE
    found = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not found or found == write_card(before, size=size, figures=figures):
        return write_card(after, size=size, figures=figures, repo_id=repo_id)
    if after == before:
        return found
    card = ModelCard(found)
    for key in ("license", "license_name"):
        card.data.pop(key)
    for key, value in licence_fields(after.recorded.licence).items():
        card.data[key] = value
    return str(card)


def _send(
    files: dict[str, Path | bytes],
    repo_id: str,
    private: bool,
    revision: str | None,
    message: str,
    token: str,
) -> Published:
    from huggingface_hub import HfApi

    from zoo.hub.limits import bounded

    api = HfApi(endpoint=endpoint(), token=token, library_name="fulgurite")
    try:
        return bounded(lambda: _publish(api, files, repo_id, private, revision, message))
    except Exception as error:
        reason = explain(error, repo_id, token, revision=revision, writing=True)
        reason = reason or unexplained(error, token)
        raise HubError(f"{repo_id} was not published: {reason}") from harmless(error, token)


def _publish(
    api: HfApi,
    files: dict[str, Path | bytes],
    repo_id: str,
    private: bool,
    revision: str | None,
    message: str,
) -> Published:
    from huggingface_hub.errors import HfHubHTTPError

    api.create_repo(repo_id, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    for left in reversed(range(RACES)):
        try:
            return _commit(api, files, repo_id, revision, message)
        except HfHubHTTPError as error:
            if error.response.status_code != 412 or not left:
                raise
    raise AssertionError("unreachable")


def _commit(
    api: HfApi, files: dict[str, Path | bytes], repo_id: str, revision: str | None, message: str
) -> Published:
    """One commit on top of what is there now: our files, and away with weights they do not name."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = api.model_info(repo_id, revision=revision)
    stale = [
        s.rfilename
        for s in there.siblings or []
        if s.rfilename not in files and OUR_FILES.fullmatch(s.rfilename)
    ]
    operations: list[Any] = [CommitOperationDelete(path_in_repo=name) for name in stale]
    operations += [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()
    ]
    done = api.create_commit(
        repo_id,
        operations,
        commit_message=message,
        revision=revision,
        parent_commit=there.sha,  # so that two who publish at once cannot mix their files
    )
    return Published(repo_id=repo_id, commit=done.oid, url=f"{endpoint()}/{repo_id}")
