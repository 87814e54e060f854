"""Scores photographs with one of pyiqa's metrics, one at a time, for as long as it is told; see `race`.

Weights are random: nothing is downloaded, and only the speed is looked at. Neither does this file import anything of
MetaQAP, since it runs in an environment of its own.
"""

import importlib
import itertools
import json
import pkgutil
import sys
from typing import Any

from worker_protocol import Watch, answer, report, tasks


def without_downloads() -> None:
    """Make every place in pyiqa that would download weights leave them random."""
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
    torch.hub.load_state_dict_from_url = lambda *_, **__: {}
    import pyiqa.archs

    loaded: Any
    for module in pkgutil.iter_modules(pyiqa.archs.__path__):
        try:
            loaded = importlib.import_module(f"pyiqa.archs.{module.name}")
        except ImportError:
            continue
        if hasattr(loaded, "load_pretrained_network"):
            loaded.load_pretrained_network = lambda *_, **__: None


def main() -> None:
    name = json.loads(sys.argv[1])["metric"]
    try:
        import torch

        without_downloads()
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
