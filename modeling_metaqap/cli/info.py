"""`metaqap info`: what a checkpoint is made of."""

import json
from typing import Annotated, Any

import typer

from .options import SHIPPED, Checkpoint


def info(
    checkpoint: Checkpoint = SHIPPED,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a checkpoint: its learners, what it was trained on and measured at."""
    from rich.table import Table

    from ..inference.records import percent
    from ..inference.scorer import Scorer, describe
    from .printing import console, silence_libraries

    silence_libraries()
    description = describe(Scorer(checkpoint, device="cpu").model)
    if as_json:
        print(json.dumps({"checkpoint": checkpoint, **description}, indent=2))
        return
    table = Table(title=f"Checkpoint {checkpoint}", title_justify="left")
    for heading in ("base learner", "backbone"):
        table.add_column(heading)
    for heading in ("weight", "parameters"):
        table.add_column(heading, justify="right")
    for learner in description["base_learners"]:
        table.add_row(
            learner["name"], learner["backbone"], f"{learner['weight']:.3f}", f"{learner['parameters'] / 1e6:.2f} M"
        )
    console.print(table)
    radius = description["interval_radius"]
    console.print(f"intercept {description['intercept']:+.3f}")
    interval = "prediction interval: not calibrated"
    if radius is not None:
        interval = f"{percent(description['interval_coverage'])} prediction interval: quality ± {radius:.3f}"
    console.print(interval)
    labels = description["distortion_labels"]
    console.print(f"distortions it can name: {len(labels) if labels else 'none'}")
    for name, value in (description["training_summary"] or {}).items():
        console.print(f"{name.replace('_', ' ')}: {_flat(value)}", markup=False)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(_flat(item) for item in value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)
