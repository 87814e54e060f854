"""What to type for a package that is missing, by where this package was installed from."""

import json
from importlib import metadata

import pytest

from modeling_metaqap import installing
from modeling_metaqap.errors import exit_with_sentence


@pytest.fixture
def installed_from(monkeypatch):
    def set_origin(origin):
        class Distribution:
            def read_text(self, name):
                return None if origin is None else json.dumps(origin)

        requirements = ["torch>=2", "scikit-image>=0.25; extra == 'train'", "piq>=0.8; extra == 'train'"]
        requirements += ["brisque[opencv-python-headless]>=0.2; extra == 'baselines'"]
        monkeypatch.setattr(metadata, "requires", lambda name: requirements)
        monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())

    return set_origin


@pytest.mark.parametrize(
    ("origin", "advice"),
    [
        (None, "pip install scikit-image piq"),
        ({"url": "file://{folder}", "dir_info": {"editable": True}}, "pip install -e '{folder}[train]'"),
        ({"url": "file://{folder}", "dir_info": {}}, "pip install '{folder}[train]'"),
        ({"url": "file:///gone/metaqap-1.whl"}, "pip install scikit-image piq"),
        (
            {"url": "https://example.org/metaqap.git", "vcs_info": {"vcs": "git"}},
            "pip install 'metaqap[train] @ git+https://example.org/metaqap.git'",
        ),
    ],
)
def test_the_extra_is_installed_from_where_the_package_came_from(installed_from, tmp_path, origin, advice):
    if origin is not None:
        origin = origin | {"url": origin["url"].replace("{folder}", str(tmp_path))}
    installed_from(origin)
    sentence = installing.missing_package("skimage.filters")
    assert sentence.startswith("This needs scikit-image, which is not installed; install it with ")
    assert advice.replace("{folder}", str(tmp_path)) in sentence


def test_what_a_requirement_needs_itself_is_kept(installed_from):
    installed_from(None)
    assert installing.how_to_install("brisque") == "pip install 'brisque[opencv-python-headless]'"


def test_a_package_that_no_extra_has_is_named_alone(installed_from):
    installed_from(None)
    assert installing.how_to_install("trackio") == "pip install trackio"


def test_a_missing_package_is_one_sentence_and_status_2(capsys):
    with pytest.raises(SystemExit) as exit_, exit_with_sentence("metaqap"):
        import a_package_that_nobody_has  # noqa: F401
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("metaqap: This needs a-package-that-nobody-has, which is not installed")
    assert "Traceback" not in err


def test_a_missing_module_of_this_package_is_a_defect(capsys):
    with pytest.raises(SystemExit) as exit_, exit_with_sentence("metaqap"):
        import modeling_metaqap.nowhere  # noqa: F401
    assert exit_.value.code == 70
    assert "Traceback" in capsys.readouterr().err
