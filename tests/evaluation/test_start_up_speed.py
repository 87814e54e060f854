"""How the start of a program is measured."""

import pytest

pytest.importorskip("accelerate")

from repository import ROOT

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.evaluation import start_up_speed as module
from modeling_metaqap.evaluation.start_up_speed import IMPORTS, start_up_speed


def test_programs_take_turns_and_the_imports_are_taken_off_turn_by_turn(tmp_path, monkeypatch):
    calls = []
    imports = iter([9.0, 2.0, 4.0, 3.0])

    def seconds(name, program, threads):
        calls.append(name)
        if name == IMPORTS:
            seconds.base = next(imports)
            return module._Seconds(seconds.base, seconds.base + 1, 2.0)
        extra = {"first use": 1.5, "version before": 4.0}[name]
        return module._Seconds(seconds.base + extra, seconds.base + extra + 1, 3.25)

    monkeypatch.setattr(module, "_seconds", seconds)
    monkeypatch.setattr(module, "cached_onnx", lambda checkpoint, config: None)
    found = start_up_speed(DEFAULT_CHECKPOINT, tmp_path / "a.jpg", threads=1, turns=3, before=tmp_path)
    assert calls == [IMPORTS, "first use", "version before"] * 4
    first = found["programs"]["first use"]
    assert (first["first_line_seconds"], first["whole_seconds"], first["beyond_imports"]) == (4.5, 5.5, 1.5)
    assert (first["processor_seconds"], first["processor_seconds_beyond_imports"]) == (3.25, 1.25)
    assert found["programs"]["version before"]["beyond_imports"] == 4.0


def test_a_program_is_timed_to_its_first_line_and_to_its_end(monkeypatch):
    program = module._Program(
        ["-c", "import os, time; time.sleep(.2); print(os.environ['X'], flush=True); time.sleep(.3)"],
        environment={"X": "1"},
    )
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    seconds = module._seconds("it", program, threads=1)
    assert 0.2 <= seconds.first_line < seconds.whole and seconds.whole >= 0.5 > seconds.processor > 0
    assert "MALLOC_TOP_PAD_" not in module.worker_environment(threads=3)
    assert module.worker_environment(threads=3)["OMP_NUM_THREADS"] == "3"


def test_a_program_that_fails_is_a_sentence():
    with pytest.raises(MetaQAPError, match="it ended with status 3: no luck"):
        module._seconds("it", module._Program(["-c", "import sys; print('no luck', file=sys.stderr); sys.exit(3)"]), 1)


def test_another_version_is_taken_from_its_own_folder_wherever_the_program_is_started(tmp_path, monkeypatch):
    package = tmp_path / "modeling_metaqap"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys; sys.exit('the older one')")
    monkeypatch.chdir(ROOT)
    with pytest.raises(MetaQAPError, match="it ended with status 1: the older one"):
        module._seconds("it", module._Program(["-m", "modeling_metaqap"], package=tmp_path), 1)
