"""The exact folder that goes to the Hub: put together, tried out where nothing else is installed, and uploaded."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from ..checkpoint_places import checkpoint_folder
from ..checkpoint_reading import read_config
from ..errors import MetaQAPError
from ..fusion.adapted_card import NO_LINKS, adapted_card
from ..fusion.checkpoint_folder import ADAPTATION_FILE, CURVE_FILE, FIT_FILE, LICENSE
from ..inference.choices import ONNX_FILES
from ..inference.onnx_engine import OnnxEngine
from ..inference.scorer import Scorer
from .card_picture import PICTURE, has_picture
from .model_card import card_files, write_card

#: What a checkpoint folder gives to the Hub beside its code.
CHECKPOINT_FILES = ("config.json", "preprocessor_config.json", "model.safetensors", "fit.json")

#: What is published with every checkpoint: the licence, what Inference Endpoints run, and what they have to install.
PUBLISHED_FILES = {
    "LICENSE": LICENSE,
    "handler.py": Path(__file__).with_name("handler.py"),
    "requirements.txt": Path(__file__).with_name("hub_requirements.txt"),
}

#: What an upload replaces: files of these kinds that are in the repository and not in the folder are removed by the
#: same commit, or old code and an ONNX file of other weights would stay beside the new ones.
REPLACED = ("*.py", "*.safetensors", "onnx/*", ".eval_results/*", "requirements.txt")

# Runs in a fresh interpreter where, of all that is installed, only torch, timm, transformers and what these need can
# be imported. The rest looks as if it was not installed.
_TRIAL = """
import importlib.machinery, importlib.metadata, json, re, sys

from packaging.requirements import Requirement

needed, todo = set(), ["torch", "timm", "transformers"]
while todo:
    name = re.sub("[-_.]+", "-", todo.pop()).lower()
    if name in needed:
        continue
    try:
        requirements = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        continue
    needed.add(name)
    parsed = map(Requirement, requirements)
    todo += [item.name for item in parsed if item.marker is None or item.marker.evaluate({"extra": ""})]
allowed = set(sys.stdlib_module_names) | {"transformers_modules"} | {
    module
    for module, distributions in importlib.metadata.packages_distributions().items()
    if needed & {re.sub("[-_.]+", "-", name).lower() for name in distributions}
}

