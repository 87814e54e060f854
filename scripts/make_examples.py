"""Make the sample photographs in space/examples/: free pictures that scikit-image bundles, and worse versions of each.

python scripts/make_examples.py
"""

from pathlib import Path

from PIL import Image, ImageFilter
from skimage import data

EXAMPLES = Path(__file__).parent.parent / "space" / "examples"

#: name: (where scikit-image says that it comes from, its licence)
SOURCES = {
    "astronaut": ("Eileen Collins, NASA Great Images database", "public domain"),
    "chelsea": ("Chelsea the cat, photograph by Stefan van der Walt", "CC0"),
    "coffee": ("coffee cup, photograph by Rachel Michetti, courtesy of Pikolo Espresso Bar", "CC0"),
    "rocket": ("launch of DSCOVR on a Falcon 9, photograph by SpaceX", "public domain"),
}


def main() -> None:
    EXAMPLES.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Sample photographs",
        "",
        "From scikit-image's `skimage.data`, which names sources and licences. `NAME.jpg` is the picture as it comes, "
        "`NAME_blurred.jpg` the same after a Gaussian blur with a standard deviation of 3 pixels, `NAME_crushed.jpg` "
        "after JPEG compression at quality 5. Made by `scripts/make_examples.py`.",
        "",
        "| picture | source | licence |",
        "|---|---|---|",
    ]
    for name, (source, licence) in SOURCES.items():
        image = Image.fromarray(getattr(data, name)())
        image.save(EXAMPLES / f"{name}.jpg", quality=95, subsampling=0)
        image.filter(ImageFilter.GaussianBlur(3)).save(EXAMPLES / f"{name}_blurred.jpg", quality=95, subsampling=0)
        image.save(EXAMPLES / f"{name}_crushed.jpg", quality=5)
        lines.append(f"| {name} | {source} | {licence} |")
    (EXAMPLES / "LICENSES.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
