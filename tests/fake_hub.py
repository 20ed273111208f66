"""A hub on loopback: the part of the Hugging Face hub's HTTP interface that pushing and pulling use."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors",)


@dataclass
class Hub:
    """files: path -> content of each repository, by "models/USER/NAME" or "spaces/USER/NAME"."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    sdk: str = ""
    failures: int = 0  # requests still to be answered with status `failure`
    failure: int = 503
    damage: bool = False  # whether large files arrive with a flipped bit
    requests: list[str] = field(default_factory=list)

    def commit(self, repository: str) -> str:
        """A commit hash that changes with the files."""
        return hashlib.sha1(repr(sorted(self.files[repository].items())).encode()).hexdigest()

    def entry(self, path: str, content: bytes) -> dict:
        """A file as the hub lists it: git's hash, and SHA-256 for what is stored as a large file."""
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        info = {"type": "file", "path": path, "size": len(content), "oid": git}
        if path.endswith(LARGE):
            info["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return info


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, body: object = b"", status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def serve(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} /{path}")
        if self.hub.failures > 0:
            self.hub.failures -= 1
            return self.answer({"error": "out of order"}, self.hub.failure)
        parts = path.split("/")
        if path == "api/repos/create":
            return self.create(json.loads(body))
        if path == "api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if parts[0] == "upload":
            self.hub.blobs[parts[1]] = body
            return self.answer()
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        if parts[0] == "api":
            return self.api("/".join(parts[1:4]), parts[4:], body)
        kind = ["models"] if parts[0] != "spaces" else []
        return self.resolve("/".join((kind + parts)[:3]), "/".join((kind + parts)[5:]))

    do_GET = do_HEAD = do_POST = do_PUT = serve

    def create(self, asked: dict) -> None:
        kind = asked.get("type") or "model"
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        self.hub.sdk = asked.get("sdk") or ""
        known = f"{kind}s/{name}" in self.hub.files
        self.hub.files.setdefault(f"{kind}s/{name}", {})
        prefix = "" if kind == "model" else f"{kind}s/"
        self.answer({"url": f"{self.hub.url}/{prefix}{name}"}, 409 if known else 200)

    def batch(self, asked: dict) -> None:
        objects = [
            {**o, "actions": {"upload": {"href": f"{self.hub.url}/upload/{o['oid']}"}}} for o in asked["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects}, headers={"Content-Type": "application/json"})

    def api(self, repository: str, what: list[str], body: bytes) -> None:
        if repository not in self.hub.files:
            return self.answer({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        files = self.hub.files[repository]
        sha = self.hub.commit(repository)
        if not what or what[0] == "revision":
            if what and what[1] not in ("main", sha):
                return self.answer({"error": "no revision"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return self.answer({"id": repository.split("/", 1)[1], "sha": sha, "siblings": []})
        if what[0] == "tree":
            return self.answer([self.hub.entry(path, content) for path, content in files.items()])
        if what[0] == "paths-info":
            return self.answer([self.hub.entry(path, content) for path, content in files.items()])
        if what[0] == "preupload":
            asked = json.loads(body)["files"]
            mode = {True: "lfs", False: "regular"}
            answers = [
                {"path": f["path"], "uploadMode": mode[f["path"].endswith(LARGE)], "shouldIgnore": False} for f in asked
            ]
            return self.answer({"files": answers})
        assert what[0] == "commit", what
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.hub.blobs[line["value"]["oid"]]
        sha = self.hub.commit(repository)
        name = repository.removeprefix("models/")
        url = f"{self.hub.url}/{name}/commit/{sha}"
        return self.answer({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def resolve(self, repository: str, path: str) -> None:
        content = self.hub.files[repository][path]
        info = self.hub.entry(path, content)
        etag = info["lfs"]["oid"] if "lfs" in info else info["oid"]
        if self.hub.damage and "lfs" in info:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.answer(content, headers={"ETag": f'"{etag}"', "X-Repo-Commit": self.hub.commit(repository)})


@contextmanager
def serving():
    """A hub listening on a free port of loopback."""
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
