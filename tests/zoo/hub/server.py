"""A small server that speaks the Hub's protocol on 127.0.0.1, and can be told to misbehave.

It knows what ``huggingface_hub`` 2.4 sends to publish and to fetch a model (create, branch, preupload,
LFS batch, upload and verify, commit; info, tree, resolve with ETag and Range), keeps every commit, and
accepts a commit whole or not at all. Test code: no authentication beyond a table of tokens, no deletion.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WRITER, READER = "hf_" + "W" * 34, "hf_" + "R" * 34
LFS = (".safetensors", ".png")


@dataclass
class Repository:
    """Commits by id, and where the branches point."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, files: dict[str, bytes]) -> str:
        seed = json.dumps([len(self.commits), branch, sorted(files)]).encode() + b"".join(files.values())
        oid = hashlib.sha1(seed).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid


@dataclass
class Fault:
    """What to do instead of answering, for requests that match; ``times`` of them."""

    method: str
    path: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": "asked to fail"}'
    cut_after: int | None = None  # bytes of the body, then the connection breaks


class HubServer:
    """The server; ``url`` is its address. ``faults`` are played, ``requests`` are remembered."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # LFS, by SHA-256
        self.tokens = {WRITER: "write", READER: "read"}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.lock = threading.RLock()
        handler = type("Handler", (Handler,), {"hub": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def files(self, repo_id: str, branch: str = "main") -> dict[str, bytes]:
        repository = self.repositories[repo_id]
        return repository.commits[repository.branches[branch]]

    def put(self, repo_id: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Make a commit without the protocol."""
        return self.repositories.setdefault(repo_id, Repository()).add(branch, dict(files))

    def fail(self, method: str, path: str, **what: Any) -> Fault:
        fault = Fault(method, path, **what)
        self.faults.append(fault)
        return fault

    def count(self, method: str, path: str) -> int:
        return sum(m == method and re.search(path, p) is not None for m, p, _ in self.requests)


class Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.serve()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    # -- plumbing ------------------------------------------------------------------------------

    def serve(self) -> None:
        self.path = urllib.parse.unquote(self.path.partition("?")[0])
        hub = self.hub
        with hub.lock:
            hub.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            fault = self.pick_fault()
        if fault is not None and fault.cut_after is not None and self.command in ("PUT", "POST"):
            self.rfile.read(fault.cut_after)
            return self.cut()
        body = self.read_body()
        if fault is not None and fault.status:
            return self.answer(fault.status, fault.body, fault.headers)
        self.cut_after = None if fault is None else fault.cut_after
        try:
            self.route(body)
        except LookupError as error:
            self.answer(404, {"error": f"unknown: {error}"})
        return None

    def pick_fault(self) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times and fault.method == self.command and re.search(fault.path, self.path):
                fault.times -= 1
                return fault
        return None

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, body: Any = b"", headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        given = {"Content-Type": "application/json", **(headers or {})}
        given.setdefault("Content-Length", str(len(content)))
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut_after = getattr(self, "cut_after", None)
        self.wfile.write(content if cut_after is None else content[:cut_after])
        if cut_after is not None:
            self.wfile.flush()
            self.cut()

    @property
    def role(self) -> str | None:
        """``"write"``, ``"read"``, ``"bad"`` for a token nobody knows, ``None`` without one."""
        word = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.hub.tokens.get(word, "bad") if word else None

    # -- routes --------------------------------------------------------------------------------

    def route(self, body: bytes) -> None:
        path = self.path
        if path.startswith("/lfs/"):  # the storage: no authorization, as with signed addresses
            return self.store(path.rpartition("/")[2], body)
        if self.role == "bad":
            message = "Invalid credentials in Authorization header"
            return self.answer(401, {"error": message}, {"X-Error-Message": message})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/(.+)", path):
            return self.write(found[1], found[2], found[3], body)
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/(batch|verify)", path):
            return self.lfs(found[1], found[2], json.loads(body))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(found[1], found[2], found[3])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            return self.info(found[1], found[2], found[3] or "main")
        raise LookupError(path)

    def permitted(self) -> bool:
        if self.role is None:
            self.answer(401, {"error": "Invalid username or password."})
        elif self.role != "write":
            message = "You don't have the rights to create a model under this namespace"
            self.answer(403, {"error": message}, {"X-Error-Message": message})
        return self.role == "write"

    def create(self, asked: dict[str, Any]) -> None:
        if not self.permitted():
            return
        repo_id = f"{asked.get('organization') or 'me'}/{asked['name']}"
        url = f"{self.hub.url}/{repo_id}"
        with self.hub.lock:
            if repo_id in self.hub.repositories:
                return self.answer(409, {"error": "You already created this model repo", "url": url})
            repository = Repository(
                private=asked.get("visibility") == "private" or bool(asked.get("private"))
            )
            repository.add("main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
            self.hub.repositories[repo_id] = repository
        return self.answer(200, {"url": url, "name": repo_id, "id": repo_id})

    def write(self, repo_id: str, what: str, revision: str, body: bytes) -> None:
        if not self.permitted():
            return
        repository = self.find(repo_id)
        if repository is None:
            return
        if what == "branch":
            with self.hub.lock:
                if revision in repository.branches:
                    return self.answer(409, {"error": "Reference already exists"})
                repository.branches[revision] = repository.branches["main"]
            return self.answer(200, {})
        if revision not in repository.branches:
            return self.answer(404, {"error": "Invalid rev"}, {"X-Error-Code": "RevisionNotFound"})
        if what == "preupload":
            return self.preupload(repository.commits[repository.branches[revision]], json.loads(body))
        return self.commit(repository, repo_id, revision, body)

    def preupload(self, there: dict[str, bytes], asked: dict[str, Any]) -> None:
        files = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(LFS) else "regular",
                "shouldIgnore": False,
                "oid": oid(f["path"], there[f["path"]]) if f["path"] in there else None,
            }
            for f in asked["files"]
        ]
        self.answer(200, {"files": files})

    def lfs(self, repo_id: str, what: str, asked: dict[str, Any]) -> None:
        if not self.permitted():
            return
        if what == "verify":
            ok = len(self.hub.objects.get(asked["oid"], b"")) == asked["size"]
            return self.answer(200 if ok else 404, {})
        objects = []
        for item in asked["objects"]:
            entry: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.objects:
                entry["actions"] = {
                    "upload": {"href": f"{self.hub.url}/lfs/{item['oid']}", "header": {}},
                    "verify": {
                        "href": f"{self.hub.url}/{repo_id}.git/info/lfs/objects/verify",
                        "header": {},
                    },
                }
            objects.append(entry)
        kind = {"Content-Type": "application/vnd.git-lfs+json"}
        self.answer(200, {"transfer": "basic", "objects": objects}, kind)

    def store(self, sha256: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != sha256:
            return self.answer(400, {"error": "the content has another hash"})
        with self.hub.lock:
            self.hub.objects[sha256] = body
        return self.answer(200)

    def commit(self, repository: Repository, repo_id: str, branch: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines() if line]
        header = lines[0]["value"]
        with self.hub.lock:
            parent = header.get("parentCommit")
            if parent and parent != repository.branches[branch]:
                message = "A commit has happened since. Please refresh and try again."
                return self.answer(412, {"error": message}, {"X-Error-Message": message})
            files = dict(repository.commits[repository.branches[branch]])
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "deletedFile":
                    del files[value["path"]]
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
                else:
                    files[value["path"]] = base64.b64decode(value["content"])
            made = repository.add(branch, files)
        url = f"{self.hub.url}/{repo_id}/commit/{made}"
        return self.answer(200, {"success": True, "commitOid": made, "commitUrl": url, "hookOutput": ""})

    # -- reading -------------------------------------------------------------------------------

    def find(self, repo_id: str) -> Repository | None:
        repository = self.hub.repositories.get(repo_id)
        if repository is None or (repository.private and self.role is None):
            status = 401 if self.role is None else 404  # the Hub does not tell who asks without a token
            self.answer(status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def at(self, repository: Repository, revision: str) -> tuple[str, dict[str, bytes]] | None:
        made = repository.branches.get(revision, revision)
        if made not in repository.commits:
            self.answer(404, {"error": "Invalid rev"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return made, repository.commits[made]

    def info(self, repo_id: str, what: str | None, revision: str) -> None:
        repository = self.find(repo_id)
        found = self.at(repository, revision) if repository else None
        if found is None:
            return
        made, files = found
        if what == "tree":
            rows = [
                {"type": "file", "oid": oid("", content), "size": len(content), "path": path}
                | (
                    {"lfs": {"oid": oid(path, content), "size": len(content), "pointerSize": 130}}
                    if lfs
                    else {}
                )
                for path, content in files.items()
                for lfs in [path.endswith(LFS)]
            ]
            return self.answer(200, rows)
        return self.answer(
            200,
            {
                "_id": "0",
                "id": repo_id,
                "modelId": repo_id,
                "author": repo_id.partition("/")[0],
                "sha": made,
                "private": repository.private if repository else False,
                "disabled": False,
                "gated": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": path} for path in files],
            },
        )

    def resolve(self, repo_id: str, revision: str, path: str) -> None:
        repository = self.find(repo_id)
        found = self.at(repository, revision) if repository else None
        if found is None:
            return
        made, files = found
        headers = {"X-Repo-Commit": made, "Content-Type": "application/octet-stream"}
        if path not in files:
            return self.answer(404, {"error": "Entry not found"}, headers | {"X-Error-Code": "EntryNotFound"})
        content = files[path]
        headers |= {"ETag": f'"{oid(path, content)}"', "Accept-Ranges": "bytes"}
        if path.endswith(LFS):
            headers |= {"X-Linked-Etag": f'"{oid(path, content)}"', "X-Linked-Size": str(len(content))}
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if self.command == "HEAD":
            return self.answer(200, b"", headers | {"Content-Length": str(len(content))})
        if begin:
            start = int(begin[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self.answer(206, content[start:], headers)
        return self.answer(200, content, headers)


def oid(path: str, content: bytes) -> str:
    """What identifies a file: SHA-256 in the storage for large ones, git's blob hash otherwise."""
    if path.endswith(LFS):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
