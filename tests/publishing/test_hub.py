"""What goes to the Hub: the folder, its trial in a bare process, and the upload, to a stand-in for the Hub."""

import configparser
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hub_stand_in import StandInHub
from repository import MODEL_FILES, ROOT

from modeling_metaqap import DEFAULT_CHECKPOINT
from modeling_metaqap.cli.app import main
from modeling_metaqap.errors import MetaQAPError
from modeling_metaqap.fusion.adapting import Adaptation
from modeling_metaqap.lineage import weights_sha256
from modeling_metaqap.publishing import hub as hub_module
from modeling_metaqap.publishing.hub import Trial, assemble, publish, try_out

HUB_CARD = ROOT / "hub_card"
PHOTO = ROOT / "space" / "examples" / "coffee.jpg"

CODE = set(MODEL_FILES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assembled") / "hub"
    assemble(DEFAULT_CHECKPOINT, folder, card_dir=HUB_CARD, repo_id="someone/metaqap")
    return folder


@pytest.fixture
def upload(tmp_path):
    """A small folder with the kinds of files that go to the Hub."""
    folder = tmp_path / "upload"
    (folder / ".eval_results").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 400)
    (folder / "config.json").write_text("{}")
    (folder / "modeling_metaqap.py").write_text("code")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# card\n")
    (folder / ".eval_results" / "biq2021.yaml").write_text("- value: 1\n")
    return folder


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # it waits before trying again
    with StandInHub() as hub:
        yield hub


#: Go along with every checkpoint.
ALWAYS = {"LICENSE", "handler.py", "requirements.txt"}


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_has_exactly_what_the_hub_needs_as_real_files(folder):
    results = {".eval_results/biq2021.yaml", ".eval_results/livec.yaml"}
    expected = CODE | results | {"README.md", "config.json", "fit.json", "model.safetensors"}
    assert set(content(folder)) == expected | {"preprocessor_config.json", "examples.jpg"} | ALWAYS
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert weights_sha256(folder) == weights_sha256(DEFAULT_CHECKPOINT)
    assert 'from_pretrained("someone/metaqap"' in (folder / "README.md").read_text()


def test_the_notebook_lists_the_files_that_the_folder_has(folder):
    notebook = json.loads((ROOT / "docs" / "tutorials" / "onnx-and-hub.ipynb").read_text())
    printed = [line for cell in notebook["cells"] for output in cell.get("outputs", ()) for line in output["text"]]
    rows = [re.fullmatch("│ (\\S+) +│ +[\\d,]+ │\n", line) for line in printed]
    assert {row[1] for row in rows if row} == set(content(folder))
    assert {line.strip() for line in printed} > CODE | {"config.json", "model.safetensors", "preprocessor_config.json"}


def test_an_adapted_checkpoint_goes_with_the_card_of_its_adaptation(make_model, tmp_path):
    figure = {name: {"value": 0.5} for name in ("plcc", "srocc", "rmse")}
    record = {"n": 20, "conclusion": "It helped.", "interval_radius": 0.1, "learning_curve": []}
    record["figures"] = {"before": figure, "after": figure}
    model = make_model("test_resnet")
    Adaptation(model=model, record=record).save(tmp_path / "mine")
    links = {"Demo": "https://a.b/c", "Source": "https://d.e"}
    assemble(tmp_path / "mine", tmp_path / "hub", card_dir=HUB_CARD, repo_id="someone/mine", links=links)
    expected = CODE | {"README.md", "adaptation.json", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert set(content(tmp_path / "hub")) == expected | ALWAYS
    card = (tmp_path / "hub" / "README.md").read_text()
    assert 'from_pretrained("someone/mine"' in card
    assert "\n[Paper](https://arxiv.org/abs/2506.16601) · [Demo](https://a.b/c) · [Source](https://d.e)\n" in card


def test_an_endpoint_installs_the_versions_that_this_package_needs(folder):
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    needed = settings["options"]["install_requires"].split()
    lines = [line for line in (folder / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == [line for line in needed if line.startswith(("timm", "transformers"))]


def test_onnx_files_go_along_on_request_and_have_to_be_there(tmp_path):
    with pytest.raises(ValueError, match="make it with `metaqap export"):
        copied = tmp_path / "checkpoint"
        copied.mkdir()
        for path in DEFAULT_CHECKPOINT.iterdir():
            if path.is_file():
                (copied / path.name).write_bytes(path.read_bytes())
        assemble(copied, tmp_path / "hub", card_dir=HUB_CARD, repo_id="someone/metaqap", onnx=True)


def test_an_incomplete_checkpoint_or_a_folder_in_use_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MetaQAPError, match="is not empty"):
        assemble(DEFAULT_CHECKPOINT, tmp_path, card_dir=HUB_CARD, repo_id="someone/metaqap")
    with pytest.raises(MetaQAPError, match="has no config.json"):
        assemble(tmp_path, tmp_path / "hub", card_dir=HUB_CARD, repo_id="someone/metaqap")


@pytest.mark.slow
def test_the_folder_scores_a_photograph_where_only_torch_timm_and_transformers_can_be_imported(folder):
    trial = try_out(folder, PHOTO)
    roots = {name.partition(".")[0] for name in trial.modules}
    assert {"torch", "timm", "transformers", "transformers_modules"} <= roots
    assert not roots & {"modeling_metaqap", "scipy", "datasets", "accelerate", "onnxruntime", "typer", "pytest"}
    assert 0 < trial.quality < 1


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (None, "hub does not work with torch, timm and transformers alone: ImportError: no module"),
        ((0.9, 0.9, 0.9), "0.9000 in a fresh process, and 0.5 here"),
        ((0.5, 0.5, 0.6), "0.6000 in a fresh process, and 0.5 here"),
    ],
)
def test_a_trial_that_fails_or_gives_another_score_is_one_sentence(monkeypatch, tmp_path, scores, message):
    status = int(scores is None)
    output = json.dumps(dict(zip(("quality", "pipeline", "endpoint"), scores or (), strict=False)))
    run = SimpleNamespace(returncode=status, stdout=output, stderr="Traceback\nImportError: no module")
    monkeypatch.setattr(hub_module.subprocess, "run", lambda *_, **__: run)
    scorer = SimpleNamespace(score=lambda _: [SimpleNamespace(quality=0.5, error=None)])
    monkeypatch.setattr(hub_module, "Scorer", lambda *_, **__: scorer)
    with pytest.raises(MetaQAPError, match=re.escape(message)):
        try_out(tmp_path / "hub", PHOTO)


