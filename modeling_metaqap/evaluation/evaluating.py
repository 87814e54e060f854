"""Measures checkpoints and baselines on image quality data sets: rows of figures that say what they are about."""

import math
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt

from ..checkpoint_reading import read_config
from ..data.accelerate_state import main_process_first
from ..data.iqa_datasets import load_iqa_dataset, split_names
from ..data.rating_options import FOLDER, RatingOptions
from ..data.seen import refuse_seen
from ..errors import MetaQAPError
from ..inference.predicting import (
    Predictions,
    distinct_names,
    interval_radii,
    predict,
    process_scorer,
    short_names,
)
from ..inference.scorer import Scorer
from ..lineage import Stage, all_stages, image_ids_sha256, software_versions, training_opinions, weights_sha256
from .baselines.scorer import BASELINES, BaselineScorer
from .metrics import METRICS, MIN_IMAGES, evaluate_scores, plcc_and_srocc

AnyScorer = Scorer | BaselineScorer


#: In a checkpoint's path, stands for the number of a seeded split.
SPLIT_PLACEHOLDER = "{split}"


@dataclass(frozen=True, kw_only=True)
class NamedDataset:
    """A data set to measure on.

    Args:
        name: In `IQA_DATASETS`.
        data_dir: Where it lies, see [`load_iqa_dataset`].
        ratings: How the CSV file of a folder is to be read.
    """

    name: str
    data_dir: str | Path | None = None
    ratings: RatingOptions = RatingOptions()

    def where(self, cache_dir: str | Path | None) -> dict[str, Any]:
        """What `load_iqa_dataset` needs to know besides the split."""
        return {"data_dir": self.data_dir, "cache_dir": cache_dir, **self.ratings.of_dataset(self.name)}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of a table of results with what it was computed from.

    Args:
        row: JSON values: what was measured on what, the figures, and how they were made. Figures that are not defined
            are None.
        image_ids: of the n images; of the first split, where the row is the median over several.
        predictions: (n,) predicted quality, higher is better.
        qualities: (n,) opinion scores in [0, 1], higher is better.
    """

    row: dict[str, Any]
    image_ids: list[str]
    predictions: npt.NDArray[np.float64]
    qualities: npt.NDArray[np.float64]


def evaluate(
    checkpoints: Sequence[str],
    named_datasets: Sequence[NamedDataset],
    *,
    splits: Sequence[str] = ("test",),
    repeat_splits: int = 1,
    cache_dir: str | Path | None = None,
    device: str | None = None,
    batch_size: int = 8,
    seed: int = 0,
    n_bootstrap: int = 1000,
) -> Iterator[Measurement]:
    """Measures every checkpoint on every split of every data set.

    Under `accelerate launch` the images are shared out, and each process yields the same measurements. The figures are
    computed from all the scores together and are identical for any number of processes.

    Args:
        checkpoints: Folders or Hub ids of MetaQAP checkpoints, or names of `BASELINES`. With `repeat_splits`,
            `{split}` in a path stands for the split's number, for checkpoints that were trained on each split.
        named_datasets: Data sets to measure on, each at most once.
        splits: Such as `"test"`.
        repeat_splits: Above 1, data sets without an official split are measured on that many of their ten seeded
            ones, and the figures are the median over these with the lowest and the highest.
        seed: Seed of the bootstrap.
        n_bootstrap: Draws of the bootstrap; 0 leaves the intervals out.

    Raises:
        MetaQAPError: An image has no score, a checkpoint cannot be used or has learned from the images, or the
            arguments do not fit together.
        DataError: There is no such data set or split, or its files are missing or damaged.
    """
    for what, names in (("checkpoint", checkpoints), ("data set", [one.name for one in named_datasets])):
        if repeated := [name for name in names if list(names).count(name) > 1]:
            raise MetaQAPError(f"The {what} {repeated[0]} is named twice.")
    if repeat_splits == 1 and any(SPLIT_PLACEHOLDER in checkpoint for checkpoint in checkpoints):
        raise MetaQAPError(f"{SPLIT_PLACEHOLDER} in a checkpoint's path needs repeated splits.")
    groups = main_process_first(
        lambda: [
            group for one in named_datasets for group in _load_splits(one, splits, repeat_splits, cache_dir=cache_dir)
        ]
    )
    if repeat_splits > 1 and all(len(group) == 1 for group in groups):
        raise MetaQAPError("Splits are repeated on data sets without an official split only, and none is named.")

    # Before any image is scored, which can take hours.
    _refuse_seen_in_splits(checkpoints, [split for group in groups for split in group], cache_dir=cache_dir)

    for checkpoint, label in zip(checkpoints, short_names(checkpoints), strict=True):
        scorer: AnyScorer | None = None
        for group in groups:
            # Seeded splits overlap; no image is scored twice by the same weights.
            known: dict[str, list[float]] = {}
            measurements = []
            for split in group:
                if scorer is None or SPLIT_PLACEHOLDER in checkpoint:
                    path = _path_for(checkpoint, split)
                    scorer = open_scorer(path, device=device, batch_size=batch_size)
                    provenance = {"checkpoint": label, **_provenance(path, scorer)}
                    known.clear()
                measurements.append(_measure(scorer, split, known, provenance, seed=seed, n_bootstrap=n_bootstrap))
            yield measurements[0] if len(measurements) == 1 else _median(measurements)


@dataclass(frozen=True, kw_only=True)
class _Split:
    source: NamedDataset
    name: str
    number: int
    dataset: datasets.Dataset


def _load_splits(
    dataset: NamedDataset, splits: Sequence[str], repeats: int, *, cache_dir: str | Path | None
) -> list[list[_Split]]:
    """For each split the numbered ones that it is measured on, or the official one alone."""
    where = dataset.where(cache_dir)
    numbered = repeats > 1 and "test_0" in split_names(dataset.name, **where)
    return [
        [
            _Split(
                source=dataset,
                name=name,
                number=number,
                dataset=load_iqa_dataset(dataset.name, split=name, **where),
            )
            for number, name in enumerate([f"{split}_{i}" for i in range(repeats)] if numbered else [split])
        ]
        for split in splits
    ]


def _path_for(checkpoint: str, split: _Split) -> str:
    return checkpoint.replace(SPLIT_PLACEHOLDER, str(split.number))


def _refuse_seen_in_splits(
    checkpoints: Sequence[str], splits: Sequence[_Split], *, cache_dir: str | Path | None
) -> None:
    """Raise `MetaQAPError` if a checkpoint has learned from images of a split, in training or in its fusion."""
    stages_of: dict[str, list[Stage]] = {}
    for checkpoint in checkpoints:
        if checkpoint in BASELINES:
            continue
        for split in splits:
            path = _path_for(checkpoint, split)
            if path not in stages_of:
                stages_of[path] = _stages_of(path)
            refuse_seen(
                stages_of[path],
                split.dataset,
                weights=path,
                dataset=split.source.name,
                **split.source.where(cache_dir),
            )


def _stages_of(path: str) -> list[Stage]:
    """What the weights of a checkpoint were made of."""
    try:
        return all_stages(read_config(path))
    except MetaQAPError:
        return []  # not a checkpoint, which is told where it is opened


def open_scorer(checkpoint: str, *, device: str | None = None, batch_size: int = 8) -> AnyScorer:
    """The scorer of a checkpoint or of a baseline, on this process's device."""
    if checkpoint in BASELINES:
        return BaselineScorer(checkpoint)
    return process_scorer(checkpoint, device=device, batch_size=batch_size)


