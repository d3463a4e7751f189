"""Repositories on the Hub: fetching from them into the local cache."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from zoo.errors import CheckpointError, HubError, HubFileNotFoundError
from zoo.files.atomic import write_text
from zoo.files.checkpoint import HashError
from zoo.files.layout import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, check_shard_names
from zoo.hub.explain import explain, unexplained
from zoo.hub.token import endpoint, find_token, harmless

if TYPE_CHECKING:
    from collections.abc import Callable

COMMIT = re.compile(r"[0-9a-f]{40}")
REVISION = re.compile(r"(?!.*(\.\.|//|@\{))\w[\w./+-]{0,254}")  # as git's names, so that it is no path

T = TypeVar("T")


def split_repository(repository: str) -> tuple[str, str | None]:
    """``"OWNER/NAME@REV"`` -> ``("OWNER/NAME", "REV")``.

    Raises:
        ValueError: if that is no name of a repository.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    repo_id, at, revision = repository.partition("@")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no repository: expected OWNER/NAME[@REVISION]; {error}") from None
    if at and not REVISION.fullmatch(revision):
        raise ValueError(f"{revision!r} is no revision: expected OWNER/NAME@BRANCH, @TAG or @COMMIT")
    return repo_id, revision or None


def with_repository(repository: str, use: Callable[[Path], T]) -> T:
    """What ``use`` makes of the folder in the local cache that holds ``OWNER/NAME@REV``.

    A file that turns out to be damaged there is fetched again, once.

    Raises:
        HubFileNotFoundError: if a file can neither be fetched nor found in the cache.
        CheckpointError: if the repository's files are not to be trusted, or do not belong together.
    """
    folder, fetched = _download(repository)
    try:
        return use(folder)
    except HashError as error:
        if error.path.parent != folder:
            raise
        _forget(error.path)
        if error.path.name in fetched:
            raise CheckpointError(
                f"{error}; it came like this and was taken out of the cache: the next call fetches it again"
            ) from None
    return use(_download(repository)[0])


def _download(repository: str) -> tuple[Path, set[str]]:
    """Folder in the cache with configuration and weights, and the names of the files that were not there yet.

    The revision is turned into a commit first and everything is asked for by that, so that files of two
    commits never mix, also if somebody publishes in the meantime. What is cached is not fetched again, a
    connection that breaks is taken up where it broke, and a file appears in the cache when it is whole.
    """
    repo_id, revision = split_repository(repository)
    commit = _find_commit(repo_id, revision or "main")
    fetched: set[str] = set()
    weights = _fetch_small(repo_id, CONFIG_FILE, commit, fetched).parent / WEIGHTS_FILE
    try:
        _fetch(repo_id, WEIGHTS_FILE, commit, fetched)
    except HubFileNotFoundError:
        if not _lists(repo_id, INDEX_FILE, commit):
            raise
        index = _fetch_small(repo_id, INDEX_FILE, commit, fetched)
        for name in check_shard_names(index):
            _fetch(repo_id, name, commit, fetched)
    _remember(repo_id, revision or "main", commit)
    return weights.parent, fetched


def _find_commit(repo_id: str, revision: str) -> str:
    """The commit that a revision is now; without a network, that it was when it was last fetched."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import FileMetadataError

    from zoo.hub.limits import bounded

    if COMMIT.fullmatch(revision):
        return revision
    where, token = endpoint(), find_token()
    try:
        # one question without retries: a machine without network gets its answer at once
        url = hf_hub_url(repo_id, CONFIG_FILE, revision=revision, endpoint=where)
        answer = bounded(lambda: get_hf_file_metadata(url, token=token, endpoint=where))
        if answer.commit_hash is None or not COMMIT.fullmatch(answer.commit_hash):
            raise FileMetadataError(f"the commit is {answer.commit_hash!r}")
    except Exception as error:
        cached = try_to_load_from_cache(repo_id, CONFIG_FILE, revision=revision)
        if isinstance(cached, str) and COMMIT.fullmatch(commit := Path(cached).parent.name):
            return commit
        raise _failed(error, repo_id, CONFIG_FILE, revision) from harmless(error, token)
    return answer.commit_hash


def _remember(repo_id: str, revision: str, commit: str) -> None:
    """Note in the cache what a branch or tag was, as the client library does: for times without a network."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if revision == commit:
        return
    folder = repo_folder_name(repo_id=repo_id, repo_type="model")
    path = Path(constants.HF_HUB_CACHE) / folder / "refs" / revision
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, commit)
    except OSError:  # a cache that may only be read serves as well
        pass


def _fetch(
    repo_id: str, name: str, commit: str, fetched: set[str], *, force: bool = False, most: int | None = None
) -> Path:
    """One file, from the cache or the Hub."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    from zoo.hub.limits import bounded

    where, token = endpoint(), find_token()
    known = isinstance(try_to_load_from_cache(repo_id, name, revision=commit), str)
    try:
        path = bounded(
            lambda: hf_hub_download(
                repo_id, name, revision=commit, endpoint=where, token=token, force_download=force
            ),
            most=most,
        )
    except Exception as error:
        raise _failed(error, repo_id, name, commit) from harmless(error, token)
    if force or not known:
        fetched.add(name)
    return Path(path)


def _fetch_small(repo_id: str, name: str, commit: str, fetched: set[str]) -> Path:
    """A JSON file, which is fetched again if what is cached is not what the Hub named."""
    from zoo.hub.limits import SMALL

    path = _fetch(repo_id, name, commit, fetched, most=SMALL)
    if name in fetched or _is_sound(path):
        return path
    return _fetch(repo_id, name, commit, fetched, force=True, most=SMALL)


def _is_sound(path: Path) -> bool:
    """Whether a cached JSON file has the hash that it is stored under (git's, or SHA-256), or can be read."""
    data = path.read_bytes()
    stored = path.resolve().name
    if len(stored) == 40:
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == stored
    if len(stored) == 64:
        return hashlib.sha256(data).hexdigest() == stored
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _failed(error: Exception, repo_id: str, name: str, revision: str) -> HubError:
    token = find_token()
    reason = explain(error, repo_id, token, revision=revision, file=name) or unexplained(error, token)
    at = "" if revision == "main" else f"@{revision}"
    return HubFileNotFoundError(
        f"{name} of hf-hub:{repo_id}{at} could not be fetched and is not in the local cache: {reason}"
    )


def _lists(repo_id: str, name: str, commit: str) -> bool:
    """Whether the repository, or what is cached of it, has a file."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    from zoo.hub.limits import bounded

    if isinstance(try_to_load_from_cache(repo_id, name, revision=commit), str):
        return True
    try:
        api = HfApi(endpoint=endpoint(), token=find_token())
        return bounded(lambda: api.file_exists(repo_id, name, revision=commit))
    except Exception:  # the error of the file that was asked for first says it better
        return False


def _forget(path: Path) -> None:
    """Remove a damaged file from the cache, and the data behind it, so that it is fetched again."""
    data = path.resolve()
    path.unlink(missing_ok=True)
    if data.parent == path.parents[2] / "blobs":  # and nowhere else
        data.unlink(missing_ok=True)
