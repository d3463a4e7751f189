"""Who may use the page: a browser on this machine that was given its address, no foreign web page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")


class SameMachineOnly:
    """Refuses requests whose Host or Origin is not the page's own address.

    A web page whose name is made to lead to 127.0.0.1 (DNS rebinding) carries its own name as Host, and a
    foreign page that posts to this one carries its address as Origin.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] == "lifespan" or _is_own(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse("this page serves its own address only", 403)(scope, receive, send)


def _is_own(scope: Scope) -> bool:
    def sent(name: bytes) -> list[str]:
        return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]

    port = scope["server"][1]
    own = {f"{host}:{port}" for host in HOSTS} | (set(HOSTS) if port == 80 else set())
    hosts, origins = sent(b"host"), sent(b"origin")
    if len(hosts) != 1 or hosts[0] not in own:
        return False
    if any(origin not in {f"http://{host}" for host in own} for origin in origins):
        return False
    opened_as_page = sent(b"sec-fetch-mode") == ["navigate"] and scope.get("method") == "GET"
    return sent(b"sec-fetch-site") != ["cross-site"] or opened_as_page
