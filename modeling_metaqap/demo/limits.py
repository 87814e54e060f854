"""How much a visitor of the demo may ask of the server: sizes, time, and how often."""

import math
import os
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, fields, replace
from typing import Any

import gradio as gr

from ..errors import MetaQAPError

#: Variables of the environment that set a limit are named `METAQAP_MAX_PIXELS` and so on.
_PREFIX = "METAQAP_"

#: The line of requests that take minutes, of which a client may have one only.
ADAPTING = "adapt"

#: Visitors that are remembered; the ones that came first are forgotten.
_MOST_CLIENTS = 10_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a visitor may ask of the server. All numbers are at least 1, but for `max_ratings`.

    Attributes:
        max_bytes: of one file.
        max_pixels: of one image.
        max_files: of one batch.
        max_seconds: for one batch; the files that are left get an error.
        max_ratings: photographs that a checkpoint is adapted to; 0 leaves the Adapt tab out.
        max_unpacked: bytes of all files to adapt to, unpacked.
        max_adapt_seconds: for reading the photographs to adapt to.
        max_waiting: requests that wait for their turn; one more is turned away.
        client_waiting: requests of one client that wait or are computed.
        client_rate: requests of one client in a minute.
        client_upload: bytes that one client may upload in an hour.
        client_header: header in which a proxy before the server names its client, such as "x-forwarded-for"; None
            where there is no proxy. Anyone can send a header, so name one that the proxy always sets. Its last entry
            counts.
    """

    max_bytes: int = 100_000_000
    max_pixels: int = 120_000_000
    max_files: int = 200
    max_seconds: int = 600
    max_ratings: int = 500
    max_unpacked: int = 2_000_000_000
    max_adapt_seconds: int = 900
    max_waiting: int = 128
    client_waiting: int = 64
    client_rate: int = 120
    client_upload: int = 5_000_000_000
    client_header: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "max_ratings" else 1
            if field.name != "client_header" and value < least:
                raise MetaQAPError(f"The limit {field.name} must be at least {least}, got {value}.")

    @classmethod
    def from_environment(cls, **chosen: Any) -> "Limits":
        """The limits that variables such as METAQAP_MAX_PIXELS set; `chosen` ones that are not None come before them.

        Raises:
            MetaQAPError: for a variable that is no whole number, or too small a one.
        """
        values: dict[str, Any] = {}
        for field in fields(cls):
            variable = f"{_PREFIX}{field.name.upper()}"
            if text := os.environ.get(variable):
                try:
                    values[field.name] = text if field.name == "client_header" else int(text)
                except ValueError as error:
                    raise MetaQAPError(f"{variable} must be a whole number, not {text!r}.") from error
        return replace(cls(), **values | {name: value for name, value in chosen.items() if value is not None})


class _Budget:
    """What each client has used of something in the last so many seconds."""

    def __init__(self, most: float, seconds: float):
        self._most = most
        self._seconds = seconds
        self._used: dict[str, deque[tuple[float, float]]] = {}

    def left(self, client: str) -> float:
        used = self._used.get(client, deque())
        while used and used[0][0] < time.monotonic() - self._seconds:
            used.popleft()
        return self._most - math.fsum(amount for _, amount in used)

    def use(self, client: str, amount: float) -> None:
        used = self._used.pop(client, deque())
        now = time.monotonic()
        if used and now - used[-1][0] < self._seconds / 100:
            now, before = used.pop()
            amount += before
        used.append((now, amount))
        self._used[client] = used
        while len(self._used) > _MOST_CLIENTS:
            del self._used[next(iter(self._used))]


def client_of(headers: Any, peer: str | None, limits: Limits) -> str:
    """What tells a client from others: the address that it comes from."""
    named = headers.get(limits.client_header, "") if limits.client_header else ""
    return named.split(",")[-1].strip() or peer or "unknown"


def limit_queue(app: gr.Blocks, limits: Limits) -> None:
    """Turn away the requests of a client that has too many in the queue, or asks too often.

    Of those that take minutes a client may have one.

    Args:
        app: with its queue.
        limits: see there.
    """
    queue: Any = app._queue
    push: Callable[..., Any] = queue.push
    budget = _Budget(limits.client_rate, 60)

    def client_of_event(request: Any) -> str:
        return client_of(request.headers, request.client.host if request.client else None, limits)

    async def push_within_limits(body: Any, request: Any, username: str | None) -> Any:
        client = client_of_event(request)
        waiting = [event for line in queue.event_queue_per_concurrency_id.values() for event in line.queue]
        waiting += [event for job in queue.active_jobs if job for event in job]
        own = [event for event in waiting if client_of_event(event.request) == client]
        function = app.fns.get(body.fn_index)
        if function is not None and function.concurrency_id == ADAPTING:
            if any(event.concurrency_id == ADAPTING for event in own):
                return False, "Your earlier photographs are still adapted to; wait until that is done.", "queue_full"
        if len(own) >= limits.client_waiting:
            reason = f"You have {limits.client_waiting} requests waiting; try again when some are done."
            return False, reason, "queue_full"
        if budget.left(client) < 1:
            return False, f"You may ask {limits.client_rate} times a minute; try again soon.", "queue_full"
        budget.use(client, 1)
        return await push(body, request, username)

    queue.push = push_within_limits


class UploadLimit:
    """ASGI middleware: cuts off the uploads of a client that has used up its bytes."""

    def __init__(self, app: Any, limits: Limits):
        self._app = app
        self._limits = limits
        self._budget = _Budget(limits.client_upload, 3600)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        client = client_of(headers, scope["client"][0] if scope.get("client") else None, self._limits)
        length = headers.get("content-length", "0")
        if self._budget.left(client) < (int(length) if length.isdigit() else 0):
            body = b'{"detail":"You have uploaded too much for now; try again in an hour."}'
            head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 429, "headers": head})
            return await send({"type": "http.response.body", "body": body})

        async def counted() -> Any:
            message = await receive()
            self._budget.use(client, len(message.get("body", b"")))
            # Without a length at its head, an upload is known to be too long only on its way.
            return message if self._budget.left(client) >= 0 else {"type": "http.disconnect"}

        return await self._app(scope, counted, send)


__all__ = ["ADAPTING", "Limits", "UploadLimit", "limit_queue"]
