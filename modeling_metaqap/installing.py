"""Packages that are missing: which extra brings them, and how to install it from where this package came from."""

import json
import re
import shlex
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import url2pathname

if TYPE_CHECKING:
    from packaging.requirements import Requirement

#: Names that packages are imported by and distributed under, where they differ.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
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
    return next((extra for extra, one in _requirements_of_extras() if one.name == package and extra != "dev"), None)


def _requirements(extra: str) -> list[str]:
    """What an extra brings, without versions but with what each requirement needs itself."""
    return [
        f"{one.name}[{','.join(sorted(one.extras))}]" if one.extras else one.name
        for name, one in _requirements_of_extras()
        if name == extra
    ]


def _requirements_of_extras() -> Iterator[tuple[str, "Requirement"]]:
    from packaging.requirements import Requirement

    try:
        texts = metadata.requires(_NAME) or []
    except metadata.PackageNotFoundError:
        return
    for text in texts:
        requirement = Requirement(text)
        if extra := re.search(r'extra == "(.+?)"', str(requirement.marker)):
            yield extra[1], requirement


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
