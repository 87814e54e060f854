"""Help, the version and mistakes are answered at once: without what takes seconds to import."""

import time

import pytest
from start_up import fresh_python, imported_packages

from modeling_metaqap import __version__

HEAVY = {"torch", "transformers", "timm", "numpy", "PIL", "matplotlib", "datasets", "accelerate", "pandas"}


@pytest.mark.parametrize(
    ("arguments", "status", "answer"),
    [
        (["--help"], 0, "evaluate"),
        ([], 0, "evaluate"),
        (["--version"], 0, f"metaqap {__version__}"),
        (["score", "--help"], 0, "onnx-int8"),
        (["evaluate", "--help"], 0, "--mos-range"),
        (["--wrong"], 2, "metaqap: No such option: --wrong"),
        (["score", "photo.jpg", "--wrong"], 2, "metaqap: No such option: --wrong"),
        (["score", "photo.jpg", "--engine", "abacus"], 2, "abacus"),
        (["score", "no-such-photo.jpg"], 2, "metaqap: There is no file or folder no-such-photo.jpg."),
        (["flatter"], 2, "flatter"),
    ],
)
def test_help_and_mistakes_need_no_heavy_import(arguments, status, answer):
    process, packages = imported_packages("-m", "modeling_metaqap", *arguments)
    assert process.returncode == status
    assert answer in process.stdout + process.stderr
    assert not packages & HEAVY


def test_options_are_completed_without_a_heavy_import(monkeypatch):
    typed = {"_METAQAP_COMPLETE": "complete_bash", "COMP_WORDS": "metaqap train --rec", "COMP_CWORD": "2"}
    for name, value in typed.items():
        monkeypatch.setenv(name, value)
    process, packages = imported_packages("-m", "modeling_metaqap")
    assert (process.returncode, process.stdout) == (0, "--recipe\n")
    assert not packages & HEAVY


def test_an_output_that_is_there_is_refused_without_torch(tmp_path):
    photo, output = tmp_path / "photo.jpg", tmp_path / "scores.csv"
    photo.touch()
    output.touch()
    process, packages = imported_packages("-m", "modeling_metaqap", "score", str(photo), "-o", str(output))
    assert process.returncode == 2 and f"There is a file {output}" in process.stderr
    assert not packages & (HEAVY - {"numpy", "PIL"})


def test_help_starts_in_less_than_two_fifths_of_the_time_of_torch():
    def seconds(*arguments):
        start = time.perf_counter()
        assert fresh_python(*arguments).returncode == 0
        return time.perf_counter() - start

    # In turns, and the best of three, because other work on the machine slows now this one, now that one.
    pairs = [(seconds("-m", "modeling_metaqap", "--help"), seconds("-c", "import torch")) for _ in range(3)]
    with_help, with_torch = map(min, zip(*pairs, strict=True))
    assert with_help < 0.4 * with_torch
