"""`metaqap info`: what a checkpoint is made of."""

import json
from typing import Annotated

import typer

from .options import SHIPPED, Checkpoint


def info(
    checkpoint: Checkpoint = SHIPPED,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a checkpoint: its learners and what each was made of."""
    from rich.markup import escape
    from rich.table import Table

    from ..inference.records import percent, scale_title
    from ..inference.scorer import Scorer, describe
    from ..lineage import in_words, read_stages
    from .printing import console, silence_libraries

    silence_libraries()
    description = describe(Scorer(checkpoint, device="cpu").model)
    if as_json:
        print(json.dumps({"checkpoint": checkpoint, **description}, indent=2))
        return
    table = Table(title=escape(f"Checkpoint {checkpoint}"), title_justify="left")
    for heading in ("base learner", "backbone"):
        table.add_column(heading)
    # With this column the table of the shipped ensemble would be wider than 80 characters.
    with_scales = any(learner["scales"] != [1] for learner in description["base_learners"])
    for heading in (*(["scales"] if with_scales else []), "weight", "parameters"):
        table.add_column(heading, justify="right")
    for learner in description["base_learners"]:
        table.add_row(
            escape(learner["name"]),
            learner["backbone"],
            *([", ".join(map(str, learner["scales"]))] if with_scales else []),
            f"{learner['weight']:.3f}",
            f"{learner['parameters'] / 1e6:.2f} M",
        )
    console.print(table)
    radius = description["interval_radius"]
    console.print(f"intercept {description['intercept']:+.3f}")
    interval = "prediction interval: not calibrated"
    if radius is not None:
        interval = f"{percent(description['interval_coverage'])} prediction interval: quality ± {radius:.3f}"
        if description["interval_scale"] is not None:
            interval += " on average, wider where scores are less sure"
    console.print(interval)
    if description["mos_range"] is not None:
        scale = scale_title(tuple(description["mos_range"]))
        console.print(f"raters' scale: {scale}, for `metaqap score --raters-scale`")
    labels = description["distortion_labels"]
    console.print(f"distortions it can name: {len(labels) if labels else 'none'}")
    for learner in description["base_learners"]:
        console.print(f"{learner['name']}: {in_words(read_stages(learner['lineage']))}", markup=False)
    console.print(f"all together: {in_words(read_stages(description['lineage']))}", markup=False)
