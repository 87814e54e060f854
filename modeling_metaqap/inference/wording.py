"""Words for people: the grade of a quality, and the names of distortions and learners."""

import math

from .records import ScoreRecord

#: The five grades of ITU-R BT.500, each a fifth of the scale.
GRADES = ("bad", "poor", "fair", "good", "excellent")

# Names of KADID-10k that say little, by what its authors describe; the others only lose their underscores.
_TITLES = {
    "brighten": "brightening",
    "color_block": "color blocks",
    "color_saturation_1": "saturation (HSV)",
    "color_saturation_2": "saturation (Lab)",
    "darken": "darkening",
    "denoise": "denoising",
    "gaussian_blur": "Gaussian blur",
    "high_sharpen": "oversharpening",
    "jitter": "pixel jitter",
    "jpeg2000_compression": "JPEG 2000 compression",
    "jpeg_compression": "JPEG compression",
    "mean_shift": "brightness shift",
    "non_eccentricity_patch": "displaced patches",
    "pixelate": "pixelation",
    "white_noise_color_component": "white noise in colors",
}

#: A distortion is named below this quality, from 0 to 1, and from this probability on; see `looks_like`.
MAX_QUALITY, MIN_PROBABILITY = 0.75, 0.9

#: A photograph is called a stranger below this familiarity: so many in a hundred are, of those like the ones that the
#: checkpoint was calibrated on.
MIN_FAMILIARITY = 0.05

# Backbones by timm's names, as their authors call them.
_BACKBONES = {
    "darknet53": "DarkNet-53",
    "densenet201": "DenseNet-201",
    "efficientnet_b0": "EfficientNet-B0",
    "inception_resnet_v2": "Inception-ResNet-v2",
    "legacy_xception": "Xception",
    "mobilenetv2_100": "MobileNetV2",
    "nasnetalarge": "NASNet-Large",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "tf_efficientnet_lite0": "EfficientNet-Lite0",
    "tf_efficientnet_lite1": "EfficientNet-Lite1",
    "tf_efficientnet_lite2": "EfficientNet-Lite2",
    "vgg16": "VGG-16",
}


def grade(quality: float, *, scale: tuple[float, float] = (0.0, 1.0)) -> str:
    """The word for a quality: bad, poor, fair, good or excellent, each a fifth of the scale.

    Of the number as people see it, with two decimals: everything that is shown as 0.80 has the same word.
    """
    low, high = scale
    # Rounded once more, since 0.58 and the like are no binary numbers.
    fifths = round((round(quality, 2) - low) / (high - low) * 5, 9)
    return GRADES[min(4, max(0, math.floor(fifths)))]


def distortion_title(name: str) -> str:
    """The name of a distortion within a sentence: `"non_eccentricity_patch"` -> `"displaced patches"`."""
    return _TITLES.get(name, name.replace("_", " "))


def learner_title(name: str) -> str:
    """The name of a base learner for people: `"mobilenetv2_100 (frozen)"` -> `"MobileNetV2 (frozen)"`."""
    backbone, space, rest = name.partition(" ")
    return _BACKBONES.get(backbone, backbone) + space + rest


def looks_like(record: ScoreRecord) -> str | None:
    """The distortion that a photograph looks like, as within a sentence; None where a name would say little.

    The distortion head names one for every photograph. That means something where the quality is not high and the head
    is sure: the limits were chosen by `studies/choose_looks_like.py` on photographs that no learner was trained on.
    """
    if record.quality is None or record.distortion is None or record.distortion_probability is None:
        return None
    if record.share(record.quality) >= MAX_QUALITY or record.distortion_probability < MIN_PROBABILITY:
        return None
    return distortion_title(record.distortion)


def unlike_the_known(record: ScoreRecord) -> str | None:
    """What to say of a photograph that is hardly like those that a checkpoint learned from; None of all others."""
    if record.familiarity is None or record.familiarity >= MIN_FAMILIARITY:
        return None
    return "unlike the photographs that this checkpoint learned from, so trust the score less"


def cautions(record: ScoreRecord) -> list[str]:
    """What to think of when reading a score: why it says little, and that the photograph is a strange one."""
    return [text for text in (record.warning, unlike_the_known(record)) if text]


def heading(text: str) -> str:
    """With a capital at its beginning: `"lens blur"` -> `"Lens blur"`."""
    return text[:1].upper() + text[1:]


__all__ = [
    "GRADES",
    "MAX_QUALITY",
    "MIN_FAMILIARITY",
    "MIN_PROBABILITY",
    "cautions",
    "distortion_title",
    "grade",
    "heading",
    "learner_title",
    "looks_like",
    "unlike_the_known",
]
