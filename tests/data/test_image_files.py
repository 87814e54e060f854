"""Which files count as images, and how paths are expanded to them."""

import pytest

from modeling_metaqap import MetaQAPError
from modeling_metaqap.data import image_files, image_places
from modeling_metaqap.data.image_files import IMAGE_SUFFIXES, about_unread, find_images


@pytest.fixture
def tree(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c.webp", "sub/d.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def names_of(tree, *paths, **options):
    found = find_images([str(tree / path) for path in paths], **options)
    return [path.removeprefix(f"{tree}/") for path in found]


def test_a_folder_gives_its_images_sorted_and_its_sub_folders_on_request(tree):
    assert names_of(tree, ".") == ["a.PNG", "b.jpg"]
    assert names_of(tree, ".", recursive=True) == ["a.PNG", "b.jpg", "sub/c.webp", "sub/d.jpg"]


def test_a_file_that_is_named_is_taken_whatever_its_ending(tree):
    assert names_of(tree, "notes.txt") == ["notes.txt"]


def test_a_pattern_gives_what_it_matches(tree):
    assert names_of(tree, "sub/*.jpg") == ["sub/d.jpg"]


def test_an_image_that_is_named_twice_is_scored_once(tree):
    assert names_of(tree, "b.jpg", ".") == ["b.jpg", "a.PNG"]


@pytest.mark.parametrize("path", ["absent.jpg", "*.tiff", "empty"])
def test_a_path_without_images_is_one_sentence(tree, path):
    (tree / "empty").mkdir()
    with pytest.raises(MetaQAPError, match=path.replace("*", r"\*")):
        find_images([str(tree / path)])


def test_the_same_files_are_scored_and_distorted(tmp_path):
    pytest.importorskip("datasets", reason="needs the train extra")
    from modeling_metaqap.data.distorted.building import find_photographs

    for suffix in [*IMAGE_SUFFIXES, ".txt"]:
        (tmp_path / f"a{suffix}").touch()
    expected = sorted(f"a{suffix}" for suffix in IMAGE_SUFFIXES)
    assert [path.removeprefix(f"{tmp_path}/") for path in find_images([str(tmp_path)])] == expected
    assert find_photographs(tmp_path) == expected


def test_it_is_said_how_to_read_heic_where_it_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    for name in ("a.HEIC", "sub/b.heic", "sub/c.jpg"):
        (tmp_path / name).touch()
    read = IMAGE_SUFFIXES - {".heic"}
    monkeypatch.setattr(image_files, "IMAGE_SUFFIXES", read)
    monkeypatch.setattr(image_files, "UNREAD_SUFFIXES", {".heic"})
    monkeypatch.setattr(image_places, "_GROUPS", (read, (), {".heic"}))

    def unread_photographs(*paths, recursive):
        return about_unread(image_places.search_places(map(str, paths), recursive=recursive).unread)

    text = unread_photographs(tmp_path, tmp_path / "sub" / "c.jpg", recursive=True)
    assert f": 2 .heic; the first is {tmp_path / 'a.HEIC'}. Install pillow-heif for HEIC: `pip install " in text
    assert unread_photographs(tmp_path / "a.HEIC", recursive=False) is None
    for search in (image_places.find_places, find_images):
        with pytest.raises(MetaQAPError, match=": 1 .heic;"):
            search([str(tmp_path)], recursive=False)
