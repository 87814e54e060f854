"""How far do scores move when large JPEG photographs are shrunk by their decoder, and what does that save?

    python studies/compare_decoding.py --dataset biq2021 --data_dir path/to/BIQ2021

A JPEG decoder can leave out the finest detail and give a half, a quarter or an eighth of each side, which takes less
time than to decode all pixels and to shrink them. No photographs of 8 megapixels or more are at hand, so 300 are made:
48 training photographs side by side, 8 by 6, 12.6 megapixels with detail of all sizes. Each is decoded whole, and with
the decoder shrinking as far as its shortest edge stays at or above a number of pixels. Writes
studies/results/decoding.json.
"""

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console

from modeling_metaqap import DEFAULT_CHECKPOINT, Scorer
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.iqa_datasets import load_training_split
from modeling_metaqap.decoding_metaqap import to_rgb
from modeling_metaqap.errors import exit_with_sentence
from modeling_metaqap.evaluation.tables import TextTable
from modeling_metaqap.inference.decoding import Photograph
from modeling_metaqap.lineage import weights_sha256
from modeling_metaqap.memory import keep_freed_memory

OUTPUT = Path(__file__).with_name("results") / "decoding.json"
COLUMNS, ROWS, SIDE = 8, 6, 512

#: Shortest edges that the decoder may shrink to; None decodes all pixels.
SHORTEST_EDGES = (None, 512, 768, 1024)


def make_photograph(images: list[Image.Image], quality: int) -> bytes:
    """A JPEG file of photographs side by side."""
    whole = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE))
    for index, image in enumerate(images):
        row, column = divmod(index, COLUMNS)
        whole.paste(ImageOps.fit(image, (SIDE, SIDE)), (column * SIDE, row * SIDE))
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=quality)
    return file.getvalue()


def read(file: bytes, scorer: Scorer, shortest_edge: int | None) -> tuple[Photograph, float]:
    """The photograph as the model sees it, and the seconds of processor time that it took."""
    begin = time.thread_time()
    with Image.open(io.BytesIO(file)) as opened:
        size = opened.size
        if shortest_edge is not None:
            factor = max(1, min(size) // shortest_edge)
            opened.draft(None, (size[0] // factor, size[1] // factor))
        photograph = scorer.seen.shrink(Photograph(to_rgb(opened), *size))
    return photograph, time.thread_time() - begin


def run(args: argparse.Namespace) -> None:
    dataset = load_training_split(args.dataset, split="train", data_dir=args.data_dir, cache_dir=args.cache_dir)
    scorer, rng = Scorer(args.checkpoint, engine="auto", num_images=1000), np.random.default_rng(args.seed)
    scores: dict[int | None, list[float]] = {edge: [] for edge in SHORTEST_EDGES}
    seconds: dict[int | None, list[float]] = {edge: [] for edge in SHORTEST_EDGES}
    for _ in range(args.images):
        rows = rng.choice(len(dataset), COLUMNS * ROWS, replace=False)
        file = make_photograph([dataset[int(row)]["image"] for row in rows], int(rng.integers(80, 98)))
        photographs = {}
        for edge in SHORTEST_EDGES:
            photographs[edge], taken = read(file, scorer, edge)
            seconds[edge].append(taken)
        for edge, record in zip(photographs, scorer.score(photographs.values()), strict=True):
            assert record.quality is not None
            scores[edge].append(record.quality)
    whole = np.array(scores[None])
    results: dict[str, Any] = {
        "checkpoint": args.checkpoint.name,
        "weights_sha256": weights_sha256(args.checkpoint),
        "dataset": args.dataset,
        "split": "train",
        "seed": args.seed,
        "images": args.images,
        "megapixels": round(COLUMNS * ROWS * SIDE**2 / 1e6, 1),
        "shortest_edges": {},
    }
    for edge in SHORTEST_EDGES[1:]:
        shifts = np.abs(np.array(scores[edge]) - whole)
        results["shortest_edges"][str(edge)] = {
            "mean_shift": round(float((np.array(scores[edge]) - whole).mean()), 5),
            "mean_absolute_shift": round(float(shifts.mean()), 5),
            "largest_shift": round(float(shifts.max()), 5),
            "over_whole": round(float(np.median(np.array(seconds[None]) / np.array(seconds[edge]))), 2),
        }
    write_atomically(args.output, (json.dumps(results, indent=1) + "\n").encode())
    headings = ["shortest edge", "mean shift", "mean absolute", "largest", "times as fast"]
    cells = [[edge, *(str(value) for value in one.values())] for edge, one in results["shortest_edges"].items()]
    Console().print(TextTable(headings, cells).rich())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, help="folder (the shipped one)")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON of the figures (%(default)s)")
    args = parser.parse_args()
    keep_freed_memory()
    with exit_with_sentence("compare_decoding"):
        run(args)


if __name__ == "__main__":
    main()
