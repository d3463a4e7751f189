"""Debian's Chromium without a window, driven over its DevTools protocol; nothing but the standard library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
MISSING = "no Chromium: apt-get install chromium"
QUIET = [  # the browser's own traffic would be mistaken for the page's
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


class Browser:
    """One page. It talks through two pipes, which the browser expects as file descriptors 3 and 4.

    Attributes:
        requests: addresses that the page asked for.
        complaints: errors on its console, and exceptions that nobody caught.
    """

    def __init__(self, profile: Path, width: int = 1280, height: int = 1000) -> None:
        ends_in, self.out = os.pipe()
        self.into, ends_out = os.pipe()
        # above 9, so that setting 3 and 4 overwrites neither
        their_in, their_out = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (ends_in, ends_out))
        words = [str(CHROMIUM), *QUIET, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        words += [f"--window-size={width},{height}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{their_in} 4>&{their_out}', "bash", *words],
            pass_fds=(their_in, their_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (ends_in, ends_out, their_in, their_out):
            os.close(end)
        self.answers: dict[int, dict[str, Any]] = {}
        self.changed = threading.Condition()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.session: str | None = None
        self.last = 0
        threading.Thread(target=self._listen, daemon=True).start()
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "DOM"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        os.close(self.out)

    def _listen(self) -> None:
        with os.fdopen(self.into, "rb") as pipe:
            rest = b""
            while part := pipe.read1(1 << 16):
                *messages, rest = (rest + part).split(b"\0")
                for message in messages:
                    self._hear(json.loads(message))

    def _hear(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        with self.changed:
            if "id" in message:
                self.answers[message["id"]] = message
            elif message["method"] == "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            elif message["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(told["exceptionDetails"]))
            elif message["method"] == "Runtime.consoleAPICalled" and told["type"] == "error":
                self.complaints.append(json.dumps(told["args"]))
            self.changed.notify_all()

    def call(self, method: str, timeout: float = 60, **params: Any) -> dict[str, Any]:
        """Ask and wait for the answer."""
        self.last += 1
        asked: dict[str, Any] = {"id": self.last, "method": method, "params": params}
        if self.session is not None:
            asked["sessionId"] = self.session
        os.write(self.out, json.dumps(asked).encode() + b"\0")
        with self.changed:
            if not self.changed.wait_for(lambda: asked["id"] in self.answers, timeout):
                raise TimeoutError(f"no answer to {method}; is Chromium alive? {self.process.poll()}")
            answer = self.answers.pop(asked["id"])
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(f"{script}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def wait(self, script: str, timeout: float = 120) -> None:
        """Go on as soon as the expression is true."""
        end = time.monotonic() + timeout
        while not self.evaluate(f"!!({script})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{script} did not become true; the page says: {self.text()}")
            time.sleep(0.1)

    def text(self) -> str:
        """What a reader sees."""
        return str(self.evaluate("document.body.innerText"))

    def upload(self, selector: str, *paths: Path) -> None:
        """Choose files in an ``<input type=file>``."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(p) for p in paths])

    def screenshot(self, path: Path) -> Path:
        """The whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path
