"""Files, folders and streams of images -> records."""

import tarfile
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_metaqap import MetaQAPConfig, MetaQAPImageProcessor, MetaQAPModel, images_in
from modeling_metaqap.data.silencing import silence_decoders
from modeling_metaqap.decoding_metaqap import read_rgb
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.inference import scorer as scorer_module
from modeling_metaqap.inference.scorer import Scorer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    learners = ["test_resnet", {"backbone": "test_resnet", "stages": [0, 1]}]
    config = MetaQAPConfig(base_learners=learners, interval_radius=0.2, interval_coverage=0.8)
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(MetaQAPModel(config), folder)
    return folder


@pytest.fixture(scope="module")
def scorer(checkpoint):
    return Scorer(checkpoint, device="cpu", batch_size=3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of one to several crops, smaller than a crop and larger."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths = []
    for index, (width, height) in enumerate([(512, 512), (1500, 520), (200, 90), (520, 1100)]):
        noise = rng.integers(0, 255, (height // 10, width // 10, 3), dtype=np.uint8)
        path = folder / f"photo {index} (a).png"
        Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path)
        paths.append(str(path))
    return paths


def test_a_score_is_the_same_alone_in_any_batch_and_on_each_run(checkpoint, photos):
    reference = [next(Scorer(checkpoint, batch_size=1).score([path])).quality for path in photos]
    for batch_size in (2, 64):
        scorer = Scorer(checkpoint, batch_size=batch_size)
        for paths, expected in ((photos, reference), (photos[::-1], reference[::-1])):
            assert [record.quality for record in scorer.score(paths)] == pytest.approx(expected, abs=1e-5)


def test_a_record_says_what_the_model_says(scorer, checkpoint, photos):
    model = MetaQAPModel.from_pretrained(checkpoint).eval()
    inputs = MetaQAPImageProcessor()(photos[1], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    [record] = scorer.score([photos[1]])
    probabilities = outputs.distortion_logits.softmax(dim=1)[0]
    assert record.quality == pytest.approx(outputs.logits.item(), abs=1e-5)
    assert [record.quality_low, record.quality_high] == pytest.approx(outputs.interval[0].tolist(), abs=1e-5)
    assert record.base_scores == pytest.approx(outputs.base_scores[0].tolist(), abs=1e-5)
    assert record.distortion == model.config.distortion_labels[probabilities.argmax()]
    assert record.distortion_probability == pytest.approx(probabilities.max().item(), abs=1e-5)
    assert (record.path, record.width, record.height, record.error) == (photos[1], 1500, 520, None)
    assert record.interval_coverage == 0.8 and record.interval_name == "80 % interval"


@pytest.mark.parametrize("isolate", [False, True])
def test_what_a_score_says_little_of_gets_a_warning(checkpoint, tmp_path, isolate):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)) for _ in range(3)]
    animated = {"save_all": True, "append_images": frames[1:]}
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    frames[0].crop((0, 0, 80, 31)).save(tmp_path / "low.png")
    Image.new("RGB", (80, 64), (200, 100, 50)).save(tmp_path / "blank.jpg", quality=60)
    for suffix in ("gif", "webp", "png", "tiff"):
        frames[0].save(tmp_path / f"animated.{suffix}", **animated)
    frames[0].save(tmp_path / "phone.mpo", **animated)
    frames[0].save(tmp_path / "plain.png")
    several = "only the first of several frames or pages was judged"
    expected = {f"animated.{suffix}": several for suffix in ("gif", "png", "tiff", "webp")} | {
        "blank.jpg": "there is nothing but one color to judge",
        "dot.png": "1 x 1 pixels are too few to judge",
        "low.png": "80 x 31 pixels are too few to judge",
        "phone.mpo": None,
        "plain.png": None,
    }
    records = Scorer(checkpoint, isolate=isolate).score(sorted(tmp_path.iterdir()))
    assert {Path(record.path).name: (record.warning, record.error) for record in records} == {
        name: (warning, None) for name, warning in expected.items()
    }


