"""How wide should the interval of a photograph be, and which photographs are strangers?

    python studies/choose_interval.py --dataset biq2021 --data_dir path/to/BIQ2021 --features features \
        --elsewhere livec --elsewhere_dir path/to/ChallengeDB_release

At home: intervals are fitted to the validation split as `metaqap fit` does it, ten times, and each tenth is covered by
a fit that has not seen it: with all that the width may depend on, without the distance or the spread, and with none.
Which of them serve is chosen here, and nowhere else.

Strangers: noise, drawings and screenshots that this program makes, and the home photographs distorted at the highest
level. Their familiarity should be lower than that of the photographs at home.

Elsewhere: each source of the home data set in turn (a name up to its first space), by intervals that were fitted on
the others, and a data set that no learner has seen; as they are, and after 50 ratings of it, the median of 20 draws.
The ratings are used as `metaqap adapt` uses them. For a source, distances are measured to the training photographs of
the others; but the backbones were tuned on all of them. The other data set is measured on only.

`--parts` measures some of this and keeps the rest of the output. Writes studies/results/interval.json.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import torch
from learning_curves import refuse
from PIL import Image, ImageDraw, ImageFilter
from rich.console import Console
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from modeling_metaqap import Scorer
from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.distortions import LEVELS, applicable_distortions, distort
from modeling_metaqap.data.iqa_datasets import load_iqa_dataset, load_training_split
from modeling_metaqap.data.seen import refuse_seen
from modeling_metaqap.data.unseen_split import add_split_options, load_unseen_split
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.fusion.conformal import conformal_radius
from modeling_metaqap.fusion.expectation import choose_fit, cross_validated, predict
from modeling_metaqap.fusion.folds import random_folds
from modeling_metaqap.fusion.residual_regression import draw_centers, fit_basis, functions_of
from modeling_metaqap.fusion.stepwise import cross_fitted
from modeling_metaqap.fusion.widths import Widths, fit_widths, recalibrated_widths
from modeling_metaqap.inference.features import image_features
from modeling_metaqap.inference.predicting import interval_radii
from modeling_metaqap.inference.wording import MIN_FAMILIARITY
from modeling_metaqap.interval_metaqap import familiarity
from modeling_metaqap.lineage import all_stages, image_ids_sha256, weights_sha256
from modeling_metaqap.memory import keep_freed_memory

OUTPUT = Path(__file__).with_name("results") / "interval.json"

#: Ratings of photographs from elsewhere, and how often they are drawn.
RATINGS, DRAWS = 50, 20

PARTS = ("home", "strangers", "sources")

FOLDS = 10
COVERAGE = 0.9

console = Console(width=None if sys.stdout.isatty() else 140)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


class Rated:
    """Photographs with opinions, and what the learners say of them."""

    def __init__(self, scorer: Scorer, dataset: Any, features_dir: Path | None, *, fused: bool):
        """With `fused` the quality of each is by a meta-learner of the others, else by that of the checkpoint."""
        stored = dataset.cast_column("image", datasets.Image(decode=False))
        paths = [Path(row["image"]["path"]) for row in stored.select_columns("image")]
        start = time.perf_counter()
        features = image_features(scorer, paths, cache_dir=features_dir, on_unreadable=refuse)
        console.print(f"Features of {len(paths):,} photographs: {time.perf_counter() - start:.0f} s.")
        self.ids = list(dataset["image_id"])
        self.opinions = np.array(dataset["quality"])
        self.base_scores, self.distances = features.base_scores, features.distances
        self.standardized = features.standardized(scorer.model)
        self.quality = features.quality(scorer.model)
        if fused:
            self.quality = cross_fitted(self.base_scores, self.opinions, shrinkage=0.5)
        self.errors = np.abs(self.quality - self.opinions)

    def fit(self, rows: IntArray, *, distance: bool = True, spread: bool = True) -> Widths:
        """Widths that some photographs give; what is left out is the same for all of them."""
        scores, distances = self.base_scores[rows], self.distances[rows]
        return fit_widths(
            self.quality[rows],
            self.opinions[rows],
            scores if spread else np.zeros_like(scores),
            distances if distance else np.zeros_like(distances),
            coverage=COVERAGE,
        )

    def radii(self, widths: Widths, rows: IntArray) -> FloatArray:
        """By these widths."""
        return interval_radii(widths, self.quality[rows], self.base_scores[rows], self.distances[rows])

    def figures(self, radii: FloatArray, rows: IntArray) -> dict[str, float]:
        """Share of opinions that intervals hold, and their mean width."""
        return {"covered": float((self.errors[rows] <= radii).mean()), "width": 2 * float(radii.mean())}


def at_home(home: Rated) -> dict[str, Any]:
    """Each tenth by a fit on the others."""
    everyone = np.arange(len(home.ids))
    choices: dict[str, dict[str, bool]] = {
        "quality, distance and spread": {},
        "quality and spread": {"distance": False},
        "quality and distance": {"spread": False},
        "quality": {"distance": False, "spread": False},
    }
    radii = {name: np.empty(len(everyone)) for name in ("nothing", *choices)}
    for others, rows in random_folds(everyone, folds=FOLDS, seed=0):
        radii["nothing"][rows] = conformal_radius(home.quality[others], home.opinions[others], coverage=COVERAGE)
        for name, options in choices.items():
            radii[name][rows] = home.radii(home.fit(others, **options), rows)
    groups = {
        "quality below .4": home.quality < 0.4,
        "quality .4 to .6": (home.quality >= 0.4) & (home.quality < 0.6),
        "quality .6 to .75": (home.quality >= 0.6) & (home.quality < 0.75),
        "quality from .75": home.quality >= 0.75,
        "the nearest fifth": _fifth(home.distances) == 0,
        "the farthest fifth": _fifth(home.distances) == 4,
    }
    return {
        "width_depends_on": {name: home.figures(values, everyone) for name, values in radii.items()},
        "groups": {
            name: {
                "n": int(chosen.sum()),
                **{
                    kind: home.figures(radii[of][chosen], everyone[chosen])
                    for kind, of in (("constant", "nothing"), ("own width", "quality, distance and spread"))
                },
            }
            for name, chosen in groups.items()
        },
    }


def _fifth(distances: FloatArray) -> IntArray:
    order = np.argsort(np.argsort(distances.mean(axis=1)))
    return order * 5 // len(order)


def noise(rng: np.random.Generator) -> Image.Image:
    """White or smooth noise, grey or in colors."""
    grain = int(rng.choice([1, 2, 8, 32]))
    channels = int(rng.choice([1, 3]))
    pixels = rng.integers(0, 256, (512 // grain, 512 // grain, channels), dtype=np.uint8)
    return Image.fromarray(pixels.repeat(3 // channels, axis=2)).resize((512, 512), Image.Resampling.BICUBIC)


def drawing(rng: np.random.Generator) -> Image.Image:
    """Shapes and lines in flat colors on a flat ground."""
    picture = Image.new("RGB", (512, 512), _color(rng, 160))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(4, 14))):
        left, top = (int(side) for side in rng.integers(-60, 440, 2))
        right, bottom = left + int(rng.integers(30, 260)), top + int(rng.integers(30, 260))
        shape = rng.choice(["ellipse", "rectangle", "line", "polygon"])
        if shape == "line":
            draw.line((left, top, right, bottom), fill=_color(rng), width=int(rng.integers(2, 12)))
        elif shape == "polygon":
            draw.polygon([(left, top), (right, top), ((left + right) // 2, bottom)], fill=_color(rng), outline="black")
        else:
            getattr(draw, str(shape))((left, top, right, bottom), fill=_color(rng), outline="black", width=3)
    return picture.filter(ImageFilter.SMOOTH)


def screenshot(rng: np.random.Generator) -> Image.Image:
    """Windows with titles, lines of text and buttons."""
    picture = Image.new("RGB", (768, 512), _color(rng, 190))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(1, 4))):
        left, top = int(rng.integers(0, 300)), int(rng.integers(0, 200))
        right, bottom = left + int(rng.integers(250, 460)), top + int(rng.integers(180, 300))
        draw.rectangle((left, top, right, bottom), fill="white", outline="gray")
        draw.rectangle((left, top, right, top + 22), fill=_color(rng))
        for line in range(top + 32, bottom - 30, 16):
            letters = rng.choice(list("aeinorstl mdc "), int(rng.integers(10, 50)))
            draw.text((left + 10, line), "".join(letters)[: (right - left) // 8], fill=(40, 40, 40))
        draw.rounded_rectangle((right - 90, bottom - 26, right - 10, bottom - 6), 5, fill=_color(rng))
    return picture


def _color(rng: np.random.Generator, least: int = 0) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(least, 256, 3))
    return red, green, blue


def strangers(scorer: Scorer, dataset: Any, widths: Widths, *, count: int, seed: int) -> dict[str, Any]:
    """Familiarity and widths of pictures that are no photographs, and of distorted ones."""
    rng = np.random.default_rng(seed)
    kinds: dict[str, list[Image.Image]] = {
        "noise": [noise(rng) for _ in range(count)],
        "drawings": [drawing(rng) for _ in range(count)],
        "screenshots": [screenshot(rng) for _ in range(count)],
        "distorted photographs": [],
    }
    for row in rng.permutation(len(dataset))[:count].tolist():
        photograph = dataset[row]["image"]
        name = str(rng.choice(applicable_distortions(photograph)))
        kinds["distorted photographs"].append(distort(photograph, name, max(LEVELS), int(rng.integers(1 << 31))))
    result = {}
    for kind, pictures in kinds.items():
        records = list(scorer.score(pictures))
        quality, base_scores, distances = (
            np.array([getattr(record, name) for record in records]) for name in ("quality", "base_scores", "distances")
        )
        result[kind] = _familiarity(widths, distances) | {
            "width": 2 * float(interval_radii(widths, quality, base_scores, distances).mean())
        }
    return result


def _familiarity(widths: Widths, distances: FloatArray) -> dict[str, float]:
    values = familiarity(widths, torch.from_numpy(distances))
    assert values is not None
    return {
        "n": len(values),
        "median_familiarity": float(values.median()),
        "called_strangers": float((values < MIN_FAMILIARITY).float().mean()),
    }


def after_ratings(place: Rated, widths: Widths, rows: IntArray, *, seed: int) -> dict[str, dict[str, float]]:
    """Opinions that intervals hold on photographs from elsewhere after some of them were rated.

    Args:
        place: of the photographs.
        widths: of home.
        rows: of the photographs.
        seed: of the draws.
    """
    measured: dict[str, list[tuple[float, float]]] = {}
    for draw in range(DRAWS):
        order = np.random.default_rng(seed + draw).permutation(rows)
        rated, unseen = order[:RATINGS], order[RATINGS:]
        drawn = draw_centers(len(rated))
        bases = [fit_basis(features[rated], drawn) for features in place.standardized]
        functions = functions_of(bases, [features[order] for features in place.standardized])
        known, others = np.arange(RATINGS), np.arange(RATINGS, len(order))
        scores, opinions = place.quality[rated], place.opinions[rated]
        fit = choose_fit(scores, opinions, functions, known)
        cross = cross_validated(scores, opinions, functions, groups=known)
        adapted = predict(fit, place.quality[unseen], functions, others)
        errors = np.abs(adapted - place.opinions[unseen])
        anew = recalibrated_widths(widths, cross, opinions, place.distances[rated], coverage=COVERAGE)
        radii = {
            "constant": np.full(len(unseen), conformal_radius(cross, opinions, coverage=COVERAGE)),
            "own width": interval_radii(anew, adapted, place.base_scores[unseen], place.distances[unseen]),
        }
        for name, values in radii.items():
            measured.setdefault(name, []).append((float((errors <= values).mean()), 2 * float(values.mean())))
    return {
        name: {
            "covered": float(np.median([share for share, _ in several])),
            "covered_lowest": min(share for share, _ in several),
            "width": float(np.median([width for _, width in several])),
        }
        for name, several in measured.items()
    }


def distances_without(home: Rated, scorer: Scorer, sources: IntArray, source: str) -> FloatArray:
    """Distances `(n, K)` to the training photographs of the other sources.

    Args:
        home: of the photographs.
        scorer: whose kernel heads have one Gaussian for each training photograph, in the order of the data set.
        sources: of the training photographs.
        source: that is left out.
    """
    columns = []
    for learner, features in zip(scorer.model.base_learners, home.standardized, strict=True):
        head: Any = learner.kernel_head
        if head is None or len(head.centers) != len(sources):
            raise MetaQAPError("The learners do not have a Gaussian for each training photograph.")
        components, centers = head.components.double().numpy(), head.centers.double().numpy()[sources != source]
        apart = cdist(features @ components, centers, "sqeuclidean")
        columns.append(-logsumexp(-head.gamma.item() * apart, axis=1))
    return np.column_stack(columns)


def elsewhere(place: Rated, rows: IntArray, home: Rated, known: IntArray, *, seed: int) -> dict[str, Any]:
    """How intervals that were fitted on the known photographs at home do on others."""
    widths = home.fit(known)
    constant = conformal_radius(home.quality[known], home.opinions[known], coverage=COVERAGE)
    return {
        **_familiarity(widths, place.distances[rows]),
        "as it is": {
            "constant": place.figures(np.full(len(rows), constant), rows),
            "own width": place.figures(place.radii(widths, rows), rows),
        },
        f"after {RATINGS} ratings": after_ratings(place, widths, rows, seed=seed),
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    scorer = Scorer(args.checkpoint, device=args.device)
    dataset = load_unseen_split(args, scorer.model.config)
    home = Rated(scorer, dataset, args.features, fused=True)
    everyone = np.arange(len(home.ids))
    widths = home.fit(everyone)
    result: dict[str, Any] = read_known(args.output) | {
        "weights_sha256": weights_sha256(args.checkpoint),
        "dataset": args.dataset,
        "split": args.split,
        "n": len(home.ids),
        "images_sha256": image_ids_sha256(home.ids),
        "coverage": COVERAGE,
        "min_familiarity": MIN_FAMILIARITY,
        "seed": args.seed,
        "interval_scale": widths.interval_scale,
    }
    result.setdefault("elsewhere", {})
    if "home" in args.parts:
        result["home"] = at_home(home)
    if "strangers" in args.parts:
        result["strangers"] = strangers(scorer, dataset, widths, count=args.strangers, seed=args.seed)
    if "sources" in args.parts:
        where = {"data_dir": args.data_dir, "cache_dir": args.cache_dir}
        training = load_training_split(args.dataset, split="train", **where)
        sources, of_centers = (np.array([_source(name) for name in ids]) for ids in (home.ids, training["image_id"]))
        for source in sorted(set(sources)):
            other = copy.copy(home)
            other.distances = distances_without(home, scorer, of_centers, source)
            rows, known = np.flatnonzero(sources == source), np.flatnonzero(sources != source)
            result["elsewhere"][f"{args.dataset}, {source}"] = elsewhere(other, rows, other, known, seed=args.seed)
    if args.elsewhere:
        place_at = {"data_dir": args.elsewhere_dir, "cache_dir": args.cache_dir}
        photographs = load_iqa_dataset(args.elsewhere, split="all", decode=False, **place_at)
        stages = all_stages(scorer.model.config)
        refuse_seen(stages, photographs, weights=str(args.checkpoint), dataset=args.elsewhere, **place_at)
        place = Rated(scorer, photographs, args.features, fused=False)
        result["elsewhere"][args.elsewhere] = elsewhere(
            place, np.arange(len(place.ids)), home, everyone, seed=args.seed
        )
    return result


def _source(name: str) -> str:
    return name.split(" ")[0]


def read_known(output: Path) -> dict[str, Any]:
    """What was measured before."""
    return json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_split_options(parser)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what to measure (all)")
    parser.add_argument("--elsewhere", help="a data set that no learner has seen, such as livec")
    parser.add_argument("--elsewhere_dir", help="its folder")
    parser.add_argument("--features", type=Path, help="folder to keep the features in")
    parser.add_argument("--strangers", type=int, default=40, help="pictures of each kind (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON of the figures (%(default)s)")
    args = parser.parse_args(arguments)
    keep_freed_memory()
    with exit_with_sentence("choose_interval"):
        result = run(args)
        write_atomically(args.output, (json.dumps(result, indent=1) + "\n").encode())
        console.print_json(data={name: result[name] for name in ("home", "strangers", "elsewhere") if name in result})


if __name__ == "__main__":
    main()
