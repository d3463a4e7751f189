"""The Hub's address and the user's token, which must stay out of every text."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import HubError
from zoo.hub.secrets import ANY

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def endpoint() -> str:
    """Address of the Hub: ``HF_ENDPOINT``, or huggingface.co.

    Raises:
        HubError: if that is no address.
    """
    from huggingface_hub import constants

    address = os.environ.get("HF_ENDPOINT", "").rstrip("/") or str(constants.ENDPOINT)
    if not re.fullmatch(r"https?://[^/\s@]+(/\S*)?", address):
        raise HubError(f"HF_ENDPOINT is no address of a server: {address!r}; expected https://HOST")
    return address


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


def scrub(text: str, token: str | None) -> str:
    """``text`` without the token, and without anything that looks like a secret."""
    if token:
        text = text.replace(token, "***")
    return ANY.sub("***", text)


def harmless(error: BaseException, token: str | None) -> BaseException | None:
    """``error`` as a cause to show, unless a text in its chain holds a token."""
    text = "\n".join(str(e) for e in chain(error))
    return error if scrub(text, token) == text else None


def chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what lies behind it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
