import base64
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from modeling_metaqap import ImageQualityAssessmentPipeline, MetaQAPImageProcessor, Scorer, images_in
from modeling_metaqap.pipeline_metaqap import FIELDS


@pytest.fixture(scope="module")
def image_processor():
    return MetaQAPImageProcessor(size={"shortest_edge": 64}, crop_size=64)


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("test_efficientnet", "test_resnet", interval_radius=0.1)


@pytest.fixture(scope="module")
def assess(model, image_processor):
    return pipeline("image-quality-assessment", model=model, image_processor=image_processor)


@pytest.fixture(scope="module")
def photos():
    """Images of 1, 2, 3, 1 and 5 crops, dark and bright."""
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (90, 150), (64, 170), (20, 30), (300, 70)]
    return [
        Image.fromarray((255 * rng.random((*size, 3)) ** power).astype(np.uint8))
        for size, power in zip(sizes, (0.2, 0.5, 1, 2, 5), strict=True)
    ]


@pytest.fixture(scope="module")
def expected(model, image_processor, photos):
    """The model's own output for each image alone, all of its crops in one call."""
    outputs = []
    for photo in photos:
        with torch.no_grad():
            outputs.append(model(**image_processor(photo, return_tensors="pt")))
    return outputs


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in set(FIELDS) - {"path"}:
            if isinstance(other[name], (float, list)):
                assert one[name] == pytest.approx(other[name], abs=1e-5), name
            else:
                assert one[name] == other[name], name


def test_each_image_gets_what_the_model_says_of_all_its_crops(assess, photos, expected):
    for found, output in zip(assess(photos), expected, strict=True):
        assert tuple(found) == FIELDS
        assert found["quality"] == pytest.approx(output.logits.item(), abs=1e-5)
        assert found["quality_low"] == pytest.approx(found["quality"] - 0.1, abs=1e-5)
        assert found["quality_high"] == pytest.approx(found["quality"] + 0.1, abs=1e-5)
        assert found["base_scores"] == pytest.approx(output.base_scores[0].tolist(), abs=1e-5)
        probabilities = output.distortion_logits[0].softmax(dim=0)
        assert found["distortion"] == assess.model.config.distortion_labels[int(probabilities.argmax())]
        assert found["distortion_probability"] == pytest.approx(probabilities.max().item(), abs=1e-5)
    assert np.std([output.logits.item() for output in expected]) > 0.01


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7, 64])
def test_images_of_any_size_score_the_same_in_batches_as_alone(assess, photos, batch_size):
    alone = [assess(photo) for photo in photos]
    assert_same(assess(photos, batch_size=batch_size), alone)


def test_crops_of_several_images_share_a_batch(assess, photos, monkeypatch):
    sizes = []
    forward = type(assess.model).forward
    monkeypatch.setattr(
        type(assess.model),
        "forward",
        lambda self, **inputs: sizes.append(len(inputs["pixel_values"])) or forward(self, **inputs),
    )
    assess(photos, batch_size=5)
    assert sizes == [5, 5, 2]


def test_paths_arrays_tensors_and_web_addresses_score_like_the_pil_image(assess, photos, tmp_path, monkeypatch):
    photo = photos[1]
    path = tmp_path / "photo.png"
    photo.save(path)
    pixels = np.asarray(photo)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(path.read_bytes())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/photo.png"
        inputs = [photo, str(path), path, pixels, torch.from_numpy(pixels.copy()).permute(2, 0, 1), address]
        asked = {"fetch": True, "timeout": 30, "allow_private": True}
        found = [assess(item, **asked) for item in inputs] + assess(inputs, batch_size=4, **asked)
    finally:
        server.shutdown()
        server.server_close()
    assert_same(found, [found[0]] * 12)
    assert [one["path"] for one in found] == ["", str(path), str(path), "", "", address] * 2


