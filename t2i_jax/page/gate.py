"""What requests may ask the server for: a list of addresses, JSON of plain values, nothing from elsewhere."""

import json
import re

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse

NAME = r"[\w-]{1,64}"
READ = re.compile(
    rf"(?!.*\.\.)(/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static)/[\w./ -]+"
    rf"|/gradio_api/(info|startup-events|theme\.css|queue/(data|status)|heartbeat/{NAME})/?)"
)
ASK = re.compile(r"/gradio_api/(queue/join|run/predict|cancel|reset)/?")
# What the page's own script needs, and nothing from another host.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self';"
    " frame-ancestors 'self'"
)


class Gate:
    """ASGI middleware: lets through what the page itself asks for, and refuses all else of gradio.

    Args:
      app: what stands behind.
      most: bytes of a request.
    """

    def __init__(self, app, most: int):
        self._app, self._most = app, most

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return  # no socket is open here
        known = READ if scope["method"] in ("GET", "HEAD") else ASK
        if not known.fullmatch(scope["path"]):
            return await PlainTextResponse("not found", 404)(scope, receive, send)
        if scope["method"] == "POST":
            body = await self._body(Request(scope, receive))
            if body is None:
                return await PlainTextResponse("too large", 413)(scope, receive, send)
            if not _is_plain(body):
                return await PlainTextResponse("no request of this page", 400)(scope, receive, send)
            receive = _once(body, receive)

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        return await self._app(scope, receive, send_with_policy)

    async def _body(self, request) -> bytes | None:
        body = b""
        try:
            async for part in request.stream():
                body += part
                if len(body) > self._most:
                    return None
        except ClientDisconnect:
            return None
        return body


def _is_plain(body: bytes) -> bool:
    """Whether a body is a JSON object whose `data` are texts and numbers: gradio takes some objects for files."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(asked, dict):
        return False
    data = asked.get("data", [])
    return isinstance(data, list) and not any(isinstance(value, dict | list) for value in data)


def _once(body: bytes, receive):
    """An ASGI `receive` that hands out a body which was read already, then waits for the end as before."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def again():
        return parts.pop() if parts else await receive()

    return again
