"""Packages that are missing: which extra brings them, and how to install it from where this package came from."""

import json
import re
import shlex
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

#: Names that packages are imported by and distributed under, where they differ.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "pillow_heif": "pillow-heif",
    "ray": "ray",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}

_NAME = "metaqap"


def missing_package(module: str) -> str:
    """The sentence for a package that is needed and not installed, with what to type.

    Args:
        module: name that could not be imported, such as "skimage.filters".
    """
    root = module.partition(".")[0]
    package = _DISTRIBUTIONS.get(root, root.replace("_", "-"))
    return f"This needs {package}, which is not installed; install it with `{how_to_install(package)}`."


def how_to_install(package: str) -> str:
    """The command that installs a package: the extra that has it, from where this package was installed."""
    extra = _extra_with(package)
    if extra is None:
        return f"pip install {package}"
    source = _source()
    if source is None:
        return f"pip install {' '.join(map(shlex.quote, _requirements(extra)))}"
    return f"pip install {source.format(extra=extra)}"


def _extra_with(package: str) -> str | None:
    for requirement in _all_requirements():
        name, _, marker = requirement.partition(";")
        if _plain(name) == package.lower() and "extra ==" in marker:
            extra = marker.split("extra ==")[1].strip(" '\"")
            if extra != "dev":
                return extra
    return None


def _requirements(extra: str) -> list[str]:
    return [
        _without_versions(requirement)
        for requirement in _all_requirements()
        if requirement.partition(";")[2].replace("'", '"').endswith(f'extra == "{extra}"')
    ]


def _all_requirements() -> list[str]:
    try:
        return metadata.requires(_NAME) or []
    except metadata.PackageNotFoundError:
        return []


def _without_versions(requirement: str) -> str:
    """`"brisque[opencv-python]>=0.2; extra == 'baselines'"` -> `"brisque[opencv-python]"`."""
    return re.split(r"[=<>~!;\s]", requirement.strip(), maxsplit=1)[0].lower()


def _plain(requirement: str) -> str:
    """`"brisque[opencv-python]>=0.2; extra == 'baselines'"` -> `"brisque"`."""
    return _without_versions(requirement).partition("[")[0]


def _source() -> str | None:
    """What to give to pip, with `{extra}` in it; None where that is not known or not there any more."""
    try:
        text = metadata.distribution(_NAME).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    if text is None:
        return None
    origin = json.loads(text)
    url = str(origin.get("url", ""))
    if "vcs_info" in origin:
        return f"'{_NAME}[{{extra}}] @ {origin['vcs_info']['vcs']}+{url}'"
    parsed = urlparse(url)
    if parsed.scheme != "file":
        return f"'{_NAME}[{{extra}}] @ {url}'"
    path = Path(url2pathname(parsed.path))
    if not path.exists():
        return None
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"{editable}'{path}[{{extra}}]'"


__all__ = ["how_to_install", "missing_package"]
