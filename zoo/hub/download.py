"""Repositories on the Hub: fetching from them, the token, and what goes wrong on the way, in words."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import HubError, HubFileNotFoundError
from zoo.files.layout import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, check_shard_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub.errors import HfHubHTTPError

TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}")  # what a token looks like in a text
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def endpoint() -> str:
    """Address of the Hub: ``HF_ENDPOINT``, or huggingface.co."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or str(constants.ENDPOINT)


def find_token(source: str = "any") -> str | None:
    """The user's token: never an argument, so that it stays out of histories and process lists.

    Args:
        source: ``"env"`` takes HF_TOKEN and nothing else, ``"login"`` what ``hf auth login`` stored,
            ``"any"`` the former and then the latter.

    Raises:
        HubError: if the named source has none, or the token cannot be one.
    """
    from huggingface_hub import constants, get_token

    token: str | None
    if source == "env":
        token = os.environ.get("HF_TOKEN", "").strip() or None
        if token is None:
            raise HubError("there is no token in HF_TOKEN; export it, or use the one of `hf auth login`")
    elif source == "login":
        path = Path(constants.HF_TOKEN_PATH)
        token = path.read_text().strip() if path.is_file() else None
        if not token:
            raise HubError("no token is stored; log in with `hf auth login`, or take it from HF_TOKEN")
    elif source == "any":
        token = get_token()
    else:
        raise ValueError(f"a token comes from 'any', 'env' or 'login', not from {source!r}")
    # a line break in it would make an HTTP library quote the whole header in its error
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise HubError(f"the token (from {source}) has characters that no token has; {LOGIN}")
    return token


def split_repository(repository: str) -> tuple[str, str | None]:
    """``"OWNER/NAME@REV"`` -> ``("OWNER/NAME", "REV")``.

    Raises:
        ValueError: if that is no name of a repository.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

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


def scrub(text: str, token: str | None) -> str:
    """``text`` without the token, and without anything that looks like one."""
    if token:
        text = text.replace(token, "***")
    return TOKEN.sub("***", text)


def holds_token(text: str, token: str | None) -> bool:
    """Whether ``text`` has the token in it, or something that looks like one."""
    return scrub(text, token) != text


def harmless(error: BaseException, token: str | None) -> BaseException | None:
    """``error`` as a cause to show, unless a text in its chain holds a token."""
    text = "\n".join(str(e) for e in chain(error))
    return None if holds_token(text, token) else error


def chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what lies behind it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def explain(
    error: BaseException,
    repo_id: str,
    token: str | None,
    *,
    revision: str | None = None,
    file: str | None = None,
    writing: bool = False,
) -> str | None:
    """What went wrong between us and the Hub, and the way out; ``None`` if it is another matter."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    hub = re.sub(r"^https?://", "", endpoint())
    for link in chain(error):
        if isinstance(link, errors.OfflineModeIsEnabled):
            return "offline mode is on (HF_HUB_OFFLINE=1); switch it off once, or use 'local-dir:PATH'"
        if isinstance(link, errors.FileMetadataError):
            return f"{hub} answers like no Hub (it names no commit); check HF_ENDPOINT"
        if isinstance(link, errors.HfHubHTTPError):
            return _explain_status(link, repo_id, token, hub, revision, file, writing)
        if isinstance(link, httpx.ConnectError):
            return (
                f"no connection to {hub} ({scrub(_line(link), token)}); check the network, or fetch the"
                " folder on another machine and use 'local-dir:PATH'"
            )
        if isinstance(link, httpx.TimeoutException):
            return f"{hub} did not answer in time; try again later"
        if isinstance(link, httpx.TransportError):
            done = f"{repo_id} has all of it or nothing" if writing else "nothing half-fetched was kept"
            return f"the connection to {hub} broke ({scrub(_line(link), token)}); {done}: do it again"
        if isinstance(link, (ConnectionError, TimeoutError)):  # what hf_xet raises
            return f"the connection to {hub} broke ({scrub(_line(link), token)}); do it again"
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk is full ({link.filename or 'cache'}); make room, or set HF_HUB_CACHE elsewhere"
        if isinstance(link, OSError) and "Consistency check failed" in str(link):
            return f"{hub} sent another number of bytes than it announced; nothing was kept: do it again"
    if any(isinstance(link, errors.LocalEntryNotFoundError) for link in chain(error)):
        return (
            f"{hub} is not to be asked now (HF_HUB_OFFLINE, or no connection); fetch it once while online,"
            " or use 'local-dir:PATH'"
        )
    return None


def _explain_status(
    error: HfHubHTTPError,
    repo_id: str,
    token: str | None,
    hub: str,
    revision: str | None,
    file: str | None,
    writing: bool,
) -> str:
    from huggingface_hub import errors
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    status = error.response.status_code
    headers = error.response.headers
    said = scrub((error.server_message or headers.get("X-Error-Message") or "").strip(), token)
    answer = f"{hub} answers {status}" + (f" ({said.splitlines()[0]})" if said else "")
    owner = repo_id.partition("/")[0]
    if status == 429:
        info = parse_ratelimit_headers(headers)
        seconds = headers.get("Retry-After") or (str(info.reset_in_seconds) if info else "")
        wait = f"try again in {seconds} seconds" if seconds.isdigit() else "try again later"
        more = "" if token else "; with a token the limit is higher: " + LOGIN
        return f"{answer}: too many requests; {wait}{more}"
    if isinstance(error, errors.GatedRepoError):
        return f"{answer}: access to {repo_id} must be granted; ask on {endpoint()}/{repo_id}, and {LOGIN}"
    if isinstance(error, errors.DisabledRepoError):
        return f"{answer}: {repo_id} is disabled"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{answer}: {repo_id} has no revision {revision or 'main'!r}"
    if isinstance(error, errors.EntryNotFoundError):
        what = f"{answer}: {repo_id} has no {file or 'such file'}"
        if file == CONFIG_FILE:
            return (
                f"{what}, which would say what network it is, so it was not published by zoo.push or timm;"
                " if you know the network: zoo.load(NAME, weights=FILE)"
            )
        return f"{what}; this zoo reads safetensors only, as zoo.push writes them"
    if status == 401 and token and not isinstance(error, errors.RepositoryNotFoundError):
        return f"{answer}: the token is not accepted (expired, revoked or mistyped?); {LOGIN}"
    if status == 401 and not token:
        return f"{answer}: there is no public {repo_id}, and no token was found; {LOGIN}"
    if status == 403:
        need = f"writing to {owner}" if writing else f"reading {repo_id}"
        return f"{answer}: the token does not permit {need}; make one that does: {endpoint()}/settings/tokens"
    if status in (401, 404) or isinstance(error, errors.RepositoryNotFoundError):
        if writing:
            return f"{answer}: no repository {repo_id}, or no right to write it; check OWNER/NAME and {LOGIN}"
        seen = "and this token sees no private one" if token else "or it is private: " + LOGIN
        return f"{answer}: there is no repository {repo_id}, {seen}; check the name"
    if status in (409, 412):
        return f"{answer}: somebody else changed {repo_id} at the same time; do it again"
    if status == 405 and writing:
        return f"{answer}: it takes no uploads; check HF_ENDPOINT"
    if status >= 500:
        return f"{answer}: the server has trouble; try again later"
    return answer


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder as a mapping.

    Raises:
        ValueError: if it is none.
    """
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG_FILE} holds a {type(config).__name__}")
    return config
