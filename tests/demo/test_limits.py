"""What one visitor of the demo may ask of the server, and that he takes nothing from the others."""

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("gradio", reason="the demo needs Gradio: pip install -e '.[space]'")
import gradio as gr
import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from modeling_metaqap.demo import limits as limits_module
from modeling_metaqap.demo.assessment import Assessor
from modeling_metaqap.demo.limits import Limits, UploadLimit, limit_queue
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.inference.records import ScoreRecord


def request_of(address, **headers):
    return SimpleNamespace(client=SimpleNamespace(host=address), headers=headers)


class Queue:
    """An app whose queue keeps all that is pushed."""

    def __init__(self):
        self.line = SimpleNamespace(queue=[])
        self.event_queue_per_concurrency_id = {"model": self.line}
        self.fns = {number: SimpleNamespace(concurrency_id=name) for number, name in enumerate(("model", "adapt"))}
        self.active_jobs = [None, []]
        self._queue = self

    async def push(self, body, request, username):
        line = self.fns[body.fn_index].concurrency_id
        self.line.queue.append(SimpleNamespace(request=request, concurrency_id=line))
        return True, "id", "success"


@pytest.fixture
def clock(monkeypatch):
    time = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("time.monotonic", lambda: time.now)
    return time


def ask(queue, address, function=0, **headers):
    return asyncio.run(queue.push(SimpleNamespace(fn_index=function), request_of(address, **headers), None))


def test_one_client_cannot_fill_the_queue():
    queue = Queue()
    limit_queue(queue, Limits(client_waiting=3))
    answers = [ask(queue, "10.0.0.1") for _ in range(130)]
    assert [kind for _, _, kind in answers] == ["success"] * 3 + ["queue_full"] * 127
    assert "You have 3 requests waiting" in answers[-1][1]
    assert ask(queue, "10.0.0.2")[0], "another client is served"
    queue.active_jobs = [[queue.line.queue.pop(0)], None]
    assert not ask(queue, "10.0.0.1")[0], "what is computed counts as well"
    queue.active_jobs = [None, None]
    assert ask(queue, "10.0.0.1")[0]


def test_one_client_has_one_request_that_takes_minutes():
    queue = Queue()
    limit_queue(queue, Limits())
    assert ask(queue, "10.0.0.1", 0)[0] and ask(queue, "10.0.0.1", 1)[0]
    taken, reason, kind = ask(queue, "10.0.0.1", 1)
    assert (taken, kind) == (False, "queue_full") and "wait until that is done" in reason
    assert ask(queue, "10.0.0.1", 0)[0] and ask(queue, "10.0.0.2", 1)[0], "nobody else and nothing else waits"
    queue.active_jobs, queue.line.queue = [queue.line.queue], []
    assert not ask(queue, "10.0.0.1", 1)[0], "what is computed counts as well"
    queue.active_jobs = []
    assert ask(queue, "10.0.0.1", 1)[0]


def test_one_client_may_ask_so_many_times_a_minute(clock):
    queue = Queue()
    limit_queue(queue, Limits(client_rate=2, client_waiting=99))
    assert [ask(queue, "10.0.0.1")[0] for _ in range(3)] == [True, True, False]
    assert "2 times a minute" in ask(queue, "10.0.0.1")[1] and ask(queue, "10.0.0.2")[0]
    clock.now += 61
    assert ask(queue, "10.0.0.1")[0]


def test_a_proxy_names_the_client_only_where_the_operator_says_so():
    for header, expected in ((None, False), ("x-forwarded-for", True)):
        queue = Queue()
        limit_queue(queue, Limits(client_waiting=1, client_header=header))
        assert ask(queue, "10.0.0.1", **{"x-forwarded-for": "1.1.1.1, 2.2.2.2"})[0]
        assert ask(queue, "10.0.0.1", **{"x-forwarded-for": "1.1.1.1, 3.3.3.3"})[0] is expected
        assert not ask(queue, "10.0.0.1", **{"x-forwarded-for": "9.9.9.9, 2.2.2.2"})[0], "the client wrote the first"


