"""What does it cost to decode photographs in processes that may die, as `metaqap score --isolate` does?

    python studies/compare_isolation.py --photographs path/to/BIQ2021/Images

Photographs of a folder are scored with and without isolation in turn, as they are and as JPEG files of 12.6 megapixels
that are made of them. Said are seconds, and seconds of processor time in all processes: on a busy machine only these
can be compared. The processes are started before; how long the first one takes is said apart. Writes
studies/results/isolation.json.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from compare_decoding import COLUMNS, ROWS, make_photograph
from PIL import Image
from rich.console import Console

from modeling_metaqap import DEFAULT_CHECKPOINT, Scorer
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.image_files import find_images
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.inference.isolation import IsolatedDecoder
from modeling_metaqap.memory import keep_freed_memory

OUTPUT = Path(__file__).with_name("results") / "isolation.json"


def processor_seconds() -> float:
    """Of this process and all that it started and that still run."""
    own = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (own, *own.children()))


def score(scorer: Scorer, paths: list[Path]) -> dict[str, float]:
    """Seconds, and seconds of processor time, that the files take."""
    begin, computed = time.perf_counter(), processor_seconds()
    errors = [record.error for record in scorer.score(paths) if record.error]
    if errors:
        raise MetaQAPError(f"A photograph cannot be scored: {errors[0]}.")
    return {"seconds": time.perf_counter() - begin, "processor_seconds": processor_seconds() - computed}


def compare(scorers: dict[str, Scorer], paths: list[Path], turns: int) -> dict[str, Any]:
    """The median of the turns' ratios, and what was measured; one turn before warms up."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in scorers}
    for turn in range(turns + 1):
        for name in scorers if turn % 2 else reversed(scorers):
            found = score(scorers[name], paths)
            if turn:
                taken[name].append(found)
    ratios = {
        f"{kind}_over_plain": statistics.median(
            isolated[kind] / plain[kind] for isolated, plain in zip(taken["isolated"], taken["plain"], strict=True)
        )
        for kind in ("seconds", "processor_seconds")
    }
    return {"photographs": len(paths), "turns": turns} | {name: round(value, 3) for name, value in ratios.items()}


def make_large(paths: list[Path], folder: Path) -> list[Path]:
    """A quarter as many JPEG files, of photographs side by side."""
    large = [folder / f"{number}.jpg" for number in range(max(1, len(paths) // 4))]
    pictures = [Image.open(path).convert("RGB") for path in paths]
    for number, path in enumerate(large):
        shown = [pictures[(number + index) % len(pictures)] for index in range(COLUMNS * ROWS)]
        path.write_bytes(make_photograph(shown, quality=90))
    return large


def run(args: argparse.Namespace) -> dict[str, Any]:
    paths = [Path(name) for name in find_images([str(args.photographs)])[: args.images]]
    plain = Scorer(args.checkpoint, engine="auto", num_images=10_000)
    started = time.perf_counter()
    IsolatedDecoder().read(paths[0], plain.seen)
    results: dict[str, Any] = {
        "checkpoint": args.checkpoint.name,
        "engine": plain.engine.name.value,
        "seconds_to_start_a_process": round(time.perf_counter() - started, 2),
    }
    isolated = Scorer(args.checkpoint, engine="auto", num_images=10_000, isolate=True)
    with tempfile.TemporaryDirectory() as work:
        large = make_large(paths, Path(work))
        for name, files in (("as they are", paths), ("12.6 megapixels", large)):
            results[name] = compare({"plain": plain, "isolated": isolated}, files, args.turns)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, help="folder (the shipped one)")
    parser.add_argument("--photographs", type=Path, required=True, help="folder")
    parser.add_argument("--images", type=int, default=48, help="how many of them (%(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="with and without, one after the other (%(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON of the figures (%(default)s)")
    args = parser.parse_args()
    keep_freed_memory()
    with exit_with_sentence("compare_isolation"):
        results = run(args)
        write_atomically(args.output, (json.dumps(results, indent=1) + "\n").encode())
        Console().print_json(data=results)


if __name__ == "__main__":
    main()
