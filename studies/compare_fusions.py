"""Fuse base learners on sources that none of them was trained on: what is the ensemble worth elsewhere?

    python studies/compare_fusions.py --checkpoint modeling_metaqap/checkpoints/metaqap-lite \
        --learner tf_efficientnet_lite0 scores/lite0.csv "linear, penalty 1, and kernel, gamma 4" \
        --learner tf_efficientnet_lite1 scores/lite1.csv "linear, penalty 1, and kernel, gamma 4"

Each `--learner` is a name, a file of scores (`studies/compare_heads.py --scores`, with a learner for each source) and
the head in it. On each source these are measured:

    each learner alone
    plain mean
    plain mean without one          of the learners, in turn: what that one is worth
    meta-learner of other sources   stepwise regression on the images of the other sources, scored by learners that had
                                    not seen those either; scores and opinions are taken from their mean over a source,
                                    which a learner that does not know the source may miss by far
    regression at home              the weights of the checkpoint before shrinkage, and with several shrinkages, its
                                    own among them; images of all sources had a say in them, but in no more than one
                                    weight for each learner
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from study_tables import HOME, fusions_table

from modeling_metaqap.data.atomic import write_atomically
from modeling_metaqap.data.iqa_datasets.files import parse_score, read_csv
from modeling_metaqap.errors import DataError, MetaQAPError, exit_with_sentence
from modeling_metaqap.evaluation.metrics import plcc_and_srocc
from modeling_metaqap.fusion.checkpoint_folder import read_fit
from modeling_metaqap.fusion.stepwise import fit_stepwise, shrink

console = Console(width=None if sys.stdout.isatty() else 140)

OUTPUT = Path(__file__).with_name("results") / "fusions.json"

#: Measured with `--checkpoint`; with 1 it would be the plain mean.
SHRINKAGES = (0.0, 0.25, 0.5, 0.75)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """Scores `(n, K)` by K learners and quality `(n,)` of the images of one source."""

    scores: FloatArray
    qualities: FloatArray


def read_scores(path: Path, head: str) -> dict[tuple[str, str], list[float]]:
    """`(source, image id) -> (quality, score)` of each image in a file of `studies/compare_heads.py --scores`.

    Raises:
        MetaQAPError: if it is no such file, or has no such head.
    """
    keys = ("place", "image_id", "quality")
    try:
        rows = read_csv(path, columns=keys, title="scores of heads")
        heads = [name for row in rows[:1] for name in row if name not in keys]
        if head not in heads:
            raise MetaQAPError(f"{path} has no head {head!r}; it has {'; '.join(map(repr, heads)) or 'none'}.")
        quality, score = (
            [parse_score(row[column], what=row["image_id"], path=path, title="scores of heads") for row in rows]
            for column in ("quality", head)
        )
    except DataError as error:
        raise MetaQAPError(f"{path} was not written by studies/compare_heads.py --scores: {error}") from error
    found = zip(rows, quality, score, strict=True)
    return {(row["place"], row["image_id"]): values for row, *values in found if row["place"] != HOME}


def load(learners: list[tuple[str, Path, str]]) -> dict[str, Scored]:
    """The images of each source, scored by all learners, given by name, file and head.

    Raises:
        MetaQAPError: if they did not score the same images with the same opinions.
    """
    tables = [read_scores(path, head) for _, path, head in learners]
    opinions = [{key: quality for key, (quality, _) in table.items()} for table in tables]
    for (_, path, _), other in zip(learners, opinions, strict=True):
        if other != opinions[0]:
            raise MetaQAPError(f"{learners[0][1]} and {path} hold scores of different images.")
    found = {}
    for source in dict.fromkeys(source for source, _ in tables[0]):
        keys = [key for key in tables[0] if key[0] == source]
        scores = [[table[key][1] for table in tables] for key in keys]
        found[source] = Scored(np.array(scores), np.array([opinions[0][key] for key in keys]))
    return found


def weights_of(checkpoint: Path, names: list[str]) -> dict[str, FloatArray]:
    """Weights `(K,)` of the learners in a fused checkpoint, and what they would be with other shrinkages.

    Raises:
        MetaQAPError: if these are not the learners that it holds.
    """
    fit = read_fit(checkpoint)
    if fit is None:
        raise MetaQAPError(f"{checkpoint} was not fused by `metaqap fit`.")
    # Fits of before there was shrinkage say nothing of it.
    shipped = fit.get("shrinkage", 0.0)
    fitted = fit.get("regression_weights", fit["weights"])
    found = {model["name"]: weight for model, weight in zip(fit["base_models"], fitted, strict=True) if weight}
    if set(names) != set(found):
        raise MetaQAPError(f"{checkpoint} holds the learners {', '.join(sorted(found))}, not {', '.join(names)}.")
    weights = np.array([found[name] for name in names])
    return {
        "regression at home"
        + (f", shrinkage {shrinkage:g}" if shrinkage else "")
        + (" (shipped)" if shrinkage == shipped else ""): shrink(weights, shrinkage)
        for shrinkage in sorted({*SHRINKAGES, shipped})
    }


def measure(sources: dict[str, Scored], names: list[str], at_home: dict[str, FloatArray]) -> dict[str, Any]:
    """PLCC and SROCC of each learner and fusion, by source, and the weights of the regressions."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    weights: dict[str, dict[str, float]] = {}

    for source, images in sources.items():
        fused = dict(zip([*names, "plain mean"], [*images.scores.T, images.scores.mean(axis=1)], strict=True))
        if len(names) > 2:
            for index, name in enumerate(names):
                fused[f"plain mean without {name}"] = np.delete(images.scores, index, axis=1).mean(axis=1)
        others = [other for name, other in sources.items() if name != source]
        if others:
            fit = fit_stepwise(
                np.concatenate([other.scores - other.scores.mean(axis=0) for other in others]),
                np.concatenate([other.qualities - other.qualities.mean() for other in others]),
                names=names,
            )
            weights[source] = dict(zip(names, fit.weights.tolist(), strict=True))
            fused["meta-learner of other sources"] = fit.predict(images.scores)
        fused |= {label: images.scores @ learner_weights for label, learner_weights in at_home.items()}
        for label, scores in fused.items():
            rows.setdefault(label, {})[source] = plcc_and_srocc(scores, images.qualities)
    return {"weights_by_other_sources": weights, "rows": rows}


def compare(args: argparse.Namespace) -> dict[str, Any]:
    learners = [(name, Path(path), head) for name, path, head in args.learner]
    names = [name for name, _, _ in learners]
    at_home = {} if args.checkpoint is None else weights_of(args.checkpoint, names)
    sources = load(learners)
    return {
        "learners": {name: head for name, _, head in learners},
        "n": {source: len(images.qualities) for source, images in sources.items()},
        **measure(sources, names, at_home),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learner", nargs=3, action="append", required=True, metavar=("NAME", "CSV", "HEAD"))
    parser.add_argument("--checkpoint", type=Path, help="folder of the fused checkpoint with the same learners")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON to write (%(default)s)")
    args = parser.parse_args(arguments)
    names = [name for name, _, _ in args.learner]
    if len(names) < 2 or len(set(names)) < len(names):
        parser.error("name at least two learners, each once")
    with exit_with_sentence("compare_fusions"):
        result = compare(args)
        write_atomically(args.output, (json.dumps(result, indent=1) + "\n").encode())
        console.print(fusions_table(result).rich(title="PLCC / SROCC"))


if __name__ == "__main__":
    main()
