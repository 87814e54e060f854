"""Steps of the method as commands: the same parsers as the scripts, and what is said of mistakes."""

import re
import shlex

import pytest
from repository import SCRIPTS
from typer._completion_classes import BashComplete
from typer.main import get_command

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.cli import app, program, recipes, train
from modeling_metaqap.cli.evaluate_set import _found
from modeling_metaqap.data.dataset_names import DATASET_NAMES
from modeling_metaqap.errors import MetaQAPError, exit_with_sentence
from modeling_metaqap.inference import onnx_export
from modeling_metaqap.inference.choices import ONNX_FILES, Engine
from modeling_metaqap.training import recipe_files
from modeling_metaqap.training.launching import launch_command, run_processes

PROGRAMS = [
    module.PROGRAM for module in vars(app).values() if isinstance(getattr(module, "PROGRAM", None), program.Program)
]


def option_strings(one, *, as_script):
    return [option for action in one.parser(as_script=as_script)._actions for option in action.option_strings]


@pytest.mark.parametrize("one", PROGRAMS, ids=lambda one: one.command)
def test_a_program_has_the_same_options_as_a_command_and_as_a_script(one):
    command, script = (option_strings(one, as_script=as_script) for as_script in (False, True))
    assert [option.replace("-", "_") for option in command] == [option.replace("-", "_") for option in script]
    assert not [option for option in command if "_" in option]
    assert not [option for option in script if "-" in option.removeprefix("--").removeprefix("-")]
    assert (SCRIPTS / f"{one.script}.py").is_file()
    assert program._SCRIPTS[one.command].endswith(f"scripts/{one.script}.py")


@pytest.mark.parametrize("one", PROGRAMS, ids=lambda one: one.command)
def test_examples_in_a_description_name_options_that_exist(one):
    for as_script in (False, True):
        text = one.parser(as_script=as_script).description
        examples = re.findall(r"^    (.*?(?:\\\n.*?)*)$", text, flags=re.MULTILINE)
        own = program._SCRIPTS[one.command] if as_script else f"metaqap {one.command}"
        called = [example for example in examples if own in example]
        assert called
        for example in called:
            words = shlex.split(example.replace("\\\n", " "), comments=True)
            used = [word for word in words if word.startswith("--")]
            assert set(used) <= set(option_strings(one, as_script=as_script))


@pytest.mark.parametrize("one", PROGRAMS, ids=lambda one: one.command)
def test_every_option_says_what_it_is_for(one):
    assert not [action.dest for action in one.parser(as_script=False)._actions if not action.help]


def test_the_names_of_data_sets_are_those_that_there_are():
    pytest.importorskip("datasets")
    from modeling_metaqap.data.iqa_datasets import IQA_DATASETS

    assert DATASET_NAMES == tuple(sorted(IQA_DATASETS))


