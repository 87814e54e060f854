"""`metaqap distort`: a photograph -> one picture of all distortions at all levels."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import MetaQAPError
from .options import refuse_to_overwrite


def distort(
    photo: Annotated[Path, typer.Argument(help="A photograph, 32 x 32 pixels or more.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write, such as grid.png.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the distortions' randomness.")] = 0,
    cell: Annotated[int, typer.Option(min=32, max=1024, help="Longer side of one cell in pixels.")] = 224,
) -> None:
    """Draw the 25 distortions of quality-aware pretraining at their five levels on a photograph."""
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise MetaQAPError(f"The picture {output} must end in .png, .jpg or .webp.")
    refuse_to_overwrite(output, photo)

    from ..data.atomic import save_picture
    from ..data.distortions.grid import distortion_grid
    from ..decoding_metaqap import read_rgb
    from ..inference.record_files import cannot_write
    from ..inference.wording import distortion_title, heading
    from .printing import errors, silence_libraries

    silence_libraries()
    try:
        picture = distortion_grid(
            read_rgb(photo), seed=seed, cell=cell, title=lambda name: heading(distortion_title(name))
        )
    except ValueError as error:
        raise MetaQAPError(f"{photo} cannot be distorted: {error}.") from error
    try:
        save_picture(picture, output)
    except OSError as error:
        raise cannot_write(output, error) from error
    errors.print(f"Wrote {output}, {picture.width} x {picture.height} pixels.", markup=False, soft_wrap=True)
