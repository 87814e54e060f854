"""The model card of a checkpoint that was adapted to somebody's own ratings."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..configuration_metaqap import MetaQAPConfig
from ..lineage import Stage, in_words, learner_stages, read_stages, training_opinions

#: Address of the paper.
PAPER = "https://arxiv.org/abs/2506.16601"

NO_LINKS: Mapping[str, str] = MappingProxyType({})

_FIGURES = {"plcc": "PLCC", "srocc": "SROCC", "rmse": "RMSE"}


def adapted_card(
    config: MetaQAPConfig, record: dict[str, Any], name: str, *, links: Mapping[str, str] = NO_LINKS
) -> str:
    """The card in Markdown; each number comes from the record.

    Args:
        config: of the adapted model.
        record: of its `Adaptation`.
        name: of the checkpoint.
        links: addresses of the demo and the source by their names; the paper's is always there.
    """
    stages_of = learner_stages(config)
    figures = record["figures"]
    rows = [
        f"| {heading} | {_figure(figures['before'][figure])} | {_figure(figures['after'][figure])} |"
        for figure, heading in _FIGURES.items()
    ]
    curve = [
        f"| {point['n']:,} | {point['plcc']:.3f} | {point['srocc']:.3f} | {point['rmse']:.3f} |"
        for point in record["learning_curve"]
    ]
    lineages = [
        f"- {learner['name']}: {in_words(stages)}"
        for learner, stages in zip(config.base_learners, stages_of, strict=True)  # type: ignore[arg-type]
    ]
    parts = [
        _front_matter(is_ensemble=len(lineages) > 1),
        f"# {name}",
        "MetaQAP scores how good a photograph looks, without a reference image to compare it with. This checkpoint "
        f"was adapted to {record['n']:,} ratings by `metaqap adapt`.",
        " · ".join(f"[{label}]({address})" for label, address in {"Paper": PAPER, **links}.items()),
        "```python\nfrom PIL import Image\nfrom transformers import AutoImageProcessor, AutoModel\n\n"
        f'model = AutoModel.from_pretrained("{name}", trust_remote_code=True).eval()\n'
        f'image_processor = AutoImageProcessor.from_pretrained("{name}", trust_remote_code=True)\n'
        'print(model(**image_processor(Image.open("photo.jpg"), return_tensors="pt")).logits.item())\n```',
        *_scale_in_words(config),
        "## What to expect",
        f"{record['conclusion']} Each rating was predicted by a fit on the other folds' ratings; in brackets 95 % "
        "bootstrap intervals. The interval of a score is "
        f"\u00b1 {record['interval_radius']:.3f}{on_average(record)}.",
        "| | before | after |\n|---|---|---|\n" + "\n".join(rows),
    ]
    if curve:
        parts += [
            "With fewer ratings, on a fifth that was left out:",
            "| ratings | PLCC | SROCC | RMSE |\n|---|---|---|---|\n" + "\n".join(curve),
        ]
    if can_be_drawn(record["learning_curve"]):
        parts.append("![Learning curve](learning_curve.png)")
    parts += [
        "These figures hold for photographs and raters like those of the ratings.",
        "## What it was made of",
        "\n".join(lineages),
        f"All together: {in_words(read_stages(config.lineage))}.",
        f"**Licence.** Code and weights come under the Apache License 2.0.{_licences(stages_of)}",
    ]
    return "\n\n".join(parts) + "\n"


def can_be_drawn(curve: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a learning curve has more than one number of ratings, besides none: one point is no curve."""
    return len(curve) > 2


def on_average(record: Mapping[str, Any]) -> str:
    """What follows the width of the interval of an `Adaptation`'s record: nothing if it is the same for all."""
    return "" if record.get("interval_scale") is None else " on average, and wider where scores are less sure"


def _front_matter(*, is_ensemble: bool) -> str:
    """What the shipped checkpoint's card has too, as far as it is true of this one."""
    ensemble = ["ensemble"] if is_ensemble else []
    tags = [
        "image-quality-assessment",
        "no-reference",
        "metaqap",
        "timm",
        *ensemble,
        "custom_code",
        "arxiv:2506.16601",
    ]
    return (
        "---\nlanguage: en\nlibrary_name: transformers\nlicense: apache-2.0\npipeline_tag: image-classification\n"
        "tags:\n" + "".join(f"- {tag}\n" for tag in tags) + "---"
    )


def _licences(stages_of: Sequence[Sequence[Stage]]) -> str:
    """Which public data sets the learners were trained on, with their licences."""
    # Whoever adapts has what reads data sets; the demo, which imports this module too, need not have it.
    from ..data.iqa_datasets import IQA_DATASETS

    names = dict.fromkeys(stage.dataset for stages in stages_of for stage in training_opinions(stages))
    known = [IQA_DATASETS[name] for name in names if name in IQA_DATASETS and IQA_DATASETS[name].homepage]
    if not known:
        return ""
    of_each = " and ".join(f"{one.title} ({one.homepage}; licence: {one.license})" for one in known)
    return f" Before this adaptation the learners were trained on photographs of {of_each}."


def _scale_in_words(config: MetaQAPConfig) -> list[str]:
    if config.mos_range is None:
        return []
    low, high = config.mos_range
    return [
        f"Quality 0 stands for the lowest rating, {low:g}, and 1 for the highest, {high:g}. `metaqap score "
        '--raters-scale`, or `Scorer(..., scale="raters")`, gives scores on that scale.'
    ]


def _figure(figure: dict[str, float]) -> str:
    interval = f" [{figure['low']:.3f}, {figure['high']:.3f}]" if "low" in figure else ""
    return f"{figure['value']:.3f}{interval}"


__all__ = ["NO_LINKS", "PAPER", "adapted_card", "can_be_drawn", "on_average"]
