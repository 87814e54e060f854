"""The wheel: what a user installs is all of the package, with files in place of links."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from repository import ROOT

#: The card of the shipped checkpoint as `make card` writes it; `metaqap push` writes it anew.
LEFT_OUT = ("publishing/hub_card/README.md", "publishing/hub_card/.eval_results/")

# Files with more bytes are copied empty, which spares seconds: only names matter.
LARGE = 200_000


def tracked_files():
    """What git holds, relative to the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("needs a checkout of git: its list of files is compared")
    return [name for name in listed.stdout.split("\0") if name and os.path.lexists(ROOT / name)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The files in the wheel of what git holds: bytes by name."""
    pytest.importorskip("setuptools.build_meta", reason="needs setuptools, which builds the wheel")
    copy, output = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in tracked_files():
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
        elif source.stat().st_size > LARGE:
            target.touch()
        else:
            shutil.copyfile(source, target)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    process = subprocess.run([sys.executable, "-c", build, str(output)], cwd=copy, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    [file] = output.glob("*.whl")
    with zipfile.ZipFile(file) as files:
        return {name: files.read(name) for name in files.namelist()}


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    package = [name for name in tracked_files() if name.startswith("modeling_metaqap/")]
    assert len(package) > 200
    needed = {name for name in package if not name.removeprefix("modeling_metaqap/").startswith(LEFT_OUT)}
    assert sorted(needed - set(wheel)) == [], "name them in options.package_data of setup.cfg"


def test_links_in_the_package_are_files_in_the_wheel(wheel):
    links = [name for name in tracked_files() if name.startswith("modeling_metaqap/") and (ROOT / name).is_symlink()]
    small = [name for name in links if (ROOT / name).stat().st_size <= LARGE]
    assert len(small) > 10
    assert [name for name in small if wheel[name] != (ROOT / name).read_bytes()] == []
