"""Bring transformers' own common tests from the package index, for `test_common_tests.py`.

The wheel does not hold them; the source distribution of the same version does. Without an index nothing happens, and
the tests are skipped.
"""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

#: What the common tests need. `parameterized` is a small package that they import.
_FILES = ("test_image_processing_common.py", "test_modeling_common.py")
_FOLDER = Path(__file__).parents[1] / "build" / "common-tests"


def folder_of_common_tests() -> Path:
    """Where the common tests of the installed version lie, once they were brought."""
    return _FOLDER / f"transformers-{version('transformers')}"


def bring() -> None:
    """Download what is missing.

    Raises:
        subprocess.CalledProcessError: if the package index does not give it.
    """
    folder = folder_of_common_tests()
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--dest", temporary, "--timeout", "20", "--retries", "1"]
        wanted = f"transformers=={version('transformers')}"
        pip += ["--no-binary", "transformers", wanted, "parameterized==0.9.0"]
        subprocess.run(pip, check=True, stderr=subprocess.PIPE)
        new = Path(temporary, "new")
        [archive] = Path(temporary).glob("transformers-*.tar.gz")
        with tarfile.open(archive) as files:
            top = archive.name.removesuffix(".tar.gz")
            for name in _FILES:
                source = files.extractfile(f"{top}/tests/{name}")
                assert source is not None  # `extractfile` raises KeyError where there is no such file
                target = new / "transformers_tests" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read())
        [wheel] = Path(temporary).glob("parameterized-*.whl")
        with zipfile.ZipFile(wheel) as files:
            files.extractall(new)
        new.rename(folder)


if __name__ == "__main__":
    try:
        bring()
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode().strip().rpartition("\n")[2]
        print(f"transformers' common tests could not be brought and are skipped: {reason}")