class TestPushCommand:
    @pytest.fixture
    def call(self, monkeypatch, capsys):
        """Runs the command in this process; trial and upload, which have tests of their own, are stand-ins."""
        uploads = []

        def upload(folder, repo_id, **options):
            uploads.append((repo_id, {path.name for path in folder.iterdir()}, options))
            return SimpleNamespace(commit_url="https://hub/commit/1")

        monkeypatch.setattr(hub_module, "try_out", lambda folder, photo: Trial(0.7321, []))
        monkeypatch.setattr(hub_module, "publish", upload)

        def call(*arguments):
            monkeypatch.setattr("sys.argv", ["metaqap", "push", "someone/metaqap", *map(str, arguments)])
            with pytest.raises(SystemExit) as exit_:
                main()
            return exit_.value.code, capsys.readouterr(), uploads

        return call

    def test_it_lists_the_files_and_uploads_nothing_by_itself(self, call, tmp_path):
        status, said, uploads = call("--output-dir", tmp_path / "kept", "--source", "https://example.org/code")
        assert status == 0, said.err
        kept = {path.name for path in (tmp_path / "kept").iterdir()}
        assert CODE < kept and all(name in said.out for name in kept)
        assert "coffee.jpg: 0.7321" in said.out and "Nothing was uploaded; add --push" in said.out
        assert "https://example.org/code" in (tmp_path / "kept/README.md").read_text() and uploads == []

    def test_it_uploads_what_it_was_told_to(self, call):
        status, said, [(repository, files, options)] = call(
            "--push", "--private", "--message", "New", "--space", "a/b"
        )
        assert status == 0 and "Uploaded as one commit: https://hub/commit/1" in said.out
        assert repository == "someone/metaqap" and {"model.safetensors", "README.md"} < files
        assert options == {"private": True, "message": "New"}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [(["--push", "--dry-run"], "Choose one of"), (["--source", "code"], "must be a web address, not 'code'")],
    )
    def test_a_mistake_is_one_sentence(self, call, arguments, message):
        status, said, uploads = call(*arguments)
        assert status == 2 and message in said.err and len(said.err.splitlines()) == 1 and uploads == []


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("modeling_metaqap.py", lambda code: f"import scipy\n{code}", "scipy"),
        (
            "pipeline_metaqap.py",
            lambda code: f"{code}\nfrom modeling_metaqap.metrics import plcc\n",
            "modeling_metaqap",
        ),
    ],
)
@pytest.mark.slow
def test_code_that_needs_more_than_the_hub_has_fails_the_trial(folder, tmp_path, file, change, message):
    changed = tmp_path / "changed"
    for name, data in content(folder).items():
        (changed / name).parent.mkdir(parents=True, exist_ok=True)
        (changed / name).write_bytes(data)
    (changed / file).write_text(change((changed / file).read_text()))
    with pytest.raises(MetaQAPError, match=f"does not work with torch, timm and transformers alone: .*{message}"):
        try_out(changed, PHOTO)


