"""Repositories on the Hub: fetching from them into the local cache."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import HubFileNotFoundError
from zoo.files.layout import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, check_shard_names
from zoo.hub.explain import explain
from zoo.hub.token import endpoint, find_token, harmless


def split_repository(repository: str) -> tuple[str, str | None]:
    """``"OWNER/NAME@REV"`` -> ``("OWNER/NAME", "REV")``.

    Raises:
        ValueError: if that is no name of a repository.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    repo_id, _, revision = repository.partition("@")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no repository: expected OWNER/NAME[@REVISION]; {error}") from None
    return repo_id, revision or None


def download(repository: str) -> Path:
    """Folder in the local cache with configuration and weights of ``OWNER/NAME@REV``.

    All files come from one commit, also if somebody publishes in the meantime. What is cached is not
    fetched again, a connection that breaks is taken up where it broke, and a file appears in the cache
    when it is whole.

    Raises:
        HubFileNotFoundError: if a file can neither be fetched nor found in the cache.
        CheckpointError: if the repository's index of weights is not to be trusted.
    """
    repo_id, revision = split_repository(repository)
    config = _fetch(repo_id, CONFIG_FILE, revision, first=True)
    commit = config.parent.name
    try:
        weights = _fetch(repo_id, WEIGHTS_FILE, commit)
    except HubFileNotFoundError:
        if not _lists(repo_id, INDEX_FILE, commit):
            raise
        weights = _fetch(repo_id, INDEX_FILE, commit)
        for name in check_shard_names(weights):
            _fetch(repo_id, name, commit)
    return weights.parent


def _fetch(repo_id: str, name: str, revision: str | None, first: bool = False) -> Path:
    """One file, from the cache or the Hub."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    where = endpoint()
    token = find_token()
    try:
        cached = try_to_load_from_cache(repo_id, name, revision=revision)
        if first and not isinstance(cached, str):
            # one question without retries: a machine without network gets its answer at once, where
            # hf_hub_download tries for half a minute
            url = hf_hub_url(repo_id, name, revision=revision, endpoint=where)
            get_hf_file_metadata(url, token=token, endpoint=where)
        return Path(hf_hub_download(repo_id, name, revision=revision, endpoint=where, token=token))
    except Exception as error:
        reason = explain(error, repo_id, token, revision=revision, file=name)
        if reason is None:
            raise
        raise HubFileNotFoundError(
            f"{name} of hf-hub:{repo_id}{f'@{revision}' if revision else ''} could not be fetched and is"
            f" not in the local cache: {reason}"
        ) from harmless(error, token)


def _lists(repo_id: str, name: str, commit: str) -> bool:
    """Whether the repository, or what is cached of it, has a file."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(repo_id, name, revision=commit), str):
        return True
    try:
        return HfApi(endpoint=endpoint(), token=find_token()).file_exists(repo_id, name, revision=commit)
    except Exception:  # the error of the file that was asked for first says it better
        return False


def forget(path: Path) -> None:
    """Remove a damaged file from the cache, and the data behind it, so that it is fetched again."""
    data = path.resolve()
    path.unlink(missing_ok=True)
    data.unlink(missing_ok=True)
