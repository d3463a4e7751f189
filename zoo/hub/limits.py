"""Limits of time and size for every request to the Hub, uploads and trickling downloads included.

The client library waits for ever where it sets no time limit (publishing), and its limit for downloads is one
of silence, which a byte a second never reaches. Here a call runs in a thread of its own and is given up when
one of its requests stands still. Transfers of ``hf_xet`` pass by: they have limits of their own.
"""

from __future__ import annotations

import contextvars
import re
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from huggingface_hub import get_session
from huggingface_hub.utils import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONNECT = 10.0  # seconds to connect
SILENCE = 25.0  # seconds between two bytes, where the client library sets no limit
ANSWER = 60.0  # seconds from the last byte sent to the end of the headers received
WINDOW = 30.0  # seconds over which a transfer's rate is taken
SLOWEST = 1024  # bytes a second; slower transfers are given up
SMALL = 64 * 2**20  # bytes of an answer that is no file of weights
SLICE = 2**16  # bytes handed to the network at once, so that a slow upload can be told from a dead one
POLL = 0.25  # seconds between two looks
TAG = re.compile(r'(W/)?"?[\w.:+=-]{1,256}"?')  # of headers that the client library makes names of files from

T = TypeVar("T")


class BadAnswerError(Exception):
    """A request stood still, or its answer is none that may be used; the message says which."""


@dataclass(kw_only=True)
class _Transfer:
    """One request: what it is doing, since when, and the bytes of the current window."""

    patience: float
    phase: str = "sending"  # then "waiting" for headers, "receiving" a body, "done"
    since: float = field(default_factory=time.monotonic)
    moved: int = 0
    received: int = 0

    def enter(self, phase: str) -> None:
        self.phase, self.since, self.moved = phase, time.monotonic(), 0

    def trouble(self) -> str | None:
        """What is wrong, if it stands still."""
        waited = time.monotonic() - self.since
        if self.phase == "waiting" and waited > ANSWER:
            return f"gave no answer within {ANSWER:.0f} seconds"
        if self.phase in ("sending", "receiving") and waited > WINDOW:
            if self.moved < SLOWEST * WINDOW:
                return f"moved {self.moved:,} bytes in {waited:.0f} seconds"
            self.since, self.moved = time.monotonic(), 0
        return None

    @property
    def fell_silent(self) -> bool:
        return self.phase in ("sending", "waiting") and time.monotonic() - self.since >= 0.9 * self.patience


class _Watch:
    """The requests of one call; the client library shares some of them among threads."""

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.given_up = False
        self.transfers: dict[int, _Transfer] = {}  # by thread: each has one request at a time

    def begin(self, patience: float) -> _Transfer:
        before = self.transfers.get(threading.get_ident())
        if before is not None and before.fell_silent:  # trying again would double the waiting
            raise BadAnswerError(f"did not answer within {before.patience:.0f} seconds")
        transfer = self.transfers[threading.get_ident()] = _Transfer(patience=patience)
        return transfer

    def move(self, transfer: _Transfer, count: int) -> None:
        if self.given_up:
            raise BadAnswerError("was given up")
        transfer.moved += count
        if transfer.phase == "receiving":
            transfer.received += count
            if self.most is not None and transfer.received > self.most:
                raise BadAnswerError(f"sends more than {self.most:,} bytes where a short answer is expected")

    def trouble(self) -> str | None:
        found = (transfer.trouble() for transfer in list(self.transfers.values()))
        return next((text for text in found if text is not None), None)


_current: contextvars.ContextVar[_Watch | None] = contextvars.ContextVar("watch", default=None)
_active: list[_Watch] = []  # for the threads that the client library starts, which have no context


class _Counted(httpx.SyncByteStream):
    """A body that tells its watch what passes."""

    def __init__(self, body: httpx.SyncByteStream, watch: _Watch, transfer: _Transfer, after: str) -> None:
        self.body, self.watch, self.transfer, self.after = body, watch, transfer, after

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.body:
            for begin in range(0, len(chunk), SLICE):
                piece = chunk[begin : begin + SLICE]
                self.watch.move(self.transfer, len(piece))
                yield piece
        self.transfer.enter(self.after)

    def close(self) -> None:
        self.transfer.enter(self.after)
        self.body.close()


def bounded(call: Callable[[], T], *, most: int | None = SMALL) -> T:
    """Answer of ``call``, which asks the Hub, or an error once a request stands still.

    Args:
        call: what uses ``huggingface_hub``.
        most: bytes of one answer's body; None for files of any size.

    Raises:
        BadAnswerError: if a server, or the network, falls silent, trickles, or sends more than asked for.
    """
    watch = _Watch(most)
    future: Future[T] = Future()

    def work() -> None:
        _current.set(watch)
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    _active.append(watch)
    try:
        threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
        while True:
            _hook(get_session())  # a new one after each connection that failed
            if wait([future], POLL).done:
                return future.result()
            if (trouble := watch.trouble()) is not None:
                raise BadAnswerError(trouble)
    finally:
        watch.given_up = True
        _active.remove(watch)


def _hook(client: httpx.Client) -> None:
    hooks = client.event_hooks
    if _before not in hooks["request"]:
        request, response = [*hooks["request"], _before], [*hooks["response"], _after]
        client.event_hooks = {"request": request, "response": response}


def _watch() -> _Watch | None:
    return _current.get() or (_active[-1] if _active else None)


def _before(request: httpx.Request) -> None:
    """Set the limits that are missing, and watch what is sent."""
    if (watch := _watch()) is None:
        return
    if watch.given_up:
        raise BadAnswerError("was given up")
    limits = {"connect": CONNECT, "read": SILENCE, "write": SILENCE, "pool": SILENCE}
    given = request.extensions.get("timeout", {})
    limits |= {key: value for key, value in given.items() if value is not None}
    request.extensions = {**request.extensions, "timeout": limits}
    request.headers["Accept-Encoding"] = "identity"  # what is packed has no size that could be bounded
    transfer = watch.begin(limits["read"])
    assert isinstance(request.stream, httpx.SyncByteStream)
    request.stream = _Counted(request.stream, watch, transfer, "waiting")


def _after(response: httpx.Response) -> None:
    """Watch what comes back."""
    sent = response.request.stream
    if not isinstance(sent, _Counted):
        return
    packed = response.headers.get("Content-Encoding", "identity").strip().lower()
    if response.request.method != "HEAD" and not re.fullmatch(r"(identity)?", packed):
        raise BadAnswerError(f"sends a packed answer ({packed}) that was not asked for")
    for name in ("ETag", "X-Linked-Etag", "X-Repo-Commit"):
        if (tag := response.headers.get(name)) is not None and (".." in tag or not TAG.fullmatch(tag)):
            raise BadAnswerError(f"sends {name} {tag[:80]!r}, which could lead out of the cache")
    sent.transfer.enter("receiving")
    assert isinstance(response.stream, httpx.SyncByteStream)
    response.stream = _Counted(response.stream, sent.watch, sent.transfer, "done")
