"""ONNX files: they answer as PyTorch does, on images and in batches that the export has not seen."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from repository import EXAMPLES
from wide_intervals import WIDE_INTERVALS

from modeling_metaqap import DEFAULT_CHECKPOINT, MetaQAPImageProcessor
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.checkpoint_folder import save_checkpoint
from modeling_metaqap.inference.choices import ONNX_FILES, Engine
from modeling_metaqap.inference.onnx_export import compare, export_onnx
from modeling_metaqap.inference.records import ScoreRecord
from modeling_metaqap.inference.scorer import Scorer

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytest.importorskip("onnxscript", reason="needs the onnx extra")


@pytest.fixture(scope="module")
def make_checkpoint(make_model):
    def make(folder, *backbones, **config):
        save_checkpoint(make_model(*backbones, **config), folder)
        # Small crops, so that the tests are quick.
        MetaQAPImageProcessor(size={"shortest_edge": 64}, crop_size=64).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of one to several crops of 64 pixels, smaller than a crop and larger."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    paths = []
    for index, (width, height) in enumerate([(64, 64), (210, 66), (40, 20), (70, 150), (90, 90), (65, 64)]):
        noise = rng.integers(0, 256, (height // (index + 1), width // (index + 1), 3), dtype=np.uint8)
        Image.fromarray(noise).resize((width, height)).save(folder / f"{index}.png")
        paths.append(folder / f"{index}.png")
    return paths


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint, photos, tmp_path_factory):
    """An ensemble with interval, all kinds of heads, exported into its own folder with an int8 file."""
    sizes = {"num_components": 6, "num_centers": 9}
    with_kernel = {"backbone": "test_resnet", "kernel_head": sizes, "residual_heads": [sizes]}
    at_two_scales = {"backbone": "test_resnet", "scales": [1, 2]}
    folder = make_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "tiny", at_two_scales, with_kernel, **WIDE_INTERVALS
    )
    export = export_onnx(folder, photographs=photos, int8=True)
    assert export.folder == folder
    assert export.agreement[Engine.onnx].n == export.agreement[Engine.onnx_int8].n == 3  # every second of six
    assert export.agreement[Engine.onnx].largest < 1e-5
    # Rounding to 8 bits cannot be free of any difference; that nothing differs would mean that nothing was rounded.
    assert 1e-5 < export.agreement[Engine.onnx_int8].largest < 0.2
    return folder


@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_onnx_engine_gives_the_same_records_as_pytorch(checkpoint, photos, tmp_path, batch_size):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"broken")
    images = [*photos, broken]
    expected = Scorer(checkpoint, batch_size=batch_size).score(images)
    found = Scorer(checkpoint, batch_size=batch_size, engine="onnx").score(images)
    for one, other in zip(expected, found, strict=True):
        for name in ("path", "width", "height", "error", "distortion"):
            assert getattr(one, name) == getattr(other, name)
        if one.error is None:
            assert one.distortion is not None
            for name in ("quality", "quality_low", "quality_high", "distortion_probability", "base_scores"):
                assert getattr(other, name) == pytest.approx(getattr(one, name), abs=1e-5), name
            # In other units, and far from every centre a sum of large squares.
            assert other.distances == pytest.approx(one.distances, rel=1e-4, abs=1e-4)
            assert other.familiarity == pytest.approx(one.familiarity, abs=1e-4)


def test_the_graph_weighs_the_crops_of_an_image_as_the_model_does(checkpoint):
    """Directly on the graph: `Scorer` runs crop by crop and so never gives it several."""
    session = onnxruntime.InferenceSession(checkpoint / ONNX_FILES[Engine.onnx])
    model = Scorer(checkpoint).model
    torch.manual_seed(0)
    pixel_values, crop_weights = torch.rand(3, 5, 3, 64, 64), torch.rand(3, 5)
    crop_weights[1, 2:] = 0
    with torch.no_grad():
        expected = model(pixel_values, crop_weights)
    names = [output.name for output in session.get_outputs()]
    assert names == ["logits", "base_scores", "distances", "interval", "familiarity", "distortion_logits"]
    found = session.run(names, {"pixel_values": pixel_values.numpy(), "crop_weights": crop_weights.numpy()})
    for name, value in zip(names, found, strict=True):
        np.testing.assert_allclose(value, expected[name].numpy(), atol=1e-5, err_msg=name)


def test_the_int8_engine_scores_close_to_pytorch(checkpoint, photos):
    expected = [record.quality for record in Scorer(checkpoint).score(photos)]
    found = [record.quality for record in Scorer(checkpoint, engine="onnx-int8").score(photos)]
    assert found == pytest.approx(expected, abs=0.2)
    assert found != pytest.approx(expected, abs=1e-6)


def test_another_folder_gets_all_that_the_engine_needs_and_lacks_what_the_checkpoint_lacks(
    make_checkpoint, photos, tmp_path
):
    checkpoint = make_checkpoint(tmp_path / "plain", "test_resnet", distortion_labels=[])
    export = export_onnx(checkpoint, tmp_path / "exported")
    assert not (checkpoint / "onnx").exists()
    assert not (export.folder / "model.safetensors").exists()
    [record] = Scorer(export.folder, engine="onnx").score(photos[:1])
    [expected] = Scorer(checkpoint).score(photos[:1])
    assert record.quality == pytest.approx(expected.quality, abs=1e-5)
    assert record.quality_low is None and record.distortion is None

    # New weights in the same place: the old file would answer for them.
    make_checkpoint(checkpoint, "test_resnet", seed=1, distortion_labels=[])
    (checkpoint / "onnx").mkdir()
    (export.folder / "onnx" / "model.onnx").rename(checkpoint / "onnx" / "model.onnx")
    with pytest.raises(MetaQAPError, match="exported from other weights"):
        Scorer(checkpoint, engine="onnx")


def test_an_export_that_differs_from_pytorch_is_not_kept(make_checkpoint, photos, tmp_path, monkeypatch):
    checkpoint = make_checkpoint(tmp_path / "plain", "test_resnet", distortion_labels=[])
    monkeypatch.setattr("modeling_metaqap.inference.onnx_export.TOLERANCE", -1.0)
    before = sorted(checkpoint.rglob("*"))
    with pytest.raises(MetaQAPError, match="differs from PyTorch by .* and was not kept"):
        export_onnx(checkpoint, photographs=photos[:1])
    assert sorted(checkpoint.rglob("*")) == before


def test_agreement_is_about_all_figures_of_the_images_that_were_read():
    record = ScoreRecord(path="a", quality=0.5, quality_low=0.4, quality_high=0.6, base_scores=[0.5, 0.5])
    broken = ScoreRecord(path="b", error="broken")
    for change in ({"quality_low": 0.1}, {"quality_high": 0.9}, {"base_scores": [0.5, 0.8]}):
        agreement = compare([record, broken], [replace(record, **change), broken])
        assert agreement.n == 1
        assert agreement.largest == pytest.approx(0.3) and agreement.mean == 0
    agreement = compare([record, record], [record, replace(record, quality=0.3)])
    assert (agreement.largest, agreement.mean) == pytest.approx((0.2, 0.1))
    with pytest.raises(MetaQAPError, match="None of the photographs"):
        compare([broken], [broken])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "tensorflow"}, "must be auto, torch, onnx, onnx-int8, not tensorflow"),
        ({"engine": "onnx"}, "holds no onnx/model.onnx; make it with `metaqap export --checkpoint"),
        ({"engine": "onnx-int8"}, "make it with `metaqap export --int8 --photos FOLDER --checkpoint"),
        ({"engine": "onnx", "dtype": "bfloat16"}, "leave out the dtype"),
        ({"engine": "onnx", "device": "abacus"}, "abacus"),
    ],
)
def test_an_engine_that_cannot_be_used_is_one_sentence(checkpoint, tmp_path, options, message):
    folder = tmp_path / "without"
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    if "dtype" in options or "device" in options:
        folder = checkpoint
    with pytest.raises(MetaQAPError, match=message):
        Scorer(folder, **options)


def test_a_damaged_file_is_one_sentence(checkpoint, tmp_path):
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(MetaQAPError, match="onnxruntime cannot read"):
        Scorer(tmp_path, engine="onnx")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--checkpoint", "someone/metaqap"], "not a local folder; name another folder to write to"),
        (["export", "--int8"], "name them with --photos"),
        (["export", "--photos", "nowhere"], "There is no file or folder nowhere"),
        (["export", "--checkpoint", "."], "not a MetaQAP checkpoint"),
        (["score", ".", "--engine", "abacus"], "abacus"),
    ],
)
def test_mistakes_on_the_command_line_get_one_sentence_and_status_2(arguments, message, tmp_path, monkeypatch, capsys):
    from modeling_metaqap.cli.app import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["metaqap", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    captured = capsys.readouterr()
    assert exit_.value.code == 2
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""


def test_the_command_scores_with_an_exported_file(checkpoint, photos, tmp_path, monkeypatch, capsys):
    from modeling_metaqap.cli.app import main

    rows = {}
    for engine in ("torch", "onnx"):
        output = tmp_path / f"{engine}.jsonl"
        options = ["--checkpoint", str(checkpoint), "--engine", engine, "-o", str(output)]
        monkeypatch.setattr("sys.argv", ["metaqap", "score", *map(str, photos), *options])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code == 0
        rows[engine] = [json.loads(line)["quality"] for line in output.read_text().splitlines()]
    assert len(rows["onnx"]) == 6
    assert rows["onnx"] == pytest.approx(rows["torch"], abs=1e-5)


@pytest.mark.slow
def test_the_shipped_ensemble_as_onnx_equals_pytorch_on_photographs(tmp_path):
    photographs = sorted(EXAMPLES.glob("*.jpg"))
    export = export_onnx(DEFAULT_CHECKPOINT, tmp_path, photographs=photographs)
    agreement = export.agreement[Engine.onnx]
    assert agreement.n == len(photographs) >= 12
    assert agreement.largest < 1e-3
