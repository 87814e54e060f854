"""What a trained learner has seen, so that it is not measured on that.

`training_summary` of a checkpoint says it as a text: `"biq2021 train"` is a data set and its split, and `"biq2021
train+validation without ss01*"` has what was held out; `"; "` stands between several.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import datasets

from ..configuration_metaqap import MetaQAPConfig
from ..data.iqa_datasets import hold_out, load_training_split
from ..errors import DataError, MetaQAPError
from ..lineage import image_ids_sha256
from ..modeling_metaqap import ORIGINS
from .recipe import Recipe
from .run_folder import RunFolder

_AND = "; "
_TEXT = re.compile(r"(\S+) (\S+)(?: without (.+))?")
#: All folders of images have this name, so their ids have to tell them apart.
_FOLDER = "folder"


@dataclass(frozen=True)
class TrainedOn:
    """Opinions that a learner was trained on.

    Attributes:
        dataset: its name.
        split: of it, without spaces.
        rule: of what was held out of it, see `hold_out`.
    """

    dataset: str
    split: str
    rule: str | None = None

    def __str__(self) -> str:
        return f"{self.dataset} {self.split}" + ("" if self.rule is None else f" without {self.rule}")


def parts_of(trained_on: str) -> list[TrainedOn | None]:
    """The parts of such a text; None for one that says something else."""
    matches = (_TEXT.fullmatch(part) for part in trained_on.split(_AND))
    return [None if match is None else TrainedOn(*match.groups()) for match in matches]


def joined(texts: Iterable[str | None]) -> str | None:
    """What several learners say, each text once; None if they say nothing."""
    return _AND.join(dict.fromkeys(text for text in texts if text)) or None


def training_summary(recipe: Recipe, images: datasets.Dataset) -> dict[str, str] | None:
    """What the learners of a run say of it; None in pretraining, which knows no opinions.

    Args:
        recipe: of the run.
        images: that it trains on, rows with `image_id`.
    """
    trained_on = _trained_on(recipe)
    if trained_on is None:
        return None
    said = {"trained_on": str(trained_on)}
    return said | {"trained_on_sha256": _ids_sha256(images)} if recipe.dataset == _FOLDER else said


def origins(path: str | Path) -> dict[str, str]:
    """What is known of the origin of a learner's or an ensemble's weights: `ORIGINS` of its `training_summary`.

    Learners of before they said it themselves lie in a run folder that does. What an earlier run that a learner
    started from was trained on is not looked up.

    Args:
        path: a checkpoint's folder or Hub id.

    Raises:
        OSError: if there is no checkpoint.
    """
    summary = MetaQAPConfig.from_pretrained(path).training_summary or {}
    known = {key: summary[key] for key in ORIGINS if summary.get(key)}
    settings = Path(path).parent / "recipe.yaml"
    if "trained_on" not in known and settings.exists() and (trained_on := _trained_on(Recipe.load(settings))):
        known["trained_on"] = str(trained_on)
    return known


def refuse_seen(
    path: str | Path,
    images: datasets.Dataset,
    *,
    dataset: str,
    data_dir: str | None = None,
    cache_dir: str | None = None,
) -> None:
    """Raise `MetaQAPError` if a learner, or one of an ensemble, was trained on images that it is to be measured on.

    Args:
        path: a checkpoint's folder or Hub id.
        images: rows with `image_id`.
        dataset: name of the data set that they are of.
        data_dir, cache_dir: see `load_iqa_dataset`.
    """
    known = origins(path)
    for part in parts_of(known.get("trained_on", "")):
        if part is None or part.dataset != dataset:
            continue
        try:
            learned = load_training_split(dataset, split=part.split, data_dir=data_dir, cache_dir=cache_dir)
            if part.rule is not None:
                learned, _ = hold_out(learned, part.rule, name=dataset)
        except (DataError, ValueError):
            if dataset == _FOLDER:
                continue  # another folder, which has no such images
            raise
        if dataset == _FOLDER and _ids_sha256(learned) not in known.get("trained_on_sha256", "").split(_AND):
            continue
        if seen := len(set(learned["image_id"]).intersection(images["image_id"])):
            raise MetaQAPError(
                f"{path} was trained on {seen:,} of the {len(images):,} images that it would be scored on ({part}); "
                "take images that it has not seen."
            )


def was_fine_tuned(path: str | Path) -> bool:
    """Whether gradient steps trained a learner; not if its run only fitted heads on ImageNet weights."""
    run = RunFolder(Path(path).parent)
    origin = run.origin()
    return origin is None or origin["weights_sha256"] is not None or Recipe.load(run.path / "recipe.yaml").epochs > 0


def _trained_on(recipe: Recipe) -> TrainedOn | None:
    if recipe.stage != "finetune":
        return None
    splits = [recipe.train_split] if recipe.hold_out is None else [recipe.train_split, recipe.validation_split]
    return TrainedOn(recipe.dataset, "".join("+".join(splits).split()), recipe.hold_out)


def _ids_sha256(images: datasets.Dataset) -> str:
    """The same for the same images in another order."""
    return image_ids_sha256(sorted(images["image_id"]))


__all__ = [
    "TrainedOn",
    "joined",
    "origins",
    "parts_of",
    "refuse_seen",
    "training_summary",
    "was_fine_tuned",
]
