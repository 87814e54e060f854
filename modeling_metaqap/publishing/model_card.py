"""The model card and the evaluation files of a checkpoint, written from measured results."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from ..configuration_metaqap import MetaQAPConfig
from ..data.iqa_datasets import IQA_DATASETS
from ..errors import MetaQAPError
from ..evaluation.tables import format_figure, plcc_srocc, sentences, title
from ..fusion.adapted_card import NO_LINKS
from ..inference.records import percent
from ..lineage import TIMM_HUB, Stage, has_own_scale, in_words, read_stages, training_opinions, weights_sha256
from .card_picture import PICTURE, PICTURE_FILE, has_picture

#: Figures of a result in the order of the tables, with their names for people.
FIGURES = {"plcc": "PLCC", "srocc": "SROCC", "krocc": "KROCC", "rmse": "RMSE"}

_ENGINES = {
    "torch": "PyTorch, float32",
    "torch-bfloat16": "PyTorch, bfloat16",
    "onnx": "ONNX Runtime, float32",
    "onnx-int8": "ONNX Runtime, int8",
}

#: What the shipped checkpoint's card is made of.
SHIPPED_CARD = Path(__file__).with_name("hub_card")

_SURROGATES = {"softmax": "the correlation of softmaxes", "soft_rank": "a differentiable Spearman correlation"}


def card_files(
    checkpoint: str | Path,
    card_dir: str | Path,
    *,
    repo_id: str | None = None,
    links: Mapping[str, str] = NO_LINKS,
) -> dict[str, str]:
    """The card (`README.md`) and `.eval_results/*.yaml` of a checkpoint.

    Args:
        checkpoint: folder with `config.json`, `fit.json`, `preprocessor_config.json` and the weights.
        card_dir: folder with `results.json` (by `scripts/evaluate.py`) and, if they were measured for these weights,
            `cost.json` (by `scripts/benchmark.py`) and `onnx.json` (by `scripts/export_onnx.py`). A `template.md` and
            a `published.json` (figures of others) in it take the place of those that ship.
        repo_id: Hub id that the examples name; default the name of the checkpoint's folder.
        links: addresses of the demo and the source by their names; the paper's is always there.

    Returns:
        Path in the repository -> text.

    Raises:
        MetaQAPError: if there are no results, or only those of other weights, or it is not known what the learners
            were trained on.
        OSError: if a file is missing.
    """
    checkpoint, card_dir = Path(checkpoint), Path(card_dir)
    name = checkpoint.resolve().name
    config, fit, processor = (
        _read(checkpoint / file) for file in ("config.json", "fit.json", "preprocessor_config.json")
    )
    weights = weights_sha256(checkpoint)
    rows = [row for row in _read(card_dir / "results.json")["results"] if _is_result(row)]
    own = [row for row in rows if row.get("weights_sha256") == weights]
    if weights is None or not own:
        raise MetaQAPError(
            f"{card_dir / 'results.json'} has no test results of the weights in {checkpoint}; measure them with "
            "`metaqap evaluate-set`."
        )
    # Results of other methods; those of other weights of this model would be read as this one's.
    others = [row for row in rows if row not in own and row["checkpoint"] != name]
    published = _read(_given_or_shipped(card_dir, "published.json"))
    cost = _cost(card_dir / "cost.json", weights)
    onnx = _onnx(card_dir / "onnx.json", weights)
    stages_of = [read_stages(learner.get("lineage")) for learner in config["base_learners"]]
    learned = _opinions(stages_of, checkpoint / "config.json")
    trained_on = " and ".join(dict.fromkeys(map(_opinions_in_words, learned)))
    training_sets = list(dict.fromkeys(str(stage.dataset) for stage in learned))
    fitted_on = f"{_title(fit['dataset'])} {fit['split']}, n {_thousands(fit['figures']['meta-learner']['n'])}"
    card = ModelCard.from_template(
        _front_matter(name, own, base_models=_base_models(stages_of)),
        template_str=_given_or_shipped(card_dir, "template.md").read_text(encoding="utf-8"),
        name=name,
        repo_id=repo_id or name,
        links={"Paper": published["url"], **links},
        picture=_read(card_dir / PICTURE_FILE) | {"file": PICTURE} if has_picture(checkpoint, card_dir) else None,
        learners=_learners(config, fit),
        fusions=[
            {"name": f"**{label}**" if label == "meta-learner" else label} | _correlations(fit["figures"][label])
            for label in ("plain mean", "meta-learner", "meta-learner, cross-fitted")
            if len(config["base_learners"]) > 1
        ],
        # Fits of before there was such a thing say nothing of it.
        shrinkage=percent(fit["shrinkage"]) if fit.get("shrinkage") else None,
        interval=None if config["interval_radius"] is None else f"{config['interval_radius']:.3f}",
        interval_varies=config.get("interval_scale") is not None,
        familiarity=config.get("familiar_distances") is not None,
        interval_coverage=percent(config.get("interval_coverage", MetaQAPConfig.interval_coverage)),
        mos_range=[f"{one:g}" for one in config["mos_range"]] if has_own_scale(config.get("mos_range")) else [],
        distortions=len(config["distortion_labels"]),
        kernel_heads=any(learner.get("kernel_head") for learner in config["base_learners"]),
        fitted_on=fitted_on,
        shortest_edge=processor["size"]["shortest_edge"],
        trained_on=trained_on,
        training_sets={dataset: IQA_DATASETS[dataset] for dataset in training_sets},
        lineages=[
            {"name": learner["name"], "stages": in_words(stages), "scales": _scales(learner)}
            for learner, stages in zip(config["base_learners"], stages_of, strict=True)
        ],
        surrogate=_SURROGATES[config["loss_surrogate"]],
        confidence=percent(own[0].get("confidence", 0.95)),
        medians=any("median_of" in row for row in own),
        cross=any(row["dataset"] not in training_sets for row in own),
        results=[
            {"title": _title(row["dataset"]), "split": row["split"], "n": _thousands(row["n"])}
            | {figure: _with_interval(row[figure]) for figure in FIGURES}
            for row in own
        ],
        sentences=[sentence for row in own for sentence in sentences(row)],
        published=published,
        comparisons=[_comparison(row, name, others, published) for row in own if _published_for(row, published)],
        cost=cost,
        onnx=onnx,
        citations=[
            IQA_DATASETS[dataset].citation
            for dataset in dict.fromkeys([*training_sets, fit["dataset"], *_datasets(own)])
            if dataset in IQA_DATASETS and IQA_DATASETS[dataset].citation
        ],
    )
    files = {"README.md": str(card).rstrip("\n") + "\n"}
    for dataset in _datasets(own):
        entries = [entry for row in own if row["dataset"] == dataset for entry in _eval_entries(row)]
        text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, width=1000)
        files[f".eval_results/{dataset}.yaml"] = text
    return files


def write_card(files: dict[str, str], folder: str | Path) -> None:
    """Write what `card_files` gives; evaluation files of data sets that are no longer among them are removed."""
    folder = Path(folder)
    for old in folder.glob(".eval_results/*.yaml"):
        if str(old.relative_to(folder)) not in files:
            old.unlink()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _given_or_shipped(card_dir: Path, name: str) -> Path:
    """A file of the card that holds for other weights too, so that whoever has none need not write it."""
    given = card_dir / name
    return given if given.is_file() else SHIPPED_CARD / name


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _opinions(stages_of: list[list[Stage]], file: Path) -> list[Stage]:
    """The stages in which the learners learned from opinion scores.

    Raises:
        MetaQAPError: if a learner does not say them, or they are of a data set that is not known.
    """
    learned = [training_opinions(stages) for stages in stages_of]
    if not all(learned):
        raise MetaQAPError(
            f"{file} does not say which images each learner was trained on; train and fuse the learners anew, which "
            "writes it there."
        )
    stages = [stage for one in learned for stage in one]
    if unknown := [stage.dataset for stage in stages if stage.dataset not in IQA_DATASETS]:
        raise MetaQAPError(f"{file} names the data set {unknown[0]!r}, whose licence is not known here.")
    return stages


def _opinions_in_words(stage: Stage) -> str:
    name = str(stage.dataset)
    if IQA_DATASETS[name].homepage:
        return str(stage.opinions).replace(name, _title(name))
    # Ratings of one's own: the name of the data set says nothing to whoever reads the card.
    return f"a folder of rated photographs ({str(stage.opinions).removeprefix(name).strip()})"


def _base_models(stages_of: list[list[Stage]]) -> list[str]:
    """Hub ids of the ImageNet weights; those that came from elsewhere have none."""
    sources = (stage.source or "" for stages in stages_of for stage in stages)
    found = (source.removeprefix(TIMM_HUB) for source in sources if source.startswith(TIMM_HUB))
    return [source for source in dict.fromkeys(found) if source.count("/") == 1]


def _front_matter(name: str, own: list[dict[str, Any]], *, base_models: list[str]) -> ModelCardData:
    results = [
        EvalResult(
            # The Hub has no task of its own for image quality; the stock pipeline of this one loads the model.
            task_type="image-classification",
            task_name="No-reference image quality assessment",
            dataset_type=row["dataset"],
            dataset_name=_title(row["dataset"]),
            dataset_split=row["split"],
            metric_type=figure,
            metric_name=label,
            metric_value=_rounded(row[figure]["value"]),
        )
        for row in own
        for figure, label in FIGURES.items()
        if row[figure]["value"] is not None
    ]
    return ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=[
            "image-quality-assessment",
            "no-reference",
            "metaqap",
            "timm",
            "ensemble",
            "custom_code",
            "arxiv:2506.16601",
        ],
        # No `datasets`: it takes Hub ids, and the publishers of these sets have none.
        base_model=base_models or None,
        metrics=list(FIGURES),
        model_name=name,
        eval_results=results,
    )


def _eval_entries(row: dict[str, Any]) -> list[EvalResultEntry]:
    about = f"{row['split']} split, n {row['n']}"
    entries = []
    for figure in FIGURES:
        if (value := row[figure]["value"]) is not None:
            notes = about
            if "low" in row[figure]:
                notes += f", {percent(row['confidence'])} bootstrap interval {_interval(row[figure])}"
            entries.append(
                EvalResultEntry(dataset_id=row["dataset"], task_id=figure, value=_rounded(value), notes=notes)
            )
    return entries


def _scales(learner: dict[str, Any]) -> str:
    """At which sizes a learner sees a crop, such as "1 and 1/2"; nothing if as it is alone."""
    scales = learner.get("scales", [1])
    return "" if scales == [1] else " and ".join("1" if scale == 1 else f"1/{scale}" for scale in scales)


def _kept(fit: dict[str, Any]) -> list[tuple[dict[str, Any], float]]:
    """The learners that are stored, with their weights: not those of weight 0, see `MetaQAPModel.from_base_models`."""
    return [(model, weight) for model, weight in zip(fit["base_models"], fit["weights"], strict=True) if weight]


def _learners(config: dict[str, Any], fit: dict[str, Any]) -> list[dict[str, Any]]:
    # The learners of all folds stand one after the other and share one weight.
    folds = fit.get("folds") or 1
    each = "" if folds == 1 else f", mean of {folds} folds"
    return [
        {"name": f"{model['name']}{each}", "backbone": learner["backbone"], "weight": f"{weight:.3f}"}
        | _correlations(fit["figures"][model["name"]])
        for (model, weight), learner in zip(_kept(fit), config["base_learners"][::folds], strict=True)
    ]


def _comparison(
    row: dict[str, Any], name: str, others: list[dict[str, Any]], published: dict[str, Any]
) -> dict[str, Any]:
    measured = [(f"**{name}**", row)]
    measured += [(title(other), other) for other in others if _place(other) == _place(row) and other["n"] == row["n"]]
    rows = [
        {"method": method, "source": "measured here" + _training(result, row)}
        | {figure: _with_interval(result[figure]) for figure in ("plcc", "srocc")}
        for method, result in measured
    ]
    rows += [
        {"method": result["method"], "source": published["source"]}
        | {figure: result[figure] for figure in ("plcc", "srocc")}
        for result in _published_for(row, published)
    ]
    return {"title": _title(row["dataset"]), "split": row["split"], "rows": rows}


def _training(result: dict[str, Any], own: dict[str, Any]) -> str:
    """What another method was trained on: images of the same kind or of another."""
    trained_on = result.get("trained_on")
    return f", as trained on {_title(trained_on)}" if trained_on and result is not own else ""


def _published_for(row: dict[str, Any], published: dict[str, Any]) -> list[dict[str, Any]]:
    return [result for result in published["results"] if _place(result) == _place(row)]


def _cost(path: Path, weights: str) -> dict[str, Any] | None:
    if not path.exists() or (measured := _read(path)["inference"])["weights_sha256"] != weights:
        return None
    return {
        "side": measured["side"],
        "threads": measured["threads"],
        "cpu": measured["machine"]["cpu"],
        "parameters": f"{measured['parameters'] / 1e6:.2f}",
        "macs": f"{measured['macs'] / 1e9:.2f}",
        "megabytes": f"{measured['weights_megabytes']:.1f}",
        "memory": f"{measured['peak_memory_megabytes']:.0f}",
        "engines": [
            {"name": _ENGINES[engine], "ratio": f"{row['over_torch']:.2f} x"}
            for engine, row in measured["engines"].items()
            if engine != "torch"
        ],
    }


def _onnx(path: Path, weights: str) -> dict[str, Any] | None:
    if not path.exists() or (measured := _read(path))["weights_sha256"] != weights:
        return None
    engines = measured["engines"]
    int8 = engines.get("onnx-int8")
    return {
        "n": measured["n"],
        "place": f"{_title(measured['dataset'])} {measured['split']}",
        "largest": f"{engines['onnx']['largest']:.1e}",
        "correlations": plcc_srocc(engines["torch"]),
        "int8": int8
        and {
            "largest": f"{int8['largest']:.3f}",
            "mean": f"{int8['mean']:.3f}",
            "correlations": plcc_srocc(int8),
        },
    }


def _correlations(figures: dict[str, Any]) -> dict[str, str]:
    return {name: f"{figures[name]['value']:.3f}" for name in ("plcc", "srocc")}


def _with_interval(figure: dict[str, float | None]) -> str:
    """A figure as `scripts/evaluate.py` writes it: with its interval, or its range over several splits."""
    return "" if figure["value"] is None else format_figure(figure)


def _interval(figure: dict[str, float | None]) -> str:
    return f"[{figure['low']:.3f}, {figure['high']:.3f}]"


def _rounded(value: float) -> float:
    return round(value, 4)


def _thousands(number: int) -> str:
    return f"{number:,}"


def _is_result(row: dict[str, Any]) -> bool:
    """Whether a row is of images that no choice was made on: a test split, or a data set that is measured as a whole.

    The whole of one that a learner has seen is refused when it is measured.
    """
    split = row.get("split", "")
    return split.startswith("test") or split == "all"


def _place(row: dict[str, Any]) -> tuple[str, str]:
    return row["dataset"], row["split"]


def _datasets(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["dataset"] for row in rows))


def _title(dataset: str) -> str:
    return IQA_DATASETS[dataset].title if dataset in IQA_DATASETS else dataset


__all__ = ["FIGURES", "card_files", "write_card"]