class OnlyAllowed(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        root = name.partition(".")[0]
        # The standard library's list of its modules leaves out the one with the platform's build settings.
        if root in allowed or root.startswith("_sysconfigdata"):
            return super().find_spec(name, path, target)

finders = (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter)
sys.meta_path[:] = [*finders, OnlyAllowed]
for name in {name.partition(".")[0] for name in sys.modules} - allowed:
    if name != "__main__":
        del sys.modules[name]

import importlib.util

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, pipeline

folder, photo = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
image_processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    quality = model(**image_processor(Image.open(photo), return_tensors="pt")).logits.item()
assessment = pipeline("image-quality-assessment", model=folder, trust_remote_code=True)(photo)
# As an Inference Endpoint does it.
spec = importlib.util.spec_from_file_location("handler", f"{folder}/handler.py")
handler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(handler)
with open(photo, "rb") as file:
    answer = handler.EndpointHandler(folder)({"inputs": file.read()})
scores = {"quality": quality, "pipeline": assessment["quality"], "endpoint": answer["quality"]}
print(json.dumps(scores | {"modules": sorted(sys.modules)}))
"""


@dataclass(frozen=True)
class Trial:
    """What the folder did in a fresh process.

    Attributes:
        quality: Score of the photograph.
        modules: Names of all modules that were imported for it.
    """

    quality: float
    modules: list[str]


def assemble(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    card_dir: str | Path,
    repo_id: str,
    onnx: bool = False,
    links: Mapping[str, str] = NO_LINKS,
) -> list[Path]:
    """Copy what goes to the Hub into a folder.

    Weights, configuration, processor, code, card, licence, `handler.py` for Inference Endpoints and, if asked, ONNX.

    Args:
        checkpoint: folder of the checkpoint; links in it become real files.
        folder: to write to; made if it is missing.
        card_dir: of the card, see `card_files`; not needed for an adapted checkpoint.
        repo_id: Hub id that the card's examples name.
        onnx: also take the exported files in `checkpoint/onnx`.
        links: addresses that the card names, see `card_files` and `adapted_card`.

    Returns:
        The files, relative to `folder`, sorted.

    Raises:
        MetaQAPError: if a file is missing, the folder holds other files already, or the results or the ONNX file are
            of other weights.
    """
    checkpoint, folder = checkpoint_folder(checkpoint) or Path(checkpoint), Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise MetaQAPError(f"{folder} is not empty; name a new folder.")
    code = sorted(path.name for path in checkpoint.glob("*_metaqap.py"))
    # How a checkpoint was adapted stands in place of how it was fused, which are the results of other weights.
    is_adapted = (checkpoint / ADAPTATION_FILE).is_file()
    needed = [ADAPTATION_FILE if is_adapted and name == FIT_FILE else name for name in CHECKPOINT_FILES]
    for name in [*needed, "modeling_metaqap.py"]:
        if not (checkpoint / name).is_file():
            raise MetaQAPError(f"{checkpoint} has no {name}, so it is no complete checkpoint.")
    names = [*needed, *code, *([CURVE_FILE] if is_adapted and (checkpoint / CURVE_FILE).is_file() else [])]
    if onnx:
        OnnxEngine(checkpoint)  # raises if its file is missing or of other weights
        names += [name for name in ONNX_FILES.values() if (checkpoint / name).is_file()]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkpoint / name, folder / name)
    for name, source in PUBLISHED_FILES.items():
        shutil.copyfile(source, folder / name)
    if not is_adapted:
        write_card(card_files(checkpoint, card_dir, repo_id=repo_id, links=links), folder)
        if has_picture(checkpoint, card_dir):
            shutil.copyfile(Path(card_dir) / PICTURE, folder / PICTURE)
    else:
        record = json.loads((folder / ADAPTATION_FILE).read_text(encoding="utf-8"))
        card = adapted_card(read_config(checkpoint), record, repo_id, links=links)
        write_card({"README.md": card}, folder)
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def try_out(folder: str | Path, photo: str | Path) -> Trial:
    """Score a photograph with the folder in a fresh process that can import torch, timm and transformers only.

    The process has no network, none of the user's caches and none of this package; the score has to be the one that
    this package gives.

    Raises:
        MetaQAPError: if the folder does not load there, or scores differently.
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "PYTHON", "TRANSFORMERS_"))
        }
        environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": elsewhere, "HF_MODULES_CACHE": f"{elsewhere}/modules"}
        # -I: neither the working directory nor the environment adds modules.
        run = subprocess.run(
            [sys.executable, "-I", "-c", _TRIAL, str(Path(folder).resolve()), str(Path(photo).resolve())],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode != 0:
        reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MetaQAPError(f"{folder} does not work with torch, timm and transformers alone: {reason}")
    scores = json.loads(run.stdout.splitlines()[-1])
    [record] = Scorer(folder, device="cpu").score([photo])
    for way in ("quality", "pipeline", "endpoint"):
        if record.quality is None or abs(scores[way] - record.quality) > 1e-4:
            raise MetaQAPError(
                f"{folder} gives {photo} {scores[way]:.4f} in a fresh process, and {record.quality} here "
                f"({record.error or 'the code in the folder is not that of this package'})."
            )
    return Trial(scores["quality"], scores["modules"])


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    message: str = "Upload MetaQAP checkpoint",
    endpoint: str | None = None,
) -> CommitInfo:
    """Upload a folder to the Hub as one commit; the repository is made if it is missing.

    Files appear with that commit, all at once, and old files of the kinds in `REPLACED` go with it. Whatever fails
    before leaves the repository as it was.

    Args:
        folder: what `assemble` made.
        repo_id: `"user/name"`.
        private: make a new repository private; an existing one keeps its visibility.
        message: of the commit.
        endpoint: another Hub; default the environment's `HF_ENDPOINT`, else the public one.

    Raises:
        MetaQAPError: if the upload failed.
    """
    api = HfApi(endpoint=endpoint)
    try:
        # None leaves it to the organisation's default; the Hub's own is public.
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        return api.create_commit(repo_id, _operations(api, Path(folder), repo_id), commit_message=message)
    except Exception as error:  # huggingface_hub raises a dozen kinds, from connections to malformed answers
        cause: BaseException = error
        while not isinstance(cause, HfHubHTTPError) and cause.__cause__ is not None:
            cause = cause.__cause__
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
            raise MetaQAPError(
                f"The Hub does not let you write to {repo_id}; log in with `hf auth login` and a token that may write."
            ) from error
        reason = f"the Hub answered {status}" if status else str(cause).partition("\n")[0] or type(cause).__name__
        raise MetaQAPError(
            f"The upload to {repo_id} did not finish: {reason.rstrip('.')}. Files appear with the final commit only, "
            "all at once; repeat the same command to try again."
        ) from error


def _operations(api: HfApi, folder: Path, repo_id: str) -> list[CommitOperationAdd | CommitOperationDelete]:
    # Not `upload_folder`: where hf_xet is installed, it may spread a folder over several commits.
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    stale = [
        name
        for name in api.list_repo_files(repo_id)
        if name not in files and any(fnmatch(name, pattern) for pattern in REPLACED)
    ]
    return [CommitOperationDelete(name) for name in stale] + [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path)) for name, path in files.items()
    ]


__all__ = ["CHECKPOINT_FILES", "PUBLISHED_FILES", "REPLACED", "Trial", "assemble", "publish", "try_out"]
