"""Where checkpoints are found."""

import shutil
from pathlib import Path

import pytest
from repository import EXAMPLES

from modeling_metaqap import MetaQAPImageProcessor, Scorer, checkpoint_places
from modeling_metaqap.checkpoint_places import checkpoint_folder
from modeling_metaqap.checkpoint_reading import read_config
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.lineage import weights_sha256


@pytest.fixture
def shipped(tmp_path, monkeypatch, make_model):
    """The folder of a small checkpoint that ships under the name "metaqap-small"."""
    folder = tmp_path / "checkpoints" / "metaqap-small"
    make_model().save_pretrained(folder)
    MetaQAPImageProcessor().save_pretrained(folder)
    monkeypatch.setattr(checkpoint_places, "SHIPPED", folder.parent)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def test_one_that_ships_is_found_by_its_name_and_by_its_short_one(shipped):
    for name in ("metaqap-small", "small", Path("small")):
        assert checkpoint_folder(name) == shipped
        assert weights_sha256(name) == weights_sha256(shipped)
        assert read_config(name).base_learners == read_config(shipped).base_learners
    photograph = EXAMPLES / "coffee.jpg"
    [by_name], [by_folder] = (Scorer(one, device="cpu").score([photograph]) for one in ("small", shipped))
    assert by_name == by_folder


def test_a_folder_of_that_name_comes_first(shipped):
    shutil.copytree(shipped, "small")
    assert checkpoint_folder("small") == Path("small") and checkpoint_folder("metaqap-small") == shipped


@pytest.mark.parametrize("name", [".hidden", "you/small", "metaqap-", "large", "../checkpoints/metaqap-larger"])
def test_anything_else_is_looked_for_on_the_hub(shipped, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # nobody waits for the Hub to have it
    assert checkpoint_folder(name) is None
    with pytest.raises(MetaQAPError, match="is not a MetaQAP checkpoint"):
        read_config(name)
