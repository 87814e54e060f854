"""The recipes that ship with the package, and accelerate's settings beside them, by name."""

from pathlib import Path

#: Where they lie.
FOLDER = Path(__file__).parent / "recipes"

#: The folder with accelerate's settings.
ACCELERATE = "accelerate"


def names() -> list[str]:
    """All names, such as "metaqap-lite/mobilenetv2-1" and "accelerate/one_gpu"."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def find(name: str | Path) -> Path:
    """The file of this name, or else the one that ships under it; if there is none, the name as it is."""
    path = Path(name)
    if path.exists() or path.is_absolute() or ".." in path.parts:
        return path
    shipped = FOLDER / f"{path.as_posix().removesuffix('.yaml')}.yaml"
    return shipped if shipped.is_file() else path


def summary(name: str) -> str:
    """The first sentence of the comment that a file begins with."""
    comment = []
    for line in find(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        comment.append(line.removeprefix("# "))
    return " ".join(comment).partition(". ")[0].removesuffix(".")


__all__ = ["ACCELERATE", "FOLDER", "find", "names", "summary"]
