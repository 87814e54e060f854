"""The folder of a checkpoint: saving it at half the size with its code, and reading how it was fused."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ..checkpoint_places import checkpoint_folder
from ..data.atomic import replace_files
from ..errors import MetaQAPError
from ..image_processing_metaqap import MetaQAPImageProcessor
from ..modeling_metaqap import MetaQAPModel

#: Of the code in a checkpoint folder, and of the shipped weights.
LICENSE = Path(__file__).with_name("LICENSE")
#: Beside the weights, says how they were fused.
FIT_FILE = "fit.json"
#: Beside the weights, says how they were adapted to somebody's own ratings.
ADAPTATION_FILE = "adaptation.json"
#: What fewer ratings would have given.
CURVE_FILE = "learning_curve.png"
#: The model card.
CARD_FILE = "README.md"


def save_checkpoint(model: MetaQAPModel, folder: str | Path) -> None:
    """Write weights, configuration, image processor, pipeline, their code and its licence to `folder`.

    The backbones' convolution kernels are stored in float16, and so are the large matrices of the kernel heads, which
    were rounded before the heads were fitted. Everything else stays in float32: it is small, a score depends on it
    directly, and running variances span more than float16 holds. The model loads in float32.

    A folder inside this package gets links to the package's code and licence instead of copies. What the folder says
    of weights that it had before is removed.
    """
    folder = Path(folder)
    package = Path(__file__).parent.parent
    halved = (".backbone.", ".kernel_head.", ".residual_heads.")
    state = {
        name: value.half() if value.ndim >= 2 and any(part in name for part in halved) else value
        for name, value in model.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        model.save_pretrained(temporary, state_dict=state)
        MetaQAPImageProcessor().save_pretrained(temporary)
        shutil.copyfile(LICENSE, Path(temporary) / LICENSE.name)
        for file in list(Path(temporary).iterdir()):
            original = LICENSE if file.name == LICENSE.name else package / file.name
            if (file.suffix == ".py" or original == LICENSE) and package in folder.resolve().parents:
                file.unlink()
                target = folder / file.name
                target.unlink(missing_ok=True)
                target.symlink_to(os.path.relpath(original, folder.resolve()))
        # The card of an adapted checkpoint was written together with its record; any other is somebody's own.
        written = (ADAPTATION_FILE, CURVE_FILE, CARD_FILE) if (folder / ADAPTATION_FILE).exists() else ()
        for name in (FIT_FILE, *written):
            (folder / name).unlink(missing_ok=True)
        # Whatever happens meanwhile, no file is half old and half new.
        replace_files(Path(temporary), folder)


def read_fit(checkpoint: str | Path) -> dict[str, Any] | None:
    """How `scripts/fit_meta_learner.py` fused a checkpoint, of its `fit.json`; None for one that it did not make.

    Raises:
        MetaQAPError: if the file is broken.
    """
    file = (checkpoint_folder(checkpoint) or Path(checkpoint)) / FIT_FILE
    if not file.exists():
        return None
    try:
        fit = json.loads(file.read_text(encoding="utf-8"))
        if all(model["name"] for model in fit["base_models"]) and len(fit["weights"]) == len(fit["base_models"]):
            return fit
    except (ValueError, KeyError, TypeError):
        pass
    raise MetaQAPError(f"{file} was not written by `metaqap fit`.")


__all__ = ["ADAPTATION_FILE", "CARD_FILE", "CURVE_FILE", "FIT_FILE", "LICENSE", "read_fit", "save_checkpoint"]