def test_scores_can_be_reported_on_another_scale(scorer, checkpoint, photos):
    plain = list(scorer.score(photos[:2], quality_map=True))
    scaled = list(Scorer(checkpoint, device="cpu", batch_size=3, scale=(1, 5)).score(photos[:2], quality_map=True))
    for one, other in zip(plain, scaled, strict=True):
        for name in ("quality", "quality_low", "quality_high"):
            assert getattr(other, name) == pytest.approx(1 + 4 * getattr(one, name), abs=1e-5)
        assert other.base_scores == pytest.approx([1 + 4 * score for score in one.base_scores], abs=1e-5)
        np.testing.assert_allclose(other.quality_map, 1 + 4 * one.quality_map, atol=1e-4)
        np.testing.assert_allclose(other.share(other.quality_map), one.quality_map, atol=1e-5)
        assert other.share(other.quality) == pytest.approx(one.quality, abs=1e-5)
        for name in ("distortion", "interval_coverage", "width", "warning"):
            assert getattr(other, name) == getattr(one, name)
        assert (one.scale, other.scale) == ((0, 1), (1, 5))


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("raters", "does not say which ratings its raters could give; .* with `scale`, such as `scale` 1 5"),
        ("ratings", "`scale` must be the lowest and the highest score .* not 'ratings'"),
        ((5, 1), "`scale` must be the lowest and the highest score .* not 5 1"),
    ],
)
def test_a_scale_that_is_none_is_one_sentence(checkpoint, scale, message):
    with pytest.raises(MetaQAPError, match=message):
        Scorer(checkpoint, device="cpu", scale=scale)


def test_broken_files_get_a_reason_and_the_others_a_score(scorer, photos, tmp_path):
    garbage, empty, truncated = (tmp_path / name for name in ("garbage.jpg", "empty.png", "truncated.png"))
    garbage.write_bytes(b"not an image")
    empty.touch()
    with open(photos[0], "rb") as file:
        truncated.write_bytes(file.read()[:2000])
    records = list(scorer.score([photos[0], garbage, empty, truncated, tmp_path / "absent.jpg", photos[2]]))
    assert [record.error is None for record in records] == [True, False, False, False, False, True]
    assert all(record.quality is None for record in records[1:5])
    assert records[4].error == "no such file or directory"
    assert "\n" not in "".join(record.error or "" for record in records)


def test_a_decompression_bomb_is_a_record_with_an_error(scorer, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # refused from twice as many on
    Image.new("RGB", (1000, 1000)).save(tmp_path / "bomb.png")
    bomb, photo = scorer.score([tmp_path / "bomb.png", photos[2]])
    assert bomb.error == "it has more pixels than the limit of 200,000"
    assert photo.error is None


@pytest.mark.parametrize(
    ("options", "is_isolated"),
    [({}, False), *(({"isolate": None, "num_images": count}, count != 999) for count in (None, 999, 1000))],
)
def test_decoding_is_isolated_by_itself_where_there_are_many_images(checkpoint, monkeypatch, options, is_isolated):
    made = []
    monkeypatch.setattr(scorer_module, "IsolatedDecoder", lambda: made.append("decoder"))
    monkeypatch.setattr(scorer_module, "load_engine", lambda *_, **__: SimpleNamespace(config=None))
    Scorer(checkpoint, device="cpu", **options)
    assert bool(made) == is_isolated
    monkeypatch.setattr(scorer_module, "resolve_device", torch.device)
    made.clear()
    Scorer(checkpoint, device="cuda", **options)
    assert not made


class TestWarningOfLargeImages:
    """Pillow warns of images of more than `MAX_IMAGE_PIXELS`; the filters of warnings are the program's."""

    @pytest.fixture(autouse=True)
    def smaller_limit(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200_000)

    def test_scoring_leaves_the_warning_to_the_program(self, scorer, photos):
        with pytest.warns(Image.DecompressionBombWarning):
            [record] = scorer.score([photos[0]])
        assert record.error is None

    def test_a_program_can_silence_it_for_all_threads(self, scorer, photos):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            silence_decoders()
            assert [record.error for record in scorer.score([photos[0]] * 8)] == [None] * 8
            read_rgb(photos[0])
        assert caught == []

    def test_a_program_that_makes_an_error_of_it_gets_records_with_the_reason(self, scorer, photos):
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            [record] = scorer.score([photos[0]])
        assert record.error == "it has more pixels than the limit of 200,000"


def test_images_are_read_as_they_are_needed(scorer, photos):
    drawn = []

    def endless():
        while True:
            drawn.append(photos[0])
            yield photos[0]

    records = scorer.score(endless())
    assert next(records).error is None
    assert len(drawn) < 20
    records.close()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "parquet", "data set", "list", "memory"])