@pytest.fixture
def metaqap(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["metaqap", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            app.main()
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--modles", "x"], "the following arguments are required: --dataset, --output-dir"),
        (
            ["train", "--recipe", "nowhere.yaml", "--output-dir", "x"],
            "`metaqap recipes` lists those that ship",
        ),
        (
            ["train", "--recipe", "ablation", "--output-dir", "x", "--logging-steps", "0"],
            "--logging-steps must be",
        ),
        (
            ["train", "--recipe", "ablation", "--output-dir", "x", "--num-processes", "0"],
            "--num-processes must be",
        ),
        (
            ["train", "--recipe", "ablation", "--output-dir", "x", "--num-processes", "2", "--data-dir", "nowhere"],
            "nowhere",
        ),
        (
            ["train", "--recipe", "ablation", "--output-dir", "x", "--num-processes", "2", "--init", "nothing/there"],
            "nothing/there",
        ),
        (["prepare", "nothing", "--output-dir", "x"], "invalid choice: 'nothing'"),
        (["benchmark", "--side", "8"], "At least one photograph of at least 32 pixels is needed"),
        (["push", "me/model", "--push", "--dry-run"], "Choose one of --push and --dry-run"),
        (["evaluate-set", "--dataset", "live", "--results", "x.json"], "--results needs --output-dir"),
        (["recipes", "nothing"], "There is no recipe nothing"),
    ],
)
def test_a_mistake_is_one_sentence_with_options_as_they_are_typed(metaqap, monkeypatch, arguments, message):
    monkeypatch.setattr("modeling_metaqap.training.launching.run_processes", None)  # nothing is started for it
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # and nobody waits for a network
    status, out, err = metaqap(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_every_summary_is_shown_to_its_end(metaqap):
    status, out, _ = metaqap("-h")
    assert status == 0
    assert "..." not in out.split("Commands:")[1]
    assert all(f"  {one.command} " in out for one in PROGRAMS)
    assert "--install-completion" in out


def test_a_command_explains_itself_with_its_own_options(metaqap):
    status, out, _ = metaqap("distort-set", "-h")
    assert status == 0
    assert "--pristine-dir" in out and "metaqap distort-set --pristine-dir" in out


@pytest.fixture
def complete():
    """What a shell offers for the last of some words after `metaqap`, with its help."""

    def offered(*words):
        completion = BashComplete(get_command(app.app), {}, "metaqap", "_METAQAP_COMPLETE")
        return {item.value: item.help for item in completion.get_completions(list(words[:-1]), words[-1])}

    return offered


@pytest.mark.parametrize("one", PROGRAMS, ids=lambda one: one.command)
def test_all_options_of_a_program_are_completed(complete, one):
    assert list(complete(one.command, "-")) == option_strings(one, as_script=False)


def test_an_option_is_completed_with_its_help_and_a_value_where_it_has_choices(complete):
    assert list(complete("train", "--output-dir", "runs", "--rec")) == ["--recipe"]
    assert complete("benchmark", "--backb")["--backbone"].endswith("that training trains (mobilenetv2_100)")
    assert list(complete("train", "--stage", "f")) == ["finetune"]
    # A shell offers files where there is nothing to say.
    for words in (["fit", "--models", ""], ["push", ""], ["push", "--push", ""], ["train", "photo"]):
        assert complete(*words) == {}


def test_results_have_one_name_for_a_checkpoint_that_ships():
    pytest.importorskip("datasets")
    folder = str(DEFAULT_CHECKPOINT.parent / "metaqap-nano")
    assert _found(["nano", "metaqap-nano", folder, "brisque", "you/m"]) == [folder] * 3 + ["brisque", "you/m"]


def test_recipes_are_listed_printed_and_copied(metaqap, tmp_path):
    _, listed, _ = metaqap("recipes")
    assert [line.split()[0] for line in listed.splitlines()] == recipe_files.names()
    name = "metaqap-lite/mobilenetv2-1"
    _, printed, _ = metaqap("recipes", name)
    assert printed == recipe_files.find(name).read_text()
    status, out, _ = metaqap("recipes", "metaqap-lite", "--output", tmp_path)
    copies = sorted(tmp_path.rglob("*.yaml"))
    assert status == 0 and out.splitlines() == [str(path) for path in copies] and len(copies) > 5
    status, _, err = metaqap("recipes", name, "--output", tmp_path)
    assert status == 2 and "is there already" in err
    assert callable(recipes.recipes)


def test_a_run_in_several_processes_is_started_by_accelerate_with_the_same_options():
    values = vars(
        train.PROGRAM.parser(as_script=False).parse_args(
            ["--recipe", "ablation", "--output-dir", "runs/x", "--cpu", "--num-workers", "0"]
        )
    )
    values.pop("num_processes"), values.pop("accelerate")
    command = launch_command(values, launch=train.launch_options(values, 3, None))
    assert command[1:3] == ["-m", "accelerate.commands.launch"]
    assert command[command.index("--config_file") + 1].endswith("accelerate/two_cpu_processes.yaml")
    assert command[command.index("--num_processes") + 1] == "3"
    run = command[command.index("modeling_metaqap.training") + 1 :]
    assert "--cpu" in run and run[run.index("--output_dir") + 1] == "runs/x" and "--init" not in run
    assert train.launch_options(values, None, "fsdp")[1].endswith("accelerate/fsdp.yaml")


def failed(*codes):
    """What torch's launcher raises after processes that ended with these codes, one after the other."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    failures = {
        rank: ProcessFailure(local_rank=rank, pid=100 + rank, exitcode=code, error_file=f"none-{rank}")
        for rank, code in enumerate(codes)
    }
    for rank, failure in failures.items():
        failure.timestamp = rank
    return ChildFailedError("metaqap", failures)


@pytest.mark.parametrize(("codes", "status"), [((2, -15), 2), ((-6, 2), 2), ((70, 2), 70), ((-9, -15), 137)])
def test_the_status_is_that_of_the_process_that_failed_and_its_sentence_is_told_once(
    monkeypatch, capsys, codes, status
):
    def start(arguments):
        for _ in codes:  # as if they were processes of their own
            with pytest.raises(SystemExit), exit_with_sentence("metaqap"):
                raise MetaQAPError("The loss is not finite.")
        raise failed(*codes)

    monkeypatch.setattr("accelerate.commands.launch.launch_command", start)
    assert run_processes({"output_dir": "x"}) == status
    assert capsys.readouterr().err == "metaqap: The loss is not finite.\n"


def test_a_process_that_was_killed_and_settings_that_cannot_be_used_are_one_sentence(monkeypatch):
    def start(arguments):
        raise failures.pop()

    monkeypatch.setattr("accelerate.commands.launch.launch_command", start)
    failures = [failed(-9, -15), ValueError("You need to use at least 2 processes.")]
    with pytest.raises(MetaQAPError, match=r"cannot start the processes: You need to use at least 2 processes\.$"):
        run_processes({"output_dir": "x"})
    with pytest.raises(MetaQAPError, match="was ended by SIGKILL; start the run again"):
        run_processes({"output_dir": "x"})


def test_an_export_says_how_far_each_file_is_from_pytorch(metaqap, tmp_path, monkeypatch):
    """The export itself has tests of its own."""
    asked = []

    def export(checkpoint, folder, **options):
        asked.append((checkpoint, folder, options))
        (folder / ONNX_FILES[Engine.onnx]).parent.mkdir(parents=True, exist_ok=True)
        (folder / ONNX_FILES[Engine.onnx]).write_bytes(bytes(2_500_000))
        return onnx_export.Export(folder, {Engine.onnx: onnx_export.Agreement(8, 1.5e-5, 2e-6)}, {})

    monkeypatch.setattr(onnx_export, "export_onnx", export)
    (tmp_path / "a.png").touch()
    options = ("--checkpoint", "tiny", "--output-dir", tmp_path / "out", "--photos", tmp_path, "--int8")
    status, output, error = metaqap("export", *options)
    assert status == 0, error
    assert asked == [("tiny", tmp_path / "out", {"photographs": [str(tmp_path / "a.png")], "int8": True})]
    for cell in (ONNX_FILES[Engine.onnx], "2.5", "8", "1.5e-05", "2.0e-06"):
        assert cell in output
    assert "in units of quality" in error
