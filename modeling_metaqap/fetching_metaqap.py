"""Fetches a file from a web address, within limits of time, bytes and place."""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

_MOST_REDIRECTS = 5


@dataclass(frozen=True)
class Fetching:
    """What may be fetched from a web address.

    Attributes:
        timeout: Seconds for all of it, redirects and a server that drips included. (What the machine takes to look a
            name up is not cut short, but counts.)
        max_bytes: A larger file is given up.
        allow_private: Whether addresses of this machine and of private networks may be asked. A server that takes
            addresses from its users must leave this off; otherwise they can reach what only the server can.
    """

    timeout: float = 20.0
    max_bytes: int = 100_000_000
    allow_private: bool = False


def is_web_address(text: str) -> bool:
    """Whether this is an address that `fetch` takes."""
    return text.lower().startswith(("http://", "https://"))


def fetch(address: str, fetching: Fetching) -> bytes:
    """What a web address holds.

    Each redirect is checked like the first address, and the connection goes to the very address that was checked. The
    environment's proxies are not used, since nobody could check what they connect to.

    Raises:
        ValueError: for an address that is not `http` or `https`, or a private one that is not allowed.
        OSError: if it cannot be reached, answers with an error, or is over a limit.
    """
    end = time.monotonic() + fetching.timeout
    for _ in range(_MOST_REDIRECTS + 1):
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{_shown(address)} is not an http or https address.")
        redirect, data = _request(parts, fetching, end)
        if redirect is None:
            return data
        address = urljoin(address, redirect)
    raise OSError(f"{_shown(address)} leads from one address to the next.")


def _request(parts: SplitResult, fetching: Fetching, end: float) -> tuple[str | None, bytes]:
    """Where the address leads to, or None and what it holds."""
    shown, host = _shown(parts.geturl()), parts.hostname or ""
    connection: socket.socket | None = None
    timer: threading.Timer | None = None
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        place = _checked_place(host, port, fetching, shown)
        connection = socket.create_connection(place, timeout=_left(end))
        # A limit of a single read would not stop a server that sends a byte now and then: this ends every wait.
        timer = threading.Timer(_left(end), _shut, [connection])
        timer.daemon = True
        timer.start()
        if parts.scheme == "https":
            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=host)
        answer = _ask(connection, parts, fetching, shown)
        if time.monotonic() >= end:  # what was cut off can look like a short answer
            raise TimeoutError
        return answer
    except (OSError, http.client.HTTPException) as error:
        if time.monotonic() >= end:
            raise OSError(f"{shown} took longer than {fetching.timeout:g} seconds.") from error
        if isinstance(error, OSError) and not error.strerror and str(error).startswith(shown):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OSError(f"{shown} cannot be fetched: {reason or type(error).__name__}.") from error
    finally:
        if timer is not None:
            timer.cancel()
        if connection is not None:
            connection.close()


def _checked_place(host: str, port: int, fetching: Fetching, shown: str) -> tuple[str, int]:
    """Number and port to connect to. All numbers that a name stands for must be public, unless others are allowed."""
    try:
        numbers = [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except UnicodeError as error:
        raise ValueError(f"{shown} has no name of a server in it.") from error
    if not fetching.allow_private and not all(map(_is_public, numbers)):
        raise ValueError(f"{shown} is an address of this machine or of a private network, which may not be fetched.")
    return numbers[0], port


def _is_public(number: str) -> bool:
    address = ipaddress.ip_address(number.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        # IPv4 addresses in the clothes of IPv6.
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is not None:
            return _is_public(str(inner))
        if address in ipaddress.IPv6Network("64:ff9b::/96"):
            return _is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
    return address.is_global and not address.is_multicast


def _ask(connection: socket.socket, parts: SplitResult, fetching: Fetching, shown: str) -> tuple[str | None, bytes]:
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    client = kind(parts.hostname or "", parts.port)
    client.sock = connection
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # Some servers, Wikimedia's among them, refuse Python's default agent.
    client.request("GET", path, headers={"User-Agent": "metaqap"})
    response = client.getresponse()
    if response.status in (301, 302, 303, 307, 308) and (location := response.headers.get("Location")):
        return location, b""
    if response.status != 200:
        raise OSError(f"{shown} answers {response.status} {response.reason}.")
    data = bytearray()
    while len(data) <= fetching.max_bytes and (chunk := response.read1(1 << 16)):
        data += chunk
    if len(data) > fetching.max_bytes:
        raise OSError(f"{shown} holds more than {fetching.max_bytes:,} bytes.")
    if response.length:
        raise OSError(f"{shown} broke off.")
    return None, bytes(data)


def _left(end: float) -> float:
    return max(0.001, end - time.monotonic())


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed already


def _shown(address: str) -> str:
    """The address for messages: short, and without a password."""
    parts = urlsplit(address)
    text = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return text if len(text) < 200 else f"{text[:200]}..."


__all__ = ["Fetching", "fetch", "is_web_address"]