def test_wherever_photographs_lie_their_scores_are_those_of_the_files(checkpoint, scorer, photos, tmp_path, kind):
    place = store(photos, tmp_path, kind)
    expected, found = list(scorer.score(photos)), list(scorer.score(images_in([place])))
    assert [record.quality for record in found] == [record.quality for record in expected]
    assert [(record.width, record.height) for record in found] == [(r.width, r.height) for r in expected]
    assert len({record.path for record in found}) == len(photos)
    if kind == "tar":
        isolated = Scorer(checkpoint, device="cpu", batch_size=3, isolate=True)
        assert [record.quality for record in isolated.score(images_in([place]))] == [r.quality for r in expected]


def store(photos, folder, kind):
    """Puts photographs into a place of this kind, and returns its name."""
    contents = {Path(path).name: Path(path).read_bytes() for path in photos}
    place = folder / f"photos.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(place, "w") as archive:
            for path in photos:
                archive.write(path)
    elif kind.startswith("tar"):
        with tarfile.open(place, "w:gz" if kind == "tar.gz" else "w") as archive:
            for path in photos:
                archive.add(path)
    elif kind == "list":
        place.write_text("\n".join(photos))
        return f"@{place}"
    elif kind == "memory":
        import fsspec

        fsspec.filesystem("memory").pipe({f"/photos/{name}": data for name, data in contents.items()})
        return "memory://photos"
    else:
        datasets = pytest.importorskip("datasets", reason="needs the train extra")
        images = datasets.Dataset.from_dict(
            {"image": [{"bytes": data, "path": name} for name, data in contents.items()]},
            datasets.Features({"image": datasets.Image()}),
        )
        images.to_parquet(str(place)) if kind == "parquet" else images.save_to_disk(str(place))
    return str(place)


@pytest.mark.parametrize(("pad_batches", "sizes"), [(False, {3, 1}), (True, {3})])
def test_the_last_batch_is_filled_up_only_where_that_is_asked_for(scorer, checkpoint, photos, pad_batches, sizes):
    padding, seen = Scorer(checkpoint, device="cpu", batch_size=3, pad_batches=pad_batches), set()
    engine = padding.engine
    padding.engine = lambda crops, **options: seen.add(len(crops)) or engine(crops, **options)
    padding.engine.config = engine.config
    [one, two] = padding.score([photos[0], photos[1]])
    assert seen == sizes
    expected = [record.quality for record in scorer.score(photos[:2])]
    assert [one.quality, two.quality] == pytest.approx(expected, abs=1e-5)


def test_images_of_more_crops_than_a_batch_do_not_pile_up(checkpoint):
    scorer, read = Scorer(checkpoint, device="cpu", batch_size=2, num_workers=1), []
    long = Image.new("RGB", (1500, 512))  # three crops
    images = (read.append(number) or long for number in range(12))
    assert next(scorer.score(images)).error is None
    assert len(read) < 6


def test_the_model_is_there_with_the_engine_that_has_it(checkpoint):
    scorer = Scorer(checkpoint, device="cpu")
    assert scorer.model is scorer.engine.model
    scorer.engine = object()
    with pytest.raises(MetaQAPError, match="Only the PyTorch engine"):
        scorer.model  # noqa: B018


