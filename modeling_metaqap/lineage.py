"""What weights were made of, stage by stage, and what tells weights, images and software apart."""

import hashlib
import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from . import __version__
from .checkpoint_places import checkpoint_folder
from .errors import MetaQAPError

#: What can be done to weights.
KINDS = ("imagenet", "pretrain", "finetune", "heads", "fusion", "adapt")

Record = TypeVar("Record", "DistortedImages", "Stage")

_VERBS = {
    "pretrain": "pretrained on",
    "finetune": "fine-tuned on",
    "heads": "heads fitted on",
    "fusion": "fused on",
    "adapt": "adapted to",
}

# Hexadecimal digits of a file's SHA-256 that tell it apart: among a million pairs of files, two have the same ones by
# chance once in four thousand times.
_HASH_DIGITS = 8


#: How the source of weights begins that timm fetched from the Hub; their id there follows.
TIMM_HUB = "timm's hub, "


@dataclass(frozen=True, kw_only=True)
class DistortedImages:
    """Distorted images that weights learned from, made by `scripts/distort.py`. What is not known is None.

    Attributes:
        num_images: how many.
        num_photographs: how many photographs they were made of.
        reference_ids_sha256: SHA-256 of the sorted ids of these photographs, see `image_ids_sha256`.
        dataset: data set that holds all these photographs.
    """

    num_images: int | None = None
    num_photographs: int | None = None
    reference_ids_sha256: str | None = None
    dataset: str | None = None

    @classmethod
    def of(cls, reference_ids: Sequence[str], *, dataset: str | None = None) -> "DistortedImages":
        """What is to be noted of distorted images.

        Args:
            reference_ids: the id of the photograph that each image was made of.
            dataset: data set that holds all these photographs, if it is known.
        """
        photographs = sorted(set(reference_ids))
        return cls(
            num_images=len(reference_ids),
            num_photographs=len(photographs),
            reference_ids_sha256=image_ids_sha256(photographs),
            dataset=dataset,
        )

    def __str__(self) -> str:
        text = f"{_count(self.num_images)}distorted images"
        if self.num_photographs is not None or self.dataset is not None:
            text += f" of {_count(self.num_photographs)}photographs"
        return text if self.dataset is None else f"{text} of {self.dataset}"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One thing that was done to weights. What does not apply, or is not known, is None.

    Attributes:
        kind: one of `KINDS`: "imagenet" (weights of an ImageNet classifier), "pretrain" (gradient steps on pseudo
            opinion scores), "finetune" (gradient steps on opinion scores), "heads" (heads fitted in closed form),
            "fusion" (a meta-learner fitted to the scores of several learners) or "adapt" (heads in closed form on what
            the scores leave over of a person's own ratings).
        started_from: SHA-256 of the weight file that the stage started from.
        taught_by: SHA-256 of the weight file of a checkpoint whose scores were learned from too. What that one had
            learned from are stages of their own, before this one.
        dataset: data set with the opinion scores that were learned from.
        split: of it, in the notation of `load_iqa_dataset`.
        images: pattern of the ids of those images of this split that were taken, None for all.
        hold_out: rule by which images of this split were held out, see `hold_out`.
        num_images: how many images of it were learned from.
        image_ids_sha256: SHA-256 of their sorted ids, see `image_ids_sha256`.
        mos_low, mos_high: lowest and highest score that their raters could give, higher is better.
        share: part of all batches that was of this data set, where a training took several together; each of them has
            a stage then, one after the other.
        image_hashes: the beginning of each file's SHA-256, see `image_hashes`, where names say little.
        distorted: the distorted images that were learned from.
        source: where ImageNet weights come from.
        licence: of ImageNet weights.
        folds: of a fusion, number of folds that the learners were trained on.
        shrinkage: of a fusion, share of the way from the regression's weights to equal ones.
        plcc, srocc: of a fusion or an adaptation on its images, each scored by a regression on others.
    """

    kind: str
    started_from: str | None = None
    taught_by: str | None = None
    dataset: str | None = None
    split: str | None = None
    images: str | None = None
    hold_out: str | None = None
    num_images: int | None = None
    image_ids_sha256: str | None = None
    mos_low: float | None = None
    mos_high: float | None = None
    share: float | None = None
    image_hashes: str | None = None
    distorted: DistortedImages | None = None
    source: str | None = None
    licence: str | None = None
    folds: int | None = None
    shrinkage: float | None = None
    plcc: float | None = None
    srocc: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise MetaQAPError(f"A stage of a lineage must be one of {', '.join(KINDS)}, not {self.kind!r}.")
        if (self.dataset is None) != (self.split is None):
            raise MetaQAPError("A stage of a lineage names a data set together with its split.")

    @property
    def mos_range(self) -> list[float] | None:
        """Lowest and highest score that the raters could give, as a configuration has it."""
        return None if self.mos_low is None or self.mos_high is None else [self.mos_low, self.mos_high]

    @property
    def opinions(self) -> str | None:
        """The opinion scores that were learned from, such as "biq2021 train without fold 1 of 5"."""
        if self.dataset is None:
            return None
        only = "" if self.images is None else f" only {self.images}"
        without = "" if self.hold_out is None else f" without {self.hold_out}"
        return f"{self.dataset} {self.split}{only}{without}"

    def __str__(self) -> str:
        if self.kind == "imagenet":
            licence = "" if self.licence is None else f" ({self.licence})"
            return "ImageNet weights" + ("" if self.source is None else f" of {self.source}{licence}")
        images = None
        if self.opinions is not None:
            images = self.opinions + ("" if self.num_images is None else f", n {self.num_images:,}")
            if has_own_scale(self.mos_range):
                images += f", rated from {self.mos_low:g} to {self.mos_high:g}"
            if self.share is not None:
                images += f", {self.share:.0%} of each batch"
        taught = None if self.taught_by is None else "the scores of a teacher"
        learned = " and ".join(str(part) for part in (images, self.distorted, taught) if part is not None)
        text = f"{_VERBS[self.kind]} {learned or 'images that are not known'}"
        figures = [f"{name} {value:.4f}" for name, value in (("PLCC", self.plcc), ("SROCC", self.srocc)) if value]
        return f"{text}: {', '.join(figures)}" if figures else text


def rated_images(
    dataset: str,
    split: str,
    image_ids: Iterable[str],
    *,
    images: str | None = None,
    hold_out: str | None = None,
    mos_range: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The attributes of a `Stage` that say which images with opinion scores it learned from."""
    ids = sorted(image_ids)
    low, high = mos_range or (None, None)
    return {
        "dataset": dataset,
        "split": "".join(split.split()),
        "images": images,
        "hold_out": hold_out,
        "num_images": len(ids),
        "image_ids_sha256": image_ids_sha256(ids),
        "mos_low": low,
        "mos_high": high,
    }


def read_stages(entries: Any) -> list[Stage]:
    """The stages that a configuration holds as JSON; None stands for none.

    Raises:
        MetaQAPError: for anything that `write_stages` did not give.
    """
    known = {field.name for field in fields(Stage)}
    stages = []
    try:
        for entry in entries or []:
            if unknown := sorted(set(entry) - known):
                raise MetaQAPError(f"The lineage has an unknown entry {unknown[0]!r}; upgrade metaqap.")
            distorted = entry.get("distorted")
            distorted = None if distorted is None else _checked(DistortedImages(**distorted))
            stages.append(_checked(Stage(**entry | {"distorted": distorted})))
    except (TypeError, AttributeError) as error:
        raise MetaQAPError(f"The lineage cannot be read: {error}.") from error
    return stages


def write_stages(stages: Iterable[Stage]) -> list[dict[str, Any]]:
    """Stages as JSON values; what is None is left out."""
    return [_without_none(asdict(stage)) for stage in stages]


def learner_stages(config: Any) -> list[list[Stage]]:
    """What each base learner was made of, in the order of `config.base_learners`.

    Args:
        config: a `MetaQAPConfig`.
    """
    return [read_stages(learner.get("lineage")) for learner in config.base_learners]


def all_stages(config: Any) -> list[Stage]:
    """What the whole was made of: the stages of all its learners, each once, and then its fusion.

    Args:
        config: a `MetaQAPConfig`.
    """
    of_learners = [stage for stages in learner_stages(config) for stage in stages]
    return list(dict.fromkeys([*of_learners, *read_stages(config.lineage)]))


def in_words(stages: Iterable[Stage]) -> str:
    """Stages for people, one after the other; the same several times in a row stands there once."""
    texts = []
    for text, same in groupby(map(str, stages)):
        times = len(list(same))
        texts.append(text if times == 1 else f"{text} ({times} times)")
    return "; ".join(texts) or "not known"


def training_opinions(stages: Iterable[Stage]) -> list[Stage]:
    """The stages in which learners learned from opinion scores; a fusion is none of them."""
    return [stage for stage in stages if stage.dataset is not None and stage.kind != "fusion"]


def image_ids_sha256(image_ids: Iterable[str]) -> str:
    """SHA-256 of image ids, one a line, in their order: two results with the same digest are about the same images."""
    return hashlib.sha256("".join(f"{name}\n" for name in image_ids).encode()).hexdigest()


def image_hashes(digests: Iterable[str]) -> str:
    """The first digits of the SHA-256 of each of some image files, sorted and one after the other."""
    return "".join(sorted(digest[:_HASH_DIGITS] for digest in digests))


def shares_images(stage: Stage, digests: Iterable[str]) -> list[bool]:
    """Whether a stage learned from each of some image files, whose SHA-256 is given, as far as it has hashes."""
    joined = stage.image_hashes or ""
    learned = {joined[start : start + _HASH_DIGITS] for start in range(0, len(joined), _HASH_DIGITS)}
    return [digest[:_HASH_DIGITS] in learned for digest in digests]


def has_own_scale(mos_range: Sequence[float] | None) -> bool:
    """Whether raters who could give these lowest and highest scores had another scale than that of quality, 0 to 1."""
    return mos_range is not None and tuple(mos_range) != (0, 1)


def software_versions() -> dict[str, str]:
    """Versions of what a score depends on."""
    names = ("torch", "torchvision", "timm", "transformers", "pillow", "numpy", "datasets")
    return {"python": platform.python_version(), "metaqap": __version__} | {name: version(name) for name in names}


def weights_sha256(checkpoint: str | Path) -> str | None:
    """SHA-256 of a checkpoint's weight file, in a folder or in the Hub's cache; None where there is none."""
    name = "model.safetensors"
    if (folder := checkpoint_folder(checkpoint)) is not None:
        path = folder / name
    else:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(str(checkpoint), name)
        if not isinstance(cached, str):
            return None
        path = Path(cached)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _checked(record: Record) -> Record:
    """The record, if its text is text and its numbers are numbers."""
    for field in fields(record):
        value = getattr(record, field.name)
        is_whole = type(value) is int and isinstance(0.0, field.type)  # type: ignore[arg-type]
        is_fit = isinstance(value, field.type) or is_whole  # type: ignore[arg-type]
        if not is_fit or isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
            raise TypeError(f"{field.name} cannot be {value!r}")
    return record


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,} "


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }


__all__ = [
    "KINDS",
    "TIMM_HUB",
    "DistortedImages",
    "Stage",
    "all_stages",
    "has_own_scale",
    "image_hashes",
    "image_ids_sha256",
    "in_words",
    "learner_stages",
    "rated_images",
    "read_stages",
    "shares_images",
    "software_versions",
    "training_opinions",
    "weights_sha256",
    "write_stages",
]