def test_an_upload_is_one_commit_of_exactly_the_folder(hub, upload):
    commit = publish(upload, "someone/metaqap", endpoint=hub.endpoint, message="First")
    repository = hub.repositories["someone/metaqap"]
    assert repository.commits == ["First"]
    assert repository.files == content(upload) | {".gitattributes": b"*.safetensors filter=lfs\n"}
    assert not repository.private
    assert commit.commit_url == f"{hub.endpoint}/someone/metaqap/commit/{1:040x}"
    assert hub.steps.index("lfs") < hub.steps.index("commit")


def test_a_new_repository_is_private_on_request(hub, upload):
    publish(upload, "someone/metaqap", endpoint=hub.endpoint, private=True)
    assert hub.repositories["someone/metaqap"].private


def test_a_second_upload_replaces_what_the_first_left_and_keeps_what_others_added(hub, upload):
    (upload / "onnx").mkdir()
    (upload / "onnx" / "model.onnx").write_bytes(b"of other weights")
    (upload / "losses_metaqap.py").write_text("old code")
    publish(upload, "someone/metaqap", endpoint=hub.endpoint)
    repository = hub.repositories["someone/metaqap"]
    repository.files["picture.png"] = b"added on the website"
    (upload / "onnx" / "model.onnx").unlink()
    (upload / "losses_metaqap.py").unlink()
    (upload / "config.json").write_text('{"new": 1}')
    publish(upload, "someone/metaqap", endpoint=hub.endpoint)
    assert len(repository.commits) == 2
    assert set(repository.files) == {*content(upload), ".gitattributes", "picture.png"}
    assert repository.files["config.json"] == b'{"new": 1}'


@pytest.mark.parametrize("failure", ["500", "drop"])
@pytest.mark.parametrize("step", ["create", "tree", "preupload", "batch", "lfs", "commit"])
def test_an_upload_that_fails_midway_publishes_nothing_and_can_be_repeated(hub, upload, step, failure):
    before = {"config.json": b"old", ".gitattributes": b"x"}
    if step != "create":
        publish(upload, "someone/metaqap", endpoint=hub.endpoint)
        hub.repositories["someone/metaqap"].files = dict(before)
        hub.blobs.clear()
    commits = len(hub.repositories["someone/metaqap"].commits) if step != "create" else 0
    hub.failing[step] = failure
    with pytest.raises(MetaQAPError) as raised:
        publish(upload, "someone/metaqap", endpoint=hub.endpoint)
    message = str(raised.value)
    assert "\n" not in message and "repeat the same command" in message
    if failure == "500":
        assert "the Hub answered 500" in message
    repository = hub.repositories.get("someone/metaqap")
    if step == "create":
        assert repository is None
    else:
        assert repository.files == before and len(repository.commits) == commits

    hub.failing.clear()
    publish(upload, "someone/metaqap", endpoint=hub.endpoint)
    repository = hub.repositories["someone/metaqap"]
    assert content(upload).items() <= repository.files.items() and len(repository.commits) == commits + 1


def test_without_permission_the_message_says_how_to_log_in(hub, upload):
    hub.failing["create"] = "401"
    with pytest.raises(MetaQAPError, match="does not let you write to someone/metaqap; log in with `hf auth login`"):
        publish(upload, "someone/metaqap", endpoint=hub.endpoint)


def run_script(*arguments, **environment):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, str(ROOT / "scripts" / "push_to_hub.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_script_uploads_nothing_unless_it_is_told_to(tmp_path):
    with StandInHub() as hub:
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_stand_in", "HF_HUB_DISABLE_XET": "1"}
        dry = run_script("someone/metaqap", **environment)
        assert dry.returncode == 0, dry.stderr
        assert "Nothing was uploaded" in dry.stdout
        for name in ("model.safetensors", "README.md", "modeling_metaqap.py", "coffee.jpg: 0."):
            assert name in dry.stdout
        assert hub.steps == [] and hub.repositories == {}

        pushed = run_script("someone/metaqap", "--push", "--output_dir", tmp_path / "kept", **environment)
        assert pushed.returncode == 0, pushed.stderr
        assert f"{hub.endpoint}/someone/metaqap/commit/" in pushed.stdout
        files = hub.repositories["someone/metaqap"].files
        assert {name: data for name, data in files.items() if name != ".gitattributes"} == content(tmp_path / "kept")
        assert json.loads(files["config.json"])["model_type"] == "metaqap"


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_one_sentence_and_status_2(tmp_path):
    with StandInHub() as hub:
        hub.failing["create"] = "drop"
        failed = run_script("someone/metaqap", "--push", HF_ENDPOINT=hub.endpoint, HF_TOKEN="hf_stand_in")
    assert failed.returncode == 2
    assert failed.stderr.startswith("push_to_hub: The upload to someone/metaqap did not finish")
    assert len(failed.stderr.strip().splitlines()) == 1