def test_no_images_give_no_records(scorer):
    assert list(scorer.score([])) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_scores_are_close(checkpoint, scorer, photos, dtype):
    expected = [record.quality for record in scorer.score(photos)]
    half = [record.quality for record in Scorer(checkpoint, dtype=dtype).score(photos)]
    spread = max(expected) - min(expected)
    assert half == pytest.approx(expected, abs=0.2 * spread + 0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size"),
        ({"dtype": "int8"}, "dtype"),
        ({"device": "nonsense"}, "device"),
    ],
)
def test_options_that_cannot_work_are_one_sentence(checkpoint, options, message):
    with pytest.raises(MetaQAPError, match=message):
        Scorer(checkpoint, **options)


def test_a_folder_that_is_no_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(MetaQAPError, match="not a MetaQAP checkpoint"):
        Scorer(tmp_path)


class TestLargePhotographs:
    @pytest.fixture(autouse=True)
    def small_is_large(self, monkeypatch):
        monkeypatch.setattr("modeling_metaqap.inference.decoding._LARGE_PIXELS", 1_000_000)
        monkeypatch.setattr("modeling_metaqap.inference.decoding._LARGE_SHORTEST_EDGE", 600)

    @pytest.fixture(scope="class")
    def photograph(self):
        rng = np.random.default_rng(1)
        # Of another colour in every corner, so that a turned image is another one.
        noise = rng.integers(0, 255, (14, 21, 3), dtype=np.uint8)
        return Image.fromarray(noise).resize((2100, 1400), Image.Resampling.BICUBIC)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
    @pytest.mark.parametrize("orientation", [1, 6])
    def test_they_look_and_score_the_same_as_read_whole(
        self, scorer, photograph, tmp_path, monkeypatch, mode, orientation
    ):
        image = photograph.convert("L").convert("I;16") if mode == "I;16" else photograph.convert(mode)
        if mode == "I;16":
            image = Image.fromarray(np.asarray(photograph.convert("L")).astype(np.uint16) * 257)
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / "large.png"
        image.save(path, exif=exif)
        shrunk, [record] = scorer.read(path), scorer.score([path])
        monkeypatch.setattr("modeling_metaqap.inference.decoding._LARGE_PIXELS", 10**9)
        whole, [expected] = scorer.read(path), scorer.score([path])
        assert (record.width, record.height) == ((2100, 1400) if orientation == 1 else (1400, 2100))
        assert shrunk[1:] == whole[1:]
        assert shrunk.pixels.size == whole.pixels.size
        difference = np.asarray(shrunk.pixels).astype(float) - np.asarray(whole.pixels)
        assert 0 < np.abs(difference).mean() < 2, "the same pixels: the large one was read whole as well"
        assert record.quality == pytest.approx(expected.quality, abs=0.01)


def test_a_thumbnail_comes_with_the_score_only_when_it_is_asked_for(scorer, photos):
    [with_, broken] = scorer.score([photos[0], "no-such-photo.jpg"], thumbnail=30)
    assert max(with_.thumbnail.size) == 30 and broken.thumbnail is None
    with Image.open(photos[0]) as image:
        assert with_.thumbnail.size[0] / with_.thumbnail.size[1] == pytest.approx(image.width / image.height, rel=0.1)
    [without] = scorer.score([photos[0]])
    assert without.thumbnail is None and without.quality == pytest.approx(with_.quality, abs=1e-5)


def test_the_quality_map_has_the_size_of_what_the_model_sees_and_the_score_as_its_mean(scorer, photos):
    records = list(scorer.score(photos, quality_map=True))
    assert [record.quality_map.shape for record in records] == [(512, 512), (512, 1477), (90, 200), (1083, 512)]
    assert records[0].quality_map.mean() == pytest.approx(records[0].quality, abs=1e-3)
    assert next(scorer.score(photos)).quality_map is None
