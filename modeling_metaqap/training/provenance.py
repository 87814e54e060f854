"""What a trained learner has seen, so that it is not measured on that.

In `training_summary` of a checkpoint, and here, that is a text such as `"biq2021 train"`: data set and split, with
what was held out, `"biq2021 train+validation without ss01*"`, and with `" and "` between several.
"""

import re
from pathlib import Path

import datasets

from ..configuration_metaqap import MetaQAPConfig
from ..iqa_datasets import hold_out, load_training_split
from .recipe import Recipe, RecipeError
from .run_folder import RunFolder

_AND = " and "
_TERM = re.compile(r"(?P<dataset>\S+) (?P<split>\S+)(?: without (?P<rule>.+))?")


def data_sets_of(trained_on: str) -> list[str]:
    """The data sets that such a text names, each once."""
    return list(dict.fromkeys(match["dataset"] for match in _terms(trained_on)))


def trained_on(path: str | Path) -> str | None:
    """What the opinions that a learner or an ensemble was trained on are of; None where nothing tells.

    The run folder that a learner lies in says so, or the checkpoint itself. What an earlier run that a learner started
    from was trained on is not looked up.

    Args:
        path: a checkpoint's folder or Hub id.

    Raises:
        OSError: if there is no checkpoint.
    """
    return _of_run(path) or (MetaQAPConfig.from_pretrained(path).training_summary or {}).get("trained_on")


def refuse_seen(
    path: str | Path,
    images: datasets.Dataset,
    *,
    dataset: str,
    data_dir: str | None = None,
    cache_dir: str | None = None,
) -> None:
    """Raise `RecipeError` if a learner, or one of an ensemble, was trained on images that it is to be measured on.

    Args:
        path: a checkpoint's folder or Hub id.
        images: rows with `image_id`.
        dataset: name of the data set that they are of.
        data_dir, cache_dir: see `load_iqa_dataset`.
    """
    described = trained_on(path)
    # All folders of images have one name; that it was this one only a learner's own run folder says.
    if described is None or (dataset == "folder" and _of_run(path) is None):
        return
    for term in _terms(described):
        if term["dataset"] != dataset:
            continue
        learned = load_training_split(dataset, split=term["split"], data_dir=data_dir, cache_dir=cache_dir)
        if term["rule"] is not None:
            learned, _ = hold_out(learned, term["rule"], name=dataset)
        if seen := len(set(learned["image_id"]).intersection(images["image_id"])):
            raise RecipeError(
                f"{path} was trained on {seen:,} of the {len(images):,} images that it would be scored on "
                f"({described}); take images that it has not seen."
            )


def was_fine_tuned(path: str | Path) -> bool:
    """Whether gradient steps trained a learner; not if its run only fitted heads on ImageNet weights."""
    run = RunFolder(Path(path).parent)
    origin = run.origin()
    return origin is None or origin["weights_sha256"] is not None or Recipe.load(run.path / "recipe.yaml").epochs > 0


def _of_run(path: str | Path) -> str | None:
    settings = Path(path).parent / "recipe.yaml"
    if not settings.exists():
        return None
    recipe = Recipe.load(settings)
    # Pretraining knows no opinions.
    if recipe.stage != "finetune":
        return None
    if recipe.hold_out is None:
        return f"{recipe.dataset} {recipe.train_split}"
    return f"{recipe.dataset} {recipe.train_split}+{recipe.validation_split} without {recipe.hold_out}"


def _terms(trained_on: str) -> list[re.Match[str]]:
    return [match for term in trained_on.split(_AND) if (match := _TERM.fullmatch(term))]


__all__ = ["data_sets_of", "refuse_seen", "trained_on", "was_fine_tuned"]
