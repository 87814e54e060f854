"""A stand-in for the Hub on this machine: the part of its HTTP API that making a repository and one commit calls.

As of huggingface_hub 2.4: `/api/repos/create`, `/api/validate-yaml`, `tree`, `preupload` and `commit` of a model, and
Git LFS's batch, upload and verification. Written after what the client sends and reads.
"""

import base64
import hashlib
import json
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[str] = field(default_factory=list)


class StandInHub(ThreadingHTTPServer):
    """Runs while it is used as a context; `failing` maps a step to "500", "drop" (the connection) or "401"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.steps: list[str] = []
        self.failing: dict[str, str] = {}

    def __enter__(self) -> "StandInHub":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no concern."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandInHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def _handle(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[0] == "lfs":
            step, repository = "lfs", None
        elif parts[-3:] == ["lfs", "objects", "batch"]:
            step, repository = "batch", "/".join(parts[:2]).removesuffix(".git")
        elif parts[:2] == ["api", "models"]:
            step, repository = parts[4], "/".join(parts[2:4])
        else:
            step, repository = parts[-1], None
        self.server.steps.append(step)
        failure = self.server.failing.get(step)
        length = int(self.headers.get("Content-Length") or 0)
        if failure == "drop":
            self.rfile.read(length // 2)
            self.connection.close()
            return
        body = self._body(length)
        if failure is not None:
            self._answer({"error": "made to fail"}, status=int(failure))
        elif step == "create":
            self._create(json.loads(body))
        elif step == "validate-yaml":
            front = json.loads(body)["content"].split("---")[1]
            with suppress(yaml.YAMLError):
                if isinstance(yaml.safe_load(front), dict):
                    return self._answer({"errors": [], "warnings": []})
            self._answer({"errors": [{"message": "no metadata"}], "warnings": []}, status=400)
        elif step == "batch":
            self._batch(json.loads(body))
        elif step == "lfs":
            self._lfs(parts, body)
        elif repository not in self.server.repositories:
            self._answer({"error": "Repository not found"}, status=404)
        elif step == "tree":
            files = self.server.repositories[repository].files
            self._answer(
                [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in files.items()]
            )
        elif step == "preupload":
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".onnx")) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": modes})
        elif step == "commit":
            self._commit(repository, body)
        else:
            self._answer({"error": f"the stand-in has no {self.command} {self.path}"}, status=404)

    def _body(self, length: int) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(length)
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        exists = name in self.server.repositories
        if not exists:
            self.server.repositories[name] = Repository(private=asked.get("visibility") == "private")
        self._answer({"url": f"{self.server.endpoint}/{name}"}, status=409 if exists else 200)

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for item in asked["objects"]:
            place = f"{self.server.endpoint}/lfs/{item['oid']}"
            missing = item["oid"] not in self.server.blobs
            actions = {"actions": {"upload": {"href": place}, "verify": {"href": f"{place}/verify"}}}
            objects.append({**item, **(actions if missing else {})})
        self._answer({"transfer": "basic", "objects": objects})

    def _lfs(self, parts: list[str], body: bytes) -> None:
        oid = parts[1]
        if parts[-1] == "verify":
            whole = len(self.server.blobs.get(oid, b"")) == json.loads(body)["size"]
            self._answer({}, status=200 if whole else 422)
        elif hashlib.sha256(body).hexdigest() == oid:
            self.server.blobs[oid] = body
            self._answer({})
        else:
            self._answer({"error": "damaged"}, status=422)

    def _commit(self, name: str, body: bytes) -> None:
        repository = self.server.repositories[name]
        files, message = dict(repository.files), ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        repository.files = files
        repository.commits.append(message)
        oid = f"{len(repository.commits):040x}"
        self._answer({"success": True, "commitOid": oid, "commitUrl": f"{self.server.endpoint}/{name}/commit/{oid}"})

    def _answer(self, content: Any, *, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
