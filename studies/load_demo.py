"""Ask the demo again and again, beside hostile requests: do its answers stay right, and its memory where it was?

    python studies/load_demo.py

In each round 16 clients ask for the scores of 64 example photographs, and a 17th sends what must be refused: broken
files, bombs, strips, paths of the server. After each round the resident memory of the server and of the processes that
decode for it is read. The first rounds fill caches and the heap, which the demo keeps (`keep_freed_memory`); a leak
would make every round add as much as the one before. Linux only. Writes studies/results/demo_load.json.
"""

import argparse
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio_client
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from space_server import Server, running  # noqa: E402

from modeling_metaqap import Scorer  # noqa: E402
from modeling_metaqap.data.atomic import write_atomically  # noqa: E402
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence  # noqa: E402

OUTPUT = ROOT / "studies/results/demo_load.json"
EXAMPLES = ROOT / "space/examples"
CLIENTS, REQUESTS = 16, 64


def connect(server: Server) -> Any:
    return gradio_client.Client(server.url, verbose=False, httpx_kwargs={"timeout": 600})


def ask(client: Any, path: Path) -> float:
    """Quality of a photograph by the demo."""
    return float(client.predict(photo=gradio_client.handle_file(str(path)), api_name="/score")["quality"])


def write_hostile(folder: Path) -> list[Path]:
    """Files that must be refused."""
    contents = {"broken.jpg": b"broken", "cut.jpg": (EXAMPLES / "coffee.jpg").read_bytes()[:2000]}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    sizes = {"bomb.png": (16_000, 16_000), "strip.png": (60_000, 8)}
    for name, size in sizes.items():
        Image.new("1", size).save(folder / name)
    return [folder / name for name in (*contents, *sizes)]


def is_refused(client: Any, hostile: Path | dict[str, Any]) -> bool:
    """Whether the demo says no to a file, or to a path that was not uploaded."""
    photo = gradio_client.handle_file(str(hostile)) if isinstance(hostile, Path) else hostile
    try:
        client.predict(photo=photo, api_name="/score")
    except Exception as error:  # whatever Gradio's client makes of it
        return "Traceback" not in str(error)
    return False


def memory_mb(server: Server) -> dict[str, int]:
    """Resident memory of the server, and of all its decoding processes."""
    process = psutil.Process(server.pid)
    return {
        "server_mb": round(process.memory_info().rss / 2**20),
        "decoding_processes_mb": round(sum(one.memory_info().rss for one in process.children()) / 2**20),
    }


def measure(work: Path, rounds: int) -> dict[str, Any]:
    """Wrong answers, hostile requests that were not refused, and memory after each round."""
    examples = sorted(EXAMPLES.glob("*.jpg"))
    hostile: list[Any] = [*write_hostile(work), *({"path": path} for path in ("/etc/hostname", str(examples[0])))]
    quality = [record.quality or 0.0 for record in Scorer(device="cpu").score(examples)]
    paths, expected = ((several * REQUESTS)[:REQUESTS] for several in (examples, quality))
    limits = {"METAQAP_CLIENT_RATE": "100000", "METAQAP_CLIENT_WAITING": "1000", "PYTHONPATH": str(ROOT)}
    after, wrong, admitted = [], 0, 0
    with running([str(ROOT / "space/app.py")], log=work / "log", **limits) as server:
        clients = [connect(server) for _ in range(CLIENTS)]
        attacker = connect(server)
        before = memory_mb(server)
        for number in range(rounds):
            with ThreadPoolExecutor(CLIENTS + 1) as pool:
                attacks = pool.submit(lambda: [is_refused(attacker, one) for one in hostile])
                found = list(pool.map(ask, clients * (REQUESTS // CLIENTS), paths))
                admitted += attacks.result().count(False)
            wrong += sum(abs(value - other) > 1e-4 for value, other in zip(found, expected, strict=True))
            after.append(memory_mb(server))
            print(f"round {number + 1} of {rounds}: {after[-1]}", file=sys.stderr, flush=True)
    return {
        "clients": CLIENTS,
        "requests": rounds * REQUESTS,
        "hostile_requests": rounds * len(hostile),
        "wrong_answers": wrong,
        "hostile_requests_not_refused": admitted,
        "before": before,
        "after_each_round": after,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help=f"of {REQUESTS} requests (%(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON of the figures (%(default)s)")
    args = parser.parse_args()
    with exit_with_sentence("load_demo"):
        with tempfile.TemporaryDirectory() as work:
            results = measure(Path(work), args.rounds)
        write_atomically(args.output, (json.dumps(results, indent=1) + "\n").encode())
        if results["wrong_answers"] or results["hostile_requests_not_refused"]:
            raise MetaQAPError("The demo gave a wrong answer, or took what it must refuse.")


if __name__ == "__main__":
    main()