def _provenance(checkpoint: str, scorer: AnyScorer) -> dict[str, Any]:
    software = software_versions()
    if isinstance(scorer, BaselineScorer):
        return {
            "trained_on": None,
            "weights_sha256": scorer.parameters_sha256,
            "software": software | scorer.software_versions(),
        }
    opinions = [stage.opinions for stage in training_opinions(all_stages(scorer.model.config))]
    return {
        "trained_on": "; ".join(dict.fromkeys(map(str, opinions))) or None,
        "weights_sha256": weights_sha256(checkpoint),
        "software": software,
    }


def _measure(
    scorer: AnyScorer,
    split: _Split,
    known: dict[str, list[float]],
    provenance: dict[str, Any],
    *,
    seed: int,
    n_bootstrap: int,
) -> Measurement:
    image_ids = split.dataset["image_id"][:]
    new = [row for row, image_id in enumerate(image_ids) if image_id not in known]
    scores = np.column_stack(predict(scorer, split.dataset.select(new)))
    known |= zip((image_ids[row] for row in new), scores.tolist(), strict=True)
    scores = np.array([known[image_id] for image_id in image_ids])
    predictions, base_scores, distances = np.split(scores, [1, 1 + scores.shape[1] // 2], axis=1)
    predictions = predictions[:, 0]
    qualities = np.array(split.dataset["quality"])
    row = {
        **{name: provenance[name] for name in ("checkpoint", "trained_on", "weights_sha256")},
        "dataset": split.source.name,
        "split": split.name,
        "images_sha256": image_ids_sha256(split.dataset["image_id"]),
        **figures(
            scorer,
            Predictions(predictions, base_scores, distances),
            qualities,
            seed=seed,
            n_bootstrap=n_bootstrap,
        ),
        "learners": learner_figures(scorer, base_scores, qualities),
        "software": provenance["software"],
    }
    return Measurement(row=row, image_ids=image_ids, predictions=predictions, qualities=qualities)


def figures(
    scorer: AnyScorer,
    predicted: Predictions,
    qualities: npt.NDArray[np.float64],
    *,
    seed: int,
    n_bootstrap: int,
) -> dict[str, Any]:
    """[`evaluate_scores`] and how many opinions the prediction interval holds, as JSON values.

    None stands for what is not defined, such as a baseline's RMSE or the interval of a checkpoint without one.
    """
    if len(qualities) < 2:
        raise MetaQAPError(f"At least two images are needed to measure anything, and there is {len(qualities)}.")
    measured = evaluate_scores(predicted.quality, qualities, seed=seed, n_bootstrap=n_bootstrap)
    for name in METRICS:
        measured[name] = _defined(measured[name])
    measured["interval"] = None
    if isinstance(scorer, BaselineScorer):
        # Its scores have a unit of their own.
        measured["rmse"] = dict.fromkeys(measured["rmse"])
    elif (config := scorer.model.config).interval_radius is not None:
        radii = interval_radii(config, *predicted)
        measured["interval"] = {
            "calibrated_for": config.interval_coverage,
            "coverage": float((np.abs(predicted.quality - qualities) <= radii).mean()),
            "width": 2 * float(radii.mean()),
        }
        if config.interval_scale is not None:
            measured["interval"] |= {"narrowest": 2 * float(radii.min()), "widest": 2 * float(radii.max())}
    return measured


def learner_figures(
    scorer: AnyScorer, base_scores: npt.NDArray[np.float64], qualities: npt.NDArray[np.float64]
) -> dict[str, dict[str, float | None]] | None:
    """PLCC and SROCC of an ensemble's learners alone and of their plain mean; None for what is no ensemble.

    Args:
        scorer: has the learners' names.
        base_scores: `(n, K)`.
        qualities: `(n,)`.
    """
    if isinstance(scorer, BaselineScorer) or scorer.model.config.num_base_learners == 1:
        return None
    learners = scorer.model.config.base_learners
    names = distinct_names([*(str(learner["name"]) for learner in learners), "plain mean"])  # type: ignore[union-attr]
    scores = dict(zip(names, [*base_scores.T, base_scores.mean(axis=1)], strict=True))
    if len(qualities) < MIN_IMAGES:
        return {name: {"plcc": None, "srocc": None} for name in scores}
    return {name: _defined(plcc_and_srocc(predicted, qualities)) for name, predicted in scores.items()}


def _defined(values: dict[str, float]) -> dict[str, float | None]:
    """With None for what is not defined: JSON has no NaN."""
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def _median(measurements: Sequence[Measurement]) -> Measurement:
    """One row for several splits: each figure's median with the lowest and the highest."""
    rows = [measurement.row for measurement in measurements]
    hashes = {row["weights_sha256"] for row in rows}
    summary = {
        **{name: rows[0][name] for name in ("checkpoint", "trained_on")},
        "weights_sha256": hashes.pop() if len(hashes) == 1 else None,
        "dataset": rows[0]["dataset"],
        "split": f"{rows[0]['split']} to {rows[-1]['split']}",
        "median_of": len(rows),
        "n": statistics.median_low(row["n"] for row in rows),
    }
    for name in METRICS:
        values = [row[name]["value"] for row in rows]
        defined = None not in values
        summary[name] = {
            "value": statistics.median(values) if defined else None,
            "min": min(values) if defined else None,
            "max": max(values) if defined else None,
        }
    intervals = [row["interval"] for row in rows]
    summary["interval"] = None
    if None not in intervals:
        summary["interval"] = {key: statistics.median(one[key] for one in intervals) for key in intervals[0]}
    figures_of = [row["learners"] for row in rows]
    summary["learners"] = None
    if None not in figures_of and all(set(one) == set(figures_of[0]) for one in figures_of):
        summary["learners"] = {
            name: {
                key: None if None in (values := [one[name][key] for one in figures_of]) else statistics.median(values)
                for key in figures
            }
            for name, figures in figures_of[0].items()
        }
    # What is the same for all stands once.
    software = rows[0]["software"]
    splits = [{key: value for key, value in row.items() if key != "software"} for row in rows]
    first = measurements[0]
    return Measurement(
        row={**summary, "splits": splits, "software": software},
        image_ids=first.image_ids,
        predictions=first.predictions,
        qualities=first.qualities,
    )


def evaluate_folder(
    folder: Path,
    options: RatingOptions,
    *,
    checkpoint: str,
    device: str | None = None,
    batch_size: int = 8,
    seed: int = 0,
    n_bootstrap: int = 1000,
) -> Measurement:
    """Measures a checkpoint on all the images of a user's own folder.

    Raises:
        MetaQAPError: An image has no score, there are fewer than two, or the checkpoint or device cannot be used or
            has learned from the images.
        DataError: The CSV file or an image is missing, damaged or not understood.
    """
    source = NamedDataset(name=FOLDER, data_dir=folder, ratings=options)
    with tempfile.TemporaryDirectory() as cache:
        where = source.where(cache)
        dataset = load_iqa_dataset(FOLDER, split="all", **where)
        scorer = open_scorer(checkpoint, device=device, batch_size=batch_size)
        if isinstance(scorer, Scorer):
            refuse_seen(all_stages(scorer.model.config), dataset, weights=checkpoint, dataset=FOLDER, **where)
        [label] = short_names([checkpoint])
        provenance = {"checkpoint": label, **_provenance(checkpoint, scorer)}
        split = _Split(source=source, name="all", number=0, dataset=dataset)
        measurement = _measure(scorer, split, {}, provenance, seed=seed, n_bootstrap=n_bootstrap)
    # All folders are the data set `folder`; its own name tells a person more.
    return replace(measurement, row=measurement.row | {"dataset": folder.resolve().name})


__all__ = ["Measurement", "NamedDataset", "evaluate", "evaluate_folder", "open_scorer"]
