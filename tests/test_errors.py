"""A user's mistake is one sentence with the program's name, and a defect keeps its traceback."""

import pytest

from modeling_metaqap.errors import DataError, MetaQAPError, TestSplitError, exit_with_sentence


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MetaQAPError("The batch size must be at least 1."), "The batch size must be at least 1."),
        (DataError("There is no data set 'x'."), "There is no data set 'x'."),
        (TestSplitError("The split holds test images."), "The split holds test images."),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), "a.csv: no such file or directory"),
        (MetaQAPError("no image a\x1b[2J.png"), r"no image a\x1b[2J.png"),
        (FileNotFoundError(2, "No such file or directory", "a\n.csv"), r"a\n.csv: no such file or directory"),
        (OSError("Not found.\n\nCheck the name:\n  x"), "Not found. Check the name: x"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(capsys, error, sentence):
    with pytest.raises(SystemExit) as exit_:
        with exit_with_sentence("train"):
            raise error
    assert exit_.value.code == 2
    assert capsys.readouterr() == ("", f"train: {sentence}\n")


def test_an_interrupted_program_ends_with_status_130(capsys):
    with pytest.raises(SystemExit) as exit_:
        with exit_with_sentence("train"):
            raise KeyboardInterrupt
    assert exit_.value.code == 130
    assert capsys.readouterr().err == "train: interrupted.\n"


@pytest.mark.parametrize("error", [ValueError("shapes differ"), KeyError("weight"), RuntimeError("out of memory")])
def test_a_defect_keeps_its_traceback_and_has_a_status_of_its_own(error, capsys):
    """1 is an answer of some commands: `metaqap score` could not read some of the images."""
    with pytest.raises(SystemExit) as exit_:
        with exit_with_sentence("train"):
            raise error
    assert exit_.value.code == 70
    assert "Traceback" in (err := capsys.readouterr().err) and type(error).__name__ in err
