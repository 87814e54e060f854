"""Fetching from web addresses, on servers of this machine that do what an attacker's would."""

import io
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from PIL import Image

from modeling_metaqap import MetaQAPImageProcessor, fetching_metaqap
from modeling_metaqap.fetching_metaqap import Fetching, fetch
from modeling_metaqap.image_processing_metaqap import load_image

LOCAL = Fetching(allow_private=True)


@contextmanager
def serving(*answers):
    """Address of a server that gives these answers, one to each visitor: bytes, or what writes to the connection."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(30)

    def serve():
        for answer in answers:
            try:
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    answer(connection) if callable(answer) else connection.sendall(answer)
            except OSError:
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/photo.png"
    finally:
        server.close()
        thread.join(10)


def answered(data, *headers, status="200 OK"):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_an_address_holds_is_fetched():
    with serving(answered(b"a photograph")) as address:
        assert fetch(address, LOCAL) == b"a photograph"
    with serving(b"HTTP/1.0 200 OK\r\n\r\nwithout a length") as address:
        assert fetch(address, LOCAL) == b"without a length"


def test_redirects_are_followed_a_few_times():
    with serving(answered(b"", "Location: /other.png", status="302 Found"), answered(b"other")) as address:
        assert fetch(address, LOCAL) == b"other"
    with serving(*[answered(b"", "Location: /again", status="302 Found")] * 9) as address:
        with pytest.raises(OSError, match="leads from one address to the next"):
            fetch(address, LOCAL)


def test_the_image_processor_fetches_only_when_that_is_asked_for(tmp_path):
    processor = MetaQAPImageProcessor()
    with serving(answered(png())) as address:
        with pytest.raises(ValueError, match="fetched only when that is asked for"):
            processor(address)
        with pytest.raises(ValueError, match="fetched only when that is asked for"):
            load_image(address.replace("http", "HTTP"))
        pixels = processor.allow_fetching(allow_private=True)(address, return_tensors="pt").pixel_values
    assert pixels[0, 0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    processor.save_pretrained(tmp_path)
    assert "fetching" not in (tmp_path / "preprocessor_config.json").read_text()
    for taken in (MetaQAPImageProcessor.from_pretrained(tmp_path), MetaQAPImageProcessor(_fetching=LOCAL)):
        with pytest.raises(ValueError, match="fetched only when that is asked for"):
            taken(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://0.0.0.0/",
        "http://2130706433/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://[2002:7f00:1::]/",
        "http://[64:ff9b::10.0.0.1]/",
        "https://127.0.0.1/",
    ],
)
def test_private_addresses_are_refused(address, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *arguments, **options: pytest.fail("it was asked"))
    try:
        with pytest.raises(ValueError, match="an address of this machine or of a private network"):
            fetch(address, Fetching())
    except OSError as error:  # the machine of the test may know no numbers of version 6
        assert "[" in address and "cannot be fetched" in str(error)


def test_public_numbers_are_public():
    assert all(map(fetching_metaqap._is_public, ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"]))


def test_a_redirect_to_a_private_address_is_refused(monkeypatch):
    monkeypatch.setattr(fetching_metaqap, "_is_public", lambda number: number == "127.0.0.1")
    with serving(answered(b"", "Location: http://127.0.0.2/secret", status="301 Moved")) as address:
        with pytest.raises(ValueError, match="http://127.0.0.2/secret is an address of this machine"):
            fetch(address, Fetching())


def test_a_name_with_one_private_number_is_refused(monkeypatch):
    numbers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (number, 80)) for number in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: numbers)
    with pytest.raises(ValueError, match="of a private network"):
        fetch("http://photos.example/", Fetching())


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://", "https:///x", "gopher://x"])
def test_only_http_is_spoken(address):
    with pytest.raises(ValueError, match="not an http or https address"):
        fetch(address, LOCAL)


def test_a_redirect_to_a_file_is_refused():
    with serving(answered(b"", "Location: file:///etc/passwd", status="302 Found")) as address:
        with pytest.raises(ValueError, match="not an http or https address"):
            fetch(address, LOCAL)


def dripping(head):
    def answer(connection):
        connection.sendall(head)
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(0.05)

    return answer


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Slow: ", b""],
    ids=["body", "headers", "status"],
)
def test_a_server_that_drips_is_cut_off(head):
    with serving(dripping(head)) as address:
        start = time.monotonic()
        with pytest.raises(OSError, match=r"took longer than 0\.5 seconds"):
            fetch(address, Fetching(timeout=0.5, allow_private=True))
        assert time.monotonic() - start < 3


def test_a_server_that_says_nothing_is_cut_off():
    with serving(lambda connection: time.sleep(3)) as address:
        start = time.monotonic()
        with pytest.raises(OSError, match="took longer than"):
            fetch(address, Fetching(timeout=0.5, allow_private=True))
        assert time.monotonic() - start < 2.5


@pytest.mark.parametrize(
    "head", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
)
def test_a_file_over_the_limit_is_given_up(head):
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n" if b"chunked" in head else bytes(65536)

    def endless(connection):
        connection.sendall(head)
        for _ in range(1_000):
            connection.sendall(chunk)

    with serving(endless) as address:
        with pytest.raises(OSError, match="holds more than 1,000,000 bytes"):
            fetch(address, Fetching(max_bytes=1_000_000, allow_private=True))


def test_a_file_that_breaks_off_is_an_error():
    with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort") as address:
        with pytest.raises(OSError, match="photo.png (broke off|cannot be fetched)"):
            fetch(address, LOCAL)


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1_000 + b"\r\n"])
def test_an_answer_that_is_no_http_is_an_error(answer):
    with (
        serving(answer) as address,
        pytest.raises(OSError, match=r"http://127\.0\.0\.1:\d+/photo\.png cannot be fetched"),
    ):
        fetch(address, LOCAL)


def test_an_error_of_the_server_is_said_without_what_is_secret_in_the_address():
    with serving(answered(b"", status="404 Not Found")) as address:
        secret = address.replace("http://", "http://user:password@") + "?token=secret"
        with pytest.raises(OSError, match=r"^http://127\.0\.0\.1:\d+/photo\.png answers 404 Not Found\.$"):
            fetch(secret, LOCAL)
