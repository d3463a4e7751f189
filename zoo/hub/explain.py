"""What goes wrong between us and the Hub, in words."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from zoo.files.layout import CONFIG_FILE
from zoo.hub.token import LOGIN, chain, endpoint, scrub

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError


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
    from huggingface_hub.utils import httpx

    from zoo.hub.limits import BadAnswerError

    hub = re.sub(r"^https?://", "", endpoint())
    for link in chain(error):
        if isinstance(link, BadAnswerError):
            unsure = f"; look at {endpoint()}/{repo_id} whether it arrived" if writing else ""
            return f"{hub} {link}: it was given up, try again later{unsure}"
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


def unexplained(error: BaseException, token: str | None) -> str:
    """What to say where `explain` knows nothing: a broken server makes the client raise nearly anything."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or _line(error)}"
    said = f"{type(error).__name__}: {scrub(_line(error), token)}"
    return f"{endpoint()} gives an answer that is not the Hub's ({said})"


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
    from huggingface_hub.utils import parse_ratelimit_headers

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