def test_a_large_jpeg_file_scores_the_same_whoever_opens_it(assess, model, image_processor, tmp_path):
    """It is not decoded in full; an image that was decoded before is, and scores a little differently."""
    model.save_pretrained(tmp_path / "checkpoint")
    image_processor.save_pretrained(tmp_path / "checkpoint")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    orientation, path = Image.Exif(), tmp_path / "photo.jpg"
    orientation[0x0112] = 6
    Image.fromarray(noise).resize((600, 400)).save(path, exif=orientation)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(path, path.name)
    scorer = Scorer(tmp_path / "checkpoint", device="cpu")
    [from_file, from_archive] = scorer.score([str(path), *images_in([str(tmp_path / "photos.zip")])])
    assert (from_file.width, from_file.height) == (from_archive.width, from_archive.height) == (400, 600)
    found = assess([str(path), base64.b64encode(path.read_bytes()).decode()])
    with torch.no_grad():
        processed = model(**image_processor(str(path), return_tensors="pt")).logits.item()
    qualities = [*(one["quality"] for one in found), from_archive.quality, processed]
    assert qualities == pytest.approx([from_file.quality] * 4, abs=1e-5)
    assert (found[0]["width"], found[0]["height"]) == (400, 600)
    with Image.open(path) as decoded:
        whole, [record] = assess(decoded), scorer.score([decoded])
    assert whole["quality"] == pytest.approx(record.quality, abs=1e-5)
    assert 1e-5 < abs(whole["quality"] - from_file.quality)
    # As much as another size asks for.
    crops = image_processor(str(path), size={"shortest_edge": 150}, return_tensors="pt")["pixel_values"]
    expected = image_processor(Image.open(path), size={"shortest_edge": 150}, return_tensors="pt")["pixel_values"]
    assert torch.equal(crops, expected)


@pytest.mark.parametrize("options", [{}, {"fetch": False}, {"timeout": 5}])
def test_a_web_address_is_fetched_only_when_that_is_asked_for(assess, options):
    with pytest.raises(ValueError, match="is a web address, and these are fetched only when that is asked for"):
        assess("http://127.0.0.1:9/photo.png", **options)
    with pytest.raises(ValueError, match="an address of this machine or of a private network"):
        assess("http://127.0.0.1:9/photo.png", fetch=True)


def test_a_transparent_image_scores_the_same_from_a_file_and_as_an_object(assess, photos, tmp_path):
    image = photos[0].copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(tmp_path / "transparent.png")
    white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert_same([assess(tmp_path / "transparent.png"), assess(image)], [assess(white)] * 2)


def test_a_generator_is_scored_lazily_and_in_order(assess, photos):
    drawn = []

    def stream():
        for photo in photos:
            drawn.append(photo)
            yield photo

    results = assess(stream(), batch_size=1)
    first = next(iter(results))
    assert len(drawn) < len(photos)
    assert_same([first], [assess(photos[0])])
    assert_same(list(assess((photo for photo in photos), batch_size=3)), assess(photos))


def test_what_the_model_does_not_give_is_none(make_model, image_processor, photos):
    model = make_model("test_resnet", distortion_labels=[])
    found = pipeline("image-quality-assessment", model=model, image_processor=image_processor)(photos[0])
    missing = {name for name in FIELDS if found[name] is None} - {"error", "warning"}
    assert missing == {
        name for name in FIELDS if name.startswith(("quality_", "interval_", "distortion", "familiarity"))
    }
    assert found["base_scores"] == [found["quality"]]


def test_a_half_precision_model_scores_nearly_the_same(make_model, image_processor, photos, tmp_path):
    model = make_model("test_resnet", "test_efficientnet")
    model.save_pretrained(tmp_path)
    image_processor.save_pretrained(tmp_path)
    half = pipeline("image-quality-assessment", model=str(tmp_path), dtype=torch.bfloat16)
    full = pipeline("image-quality-assessment", model=str(tmp_path))
    assert half.model.dtype == torch.bfloat16 and full.model.dtype == torch.float32
    found = [item["quality"] for item in half(photos)]
    assert found == pytest.approx([item["quality"] for item in full(photos)], abs=0.05)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("nowhere.jpg", ValueError, "neither an existing image file nor a web address"),
        (np.zeros((2, 8, 8, 3), dtype=np.uint8), ValueError, "holds 2 images; pass several images as a flat list"),
        (3, TypeError, "only a single or a list"),
    ],
)
def test_an_input_that_is_no_image_is_an_error(assess, wrong, error, message):
    with pytest.raises(error, match=message):
        assess(wrong)


def test_an_unknown_option_is_an_error(assess, photos):
    with pytest.raises(TypeError, match="batchsize"):
        assess(photos, batchsize=4)


def test_a_damaged_file_is_an_error(assess, photos, tmp_path):
    buffer = io.BytesIO()
    photos[1].save(buffer, "JPEG")
    path = tmp_path / "cut.jpg"
    path.write_bytes(buffer.getvalue()[:500])
    with pytest.raises(ValueError, match="cut.jpg cannot be read: it is cut short"):
        assess(str(path))


def test_the_pipeline_is_registered_under_its_task(assess):
    assert type(assess) is ImageQualityAssessmentPipeline
    assert assess.task == "image-quality-assessment"
