"""A hub of one repository on this machine, as far as huggingface_hub's client asks it when it fetches one."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "c0ffee" + "0" * 34


@contextmanager
def serving(name: str, folder: Path, revision: str = "main"):
    """The address of a server that has `folder` as the repository `name`, and what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = urlsplit(self.path).path
            asked.append(path)
            about = {"id": name, "modelId": name, "sha": COMMIT, "siblings": [], "tags": [], "private": False}
            if path == f"/api/models/{name}/revision/{revision}":
                return self.answer(json.dumps(about).encode(), "application/json")
            if path == f"/api/models/{name}/tree/{COMMIT}":
                return self.answer(json.dumps(list(_tree(folder))).encode(), "application/json")
            file = folder / path.removeprefix(f"/{name}/resolve/{COMMIT}/")
            if path.startswith(f"/{name}/resolve/") and file.is_file():
                return self.answer(file.read_bytes(), "application/octet-stream")
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        do_HEAD = do_GET

        def answer(self, content: bytes, kind: str):
            self.send_response(200)
            headers = {"Content-Type": kind, "Content-Length": len(content), "X-Repo-Commit": COMMIT}
            for header, value in {**headers, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}.items():
                self.send_header(header, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def _tree(folder: Path):
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        yield {"type": "file", "path": path.relative_to(folder).as_posix(), "size": len(content), "oid": oid}