def test_the_queue_of_the_installed_gradio_is_the_one_that_is_limited():
    with gr.Blocks() as app:
        text = gr.Textbox()
        gr.Button().click(lambda text: text, text, text, api_name="echo")
    app.queue(max_size=8)
    limit_queue(app, Limits(client_rate=1))
    _, url, _ = app.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        first, second = (httpx.post(f"{url}gradio_api/call/echo", json={"data": ["a"]}, timeout=30) for _ in range(2))
    finally:
        app.close()
    assert first.status_code == 200
    assert second.status_code == 503 and "You may ask 1 times a minute" in second.text


def test_one_client_may_upload_so_many_bytes_an_hour(clock):
    async def take(request):
        return PlainTextResponse(str(len(await request.body())))

    limited = Middleware(UploadLimit, limits=Limits(client_upload=100))
    app = Starlette(routes=[Route("/upload", take, methods=["POST", "GET"])], middleware=[limited])

    async def visit():
        def client(address):
            transport = httpx.ASGITransport(app, client=(address, 1), raise_app_exceptions=False)
            return httpx.AsyncClient(transport=transport, base_url="http://demo")

        async def unannounced():
            yield bytes(60)
            yield bytes(60)

        async with client("10.0.0.1") as first, client("10.0.0.2") as second:
            assert (await first.post("/upload", content=bytes(80))).text == "80"
            refusal = await first.post("/upload", content=bytes(30))
            assert refusal.status_code == 429 and "uploaded too much" in refusal.json()["detail"]
            assert (await first.get("/upload")).status_code == 200
            assert (await second.post("/upload", content=unannounced())).status_code == 500
            clock.now += 3700
            assert (await first.post("/upload", content=bytes(30))).text == "30"

    asyncio.run(visit())


def test_clients_that_came_long_ago_are_forgotten(monkeypatch):
    monkeypatch.setattr(limits_module, "_MOST_CLIENTS", 5)
    budget = limits_module._Budget(10, 60)
    for number in range(50):
        budget.use(str(number), 1)
    assert len(budget._used) == 5


def test_the_environment_sets_limits_and_options_come_before_it(monkeypatch):
    monkeypatch.setenv("METAQAP_MAX_PIXELS", "5000")
    monkeypatch.setenv("METAQAP_MAX_FILES", "7")
    monkeypatch.setenv("METAQAP_CLIENT_HEADER", "x-real-ip")
    limits = Limits.from_environment(max_files=9, max_bytes=None)
    assert (limits.max_pixels, limits.max_files, limits.max_bytes) == (5000, 9, Limits().max_bytes)
    assert limits.client_header == "x-real-ip"
    monkeypatch.setenv("METAQAP_MAX_FILES", "many")
    with pytest.raises(MetaQAPError, match="METAQAP_MAX_FILES must be a whole number, not 'many'"):
        Limits.from_environment()
    monkeypatch.setenv("METAQAP_MAX_FILES", "0")
    with pytest.raises(MetaQAPError, match="max_files must be at least 1"):
        Limits.from_environment()
    monkeypatch.setenv("METAQAP_MAX_FILES", "1")
    monkeypatch.setenv("METAQAP_MAX_RATINGS", "0")
    assert Limits.from_environment().max_ratings == 0, "which switches adapting off"


def test_a_batch_ends_after_its_time_and_says_which_files_are_left(clock):
    class Scorer:
        def score(self, images, *, thumbnail):
            for image in images:
                clock.now += 10
                yield ScoreRecord(path=image, quality=0.5)

    records = list(Assessor(Scorer(), max_seconds=25).score_many([f"/tmp/{number}.jpg" for number in range(5)]))
    assert [record.quality for record in records] == [0.5] * 3 + [None] * 2
    assert [record.path for record in records] == [f"{number}.jpg" for number in range(5)]
    assert records[-1].error == "not reached in the 25 seconds of a batch"
