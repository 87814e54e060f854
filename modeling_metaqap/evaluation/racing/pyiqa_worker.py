"""Scores photographs with one of pyiqa's metrics, one at a time, for as long as it is told; see `race`.

Weights are random: nothing is downloaded, and only the speed is looked at. Neither does this file import anything of
MetaQAP, since it runs in an environment of its own.
"""

import importlib
import itertools
import json
import pkgutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from worker_protocol import Watch, answer, report, tasks


def without_downloads(folder: Path) -> None:
    """Make every place in pyiqa that would download weights leave them random.

    Args:
        folder: for files of random numbers, where pyiqa needs a file.
    """
    import timm
    import torch
    import torchvision

    create_model = timm.create_model

    def create_random(name: str, pretrained: bool = False, **options: Any) -> Any:
        return create_model(name, pretrained=False, **options)

    timm.create_model = create_random  # type: ignore[assignment]
    for function in ("resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "vgg19", "alexnet"):
        original = getattr(torchvision.models, function)
        setattr(torchvision.models, function, lambda *_, original=original, **__: original(weights=None))

    def load_from_hub(url: str, **_: Any) -> dict[str, torch.Tensor]:
        if "ARNIQA" not in url:
            return {}
        encoder = torch.nn.Sequential(*list(torchvision.models.resnet50().children())[:-1])
        return {f"model.{name}": tensor for name, tensor in encoder.state_dict().items()}

    torch.hub.load_state_dict_from_url = load_from_hub  # type: ignore[assignment]
    import pyiqa.archs

    loaded: Any
    for module in pkgutil.iter_modules(pyiqa.archs.__path__):
        try:
            loaded = importlib.import_module(f"pyiqa.archs.{module.name}")
        except ImportError:
            continue
        if hasattr(loaded, "load_pretrained_network"):
            loaded.load_pretrained_network = lambda *_, **__: None
        if module.name in RANDOM_FILES:
            file = folder / module.name
            RANDOM_FILES[module.name](file)
            loaded.load_file_from_url = lambda *_, file=file, **__: str(file)


def _write_support_vectors(file: Path) -> None:
    import torch

    vectors = 774  # of 36 features, as many as BRISQUE's own
    torch.save((torch.randn(vectors, 1), torch.randn(vectors, 36)), file)


def _write_gaussian(file: Path) -> None:
    import numpy as np
    import scipy.io

    with file.open("wb") as opened:
        scipy.io.savemat(opened, {"mu_prisparam": np.zeros((1, 36)), "cov_prisparam": np.eye(36)})


def _write_regressor(file: Path) -> None:
    import torch

    torch.jit.save(torch.jit.script(torch.nn.Linear(4096, 1)), str(file))


#: What files pyiqa reads itself, by its modules.
RANDOM_FILES = {"brisque_arch": _write_support_vectors, "niqe_arch": _write_gaussian, "arniqa_arch": _write_regressor}


def main() -> None:
    name = json.loads(sys.argv[1])["metric"]
    try:
        import torch

        with tempfile.TemporaryDirectory() as folder:
            without_downloads(Path(folder))
            from pyiqa import create_metric
            from pyiqa.utils import imread2tensor

            metric = create_metric(name, device="cpu")
    except Exception as error:
        report({"error": f"{type(error).__name__}: {error}"})
        return
    for task in tasks():
        watch, images = Watch(), 0
        try:
            with torch.inference_mode():
                for file in itertools.cycle(task["files"]):
                    metric(imread2tensor(file, rgb=True).unsqueeze(0))
                    images += 1
                    if watch.running >= task["seconds"]:
                        break
        except Exception as error:
            report({"error": f"{type(error).__name__}: {error}"})
            return
        answer(images, watch.stop())


if __name__ == "__main__":
    main()
