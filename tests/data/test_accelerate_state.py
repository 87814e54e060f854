import pytest

pytest.importorskip("accelerate")

from two_processes import run_two_processes  # noqa: E402

from modeling_metaqap.data.accelerate_state import failing_together, main_process_first

FAILING = """
import sys
from modeling_metaqap.data.accelerate_state import failing_together, main_process_first, process_state
from modeling_metaqap.errors import exit_with_sentence

state = process_state()
assert state.num_processes == 2
order = []
with exit_with_sentence("program"):
    assert main_process_first(lambda: state.process_index) == state.process_index
    with failing_together():
        pass
    print("went well", flush=True)
    with failing_together():
        if state.process_index == int(sys.argv[1]):
            raise OSError(28, "No space left on device", "full")
    print("went on", flush=True)
"""


@pytest.mark.parametrize("failing", [0, 1])
def test_when_one_process_fails_all_end_with_its_sentence(failing, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(FAILING)
    for ended in run_two_processes(program, failing):
        assert ended.returncode == 2, ended.stderr
        # Some versions of PyTorch write there whom a process is connected to.
        said = [line for line in ended.stdout.splitlines() if not line.startswith("[Gloo]")]
        assert said == ["went well"]
        assert "program: full: no space left on device" in ended.stderr.splitlines()


def test_one_process_fails_with_its_own_error():
    with pytest.raises(KeyError, match="name"), failing_together():
        raise KeyError("name")
    with failing_together():
        pass
    assert main_process_first(lambda: 3) == 3
