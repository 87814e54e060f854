from PIL import Image

from modeling_metaqap.training.curves import plot_curves


def test_curves_are_drawn_from_what_was_logged(tmp_path):
    plot_curves([], tmp_path / "empty.png")
    rows = [{"step": step, "epoch": 0, "loss": 1 / step} for step in (10, 20)]
    rows.append({"step": 20, "epoch": 1, "validation_plcc": 0.5, "validation_srocc": 0.4})
    plot_curves(rows, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (1200, 480)
    assert (tmp_path / "curves.png").read_bytes() != (tmp_path / "empty.png").read_bytes()
