"""Image processor of MetaQAP: any image -> the fewest 512 x 512 crops that cover it."""

import base64
import binascii
import io
import os
import urllib.request
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from torch.nn import functional as F
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict


@dataclass(frozen=True)
class CropLayout:
    """Where the crops of one image lie, in pixels of the resized (and, if small, padded) image."""

    resized: tuple[int, int]
    pad_before: tuple[int, int]
    padded: tuple[int, int]
    corners: tuple[tuple[int, int], ...]


def crop_layout(height: int, width: int, *, shortest_edge: int = 512, crop_size: int = 512) -> CropLayout:
    """Resized size, padding and crop corners for an image of `height` x `width` pixels.

    The shortest edge is shrunk to `shortest_edge` if it is longer and never enlarged; sides below `crop_size` are
    padded equally on both ends; crops are the fewest that cover the image, evenly spaced.

    Raises:
        ValueError: for an image without pixels.
    """
    if min(height, width) < 1:
        raise ValueError(f"An image needs at least one pixel, got {height} x {width}.")
    shrink = min(1.0, shortest_edge / min(height, width))
    resized = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    padded = (max(resized[0], crop_size), max(resized[1], crop_size))
    pad_before = ((padded[0] - resized[0]) // 2, (padded[1] - resized[1]) // 2)
    starts = []
    for side in padded:
        count = -(-side // crop_size)
        starts.append([round(step * (side - crop_size) / max(1, count - 1)) for step in range(count)])
    corners = tuple((top, left) for top in starts[0] for left in starts[1])
    return CropLayout(resized=resized, pad_before=pad_before, padded=padded, corners=corners)


#: What brings an image upright, for each value of the EXIF tag "Orientation" that is not upright already.
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image -> 8-bit RGB: EXIF orientation applied, alpha laid over white, 16-bit scaled, CMYK converted.

    The result carries no metadata, so a second call changes nothing.

    Raises:
        ValueError: for floating-point pixels (mode "F").
    """
    image.load()  # TIFF files are brought upright here and lose the tag
    # `ImageOps.exif_transpose` also writes the EXIF data anew and fails on malformed tags that have no say here.
    transpose = _TO_UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    if transpose is not None:
        image = image.transpose(transpose)
    if image.mode.startswith("I"):  # 16-bit grey; PIL's own conversion clips at 255
        values = np.asarray(image).astype(np.float32)
        # Mode "I" holds 32-bit integers, but files that decode to it (16-bit PNG and TIFF) use 16 of them.
        image = Image.fromarray(np.clip(np.rint(values / 257.0), 0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("An image of floating-point pixels has no defined white; convert it to 8 or 16 bit first.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    image.info.clear()
    return image


def load_image(source: str | os.PathLike, *, timeout: float | None = None) -> Image.Image:
    """A file, a web address or base64 text (also as a data URL) -> 8-bit RGB image, see `to_rgb`.

    transformers' function of this name lays transparency over black and clips 16-bit pixels.

    Args:
        source: path, `http(s)://` address, or base64 text.
        timeout: seconds to wait for a web address.

    Raises:
        ValueError: if the text is none of these.
        OSError: if the source cannot be read or holds no image.
    """
    text = os.fspath(source)
    if isinstance(source, os.PathLike) or os.path.isfile(text):
        with Image.open(text) as image:
            return to_rgb(image)
    if text.startswith(("http://", "https://")):
        # Some servers, Wikimedia's among them, refuse Python's default agent.
        request = urllib.request.Request(text, headers={"User-Agent": "metaqap"})
        with urllib.request.urlopen(request, timeout=timeout) as response:
            data = response.read()
    else:
        try:
            data = base64.b64decode(text.partition(",")[2] if text.startswith("data:image/") else text, validate=True)
        except (binascii.Error, ValueError) as error:
            shown = text if len(text) < 200 else f"{text[:200]}..."
            raise ValueError(f"{shown!r} is neither an existing image file nor a web address.") from error
    with Image.open(io.BytesIO(data)) as image:
        return to_rgb(image)


def _channel_dimension(shape: tuple[int, ...]) -> ChannelDimension:
    # transformers' own rule reads an image of four rows as one of four channels.
    for channels in (3, 4, 1):
        if shape[0] == channels:
            return ChannelDimension.FIRST
        if shape[-1] == channels:
            return ChannelDimension.LAST
    raise ValueError(f"An image array needs 1, 3 or 4 channels, first or last; got the shape {shape}.")


def _array_to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return np.rint(array / 257.0).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"Pixels must be uint8, uint16 or floating point in [0, 1], got {array.dtype}.")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise ValueError("Floating-point pixels must lie in [0, 1].")
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8)


class MetaQAPImageProcessor(PilBackend):
    r"""
    Prepares images of any size for [`MetaQAPModel`], deterministically and independently of the batch.

    The EXIF orientation is applied, everything is brought to RGB, the shortest edge is shrunk to
    `size["shortest_edge"]` if it is longer (antialiased bicubic, never enlarged), and the image is cut into the fewest
    evenly spaced crops of `crop_size` that cover it. Sides shorter than a crop are padded by reflection.

    Images may be PIL images, paths, URLs, or arrays and tensors of shape `(H, W)`, `(H, W, C)` or `(C, H, W)` with
    1, 3 or 4 (RGBA) channels and uint8, uint16 or floating-point pixels in [0, 1].

    Returns a `BatchFeature` with `pixel_values` `(B, N, 3, 512, 512)`, RGB in [0, 1] (each base learner normalises by
    itself), and `crop_weights` `(B, N)`, zero for the crops that only pad the batch.
    """

    model_input_names = ["pixel_values", "crop_weights"]
    size = {"shortest_edge": 512}
    crop_size = {"height": 512, "width": 512}
    default_to_square = False
    resample = PILImageResampling.BICUBIC
    do_convert_rgb = True
    do_resize = True
    do_center_crop = False
    do_rescale = True
    do_normalize = False

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(item) for item in image_url_or_urls]
        if isinstance(image_url_or_urls, (str, os.PathLike)):
            return load_image(image_url_or_urls)
        if isinstance(image_url_or_urls, (np.ndarray, torch.Tensor)) and image_url_or_urls.ndim == 2:
            return image_url_or_urls[..., None]  # the caller takes images with a channel axis only
        return super().fetch_images(image_url_or_urls)

    def process_image(self, image: Any, **kwargs: Any) -> np.ndarray:
        """One image -> `(3, H, W)` uint8 RGB."""
        if isinstance(image, torch.Tensor):
            image = image.detach().cpu()
            image = (image.float() if image.is_floating_point() else image).numpy()  # NumPy has no bfloat16
        if isinstance(image, np.ndarray):
            kwargs["input_data_format"] = kwargs.get("input_data_format") or _channel_dimension(image.shape)
            array = super().process_image(_array_to_uint8(image), **(kwargs | {"do_convert_rgb": False}))
            if array.shape[0] == 4:
                return self.process_image(Image.fromarray(np.moveaxis(array, 0, -1)))
            return np.repeat(array, 3, axis=0) if array.shape[0] == 1 else array
        return np.moveaxis(np.asarray(to_rgb(image)), -1, 0)

    def _preprocess(
        self,
        images: list[np.ndarray],
        size: SizeDict,
        crop_size: SizeDict,
        resample: PILImageResampling,
        rescale_factor: float,
        do_rescale: bool,
        do_resize: bool,
        return_tensors: str | None,
        **kwargs: Any,
    ) -> BatchFeature:
        if not images:
            raise ValueError("No images were given.")
        crops = []
        for image in images:
            layout = self._layout(image.shape[-2:], size=size, crop_size=crop_size, do_resize=do_resize)
            if layout.resized != image.shape[-2:]:
                new_size = SizeDict(height=layout.resized[0], width=layout.resized[1])
                image = self.resize(image, size=new_size, resample=resample)
            pads = [
                (before, padded - before - side)
                for before, padded, side in zip(layout.pad_before, layout.padded, layout.resized, strict=True)
            ]
            if any(before or after for before, after in pads):
                image = np.pad(image, ((0, 0), *pads), mode="reflect")
            side = crop_size.height
            crops.append(np.stack([image[:, y : y + side, x : x + side] for y, x in layout.corners]))

        most = max(len(item) for item in crops)
        dtype = np.float32 if do_rescale else np.uint8
        pixel_values = np.zeros((len(crops), most, *crops[0].shape[1:]), dtype=dtype)
        crop_weights = np.zeros((len(crops), most), dtype=np.float32)
        for index, item in enumerate(crops):
            pixel_values[index, : len(item)] = item
            crop_weights[index, : len(item)] = 1 / len(item)
        if do_rescale:
            pixel_values *= np.float32(rescale_factor)
        return BatchFeature(
            data={"pixel_values": pixel_values, "crop_weights": crop_weights}, tensor_type=return_tensors
        )

    @staticmethod
    def _layout(shape: tuple[int, ...], *, size: SizeDict, crop_size: SizeDict, do_resize: bool = True) -> CropLayout:
        if crop_size.height != crop_size.width:
            raise ValueError(f"Crops are square; got crop_size {dict(crop_size)}.")
        if do_resize and (size.shortest_edge is None or size.longest_edge is not None):
            raise ValueError(f"`size` must be `{{'shortest_edge': pixels}}`, got {dict(size)}.")
        height, width = shape
        shortest_edge = size.shortest_edge if do_resize else min(height, width)
        return crop_layout(height, width, shortest_edge=shortest_edge, crop_size=crop_size.height)

    def post_process_quality_map(self, outputs: Any, target_sizes: list[tuple[int, int]]) -> list[torch.Tensor]:
        """Put the quality maps of an image's crops together to one map of the whole image.

        Args:
            outputs: of the model, called with `output_quality_map=True` on what this processor made.
            target_sizes: `(height, width)` of each original image, after its EXIF orientation was applied.

        Returns:
            For each image a map `(height, width)` of local quality; where crops overlap, they fade into one another.

        Raises:
            ValueError: if the sizes are not those of the images that the maps were made from.
        """
        maps = outputs.quality_map
        maps = maps.unsqueeze(1) if maps.ndim == 3 else maps
        if len(target_sizes) != len(maps):
            raise ValueError(f"Got quality maps of {len(maps)} images but {len(target_sizes)} target sizes.")
        results = []
        for image_maps, (height, width) in zip(maps.float(), target_sizes, strict=True):
            layout = self._layout((height, width), size=self.size, crop_size=self.crop_size)
            if len(layout.corners) > len(image_maps):
                raise ValueError(
                    f"An image of {height} x {width} pixels has {len(layout.corners)} crops, but its quality map has "
                    f"{len(image_maps)}; pass (height, width) of the original images."
                )
            side = self.crop_size.height
            # A crop counts for most in its middle and for next to nothing at its border, so that no seam shows.
            ramp = torch.arange(side, device=image_maps.device) + 0.5
            ramp = torch.minimum(ramp, ramp.flip(0))
            weight = torch.outer(ramp, ramp)
            total, total_weight = torch.zeros(2, *layout.padded, device=image_maps.device)
            full = F.interpolate(image_maps.unsqueeze(1), size=(side, side), mode="bilinear").squeeze(1)
            for (y, x), crop_map in zip(layout.corners, full, strict=False):
                total[y : y + side, x : x + side] += weight * crop_map
                total_weight[y : y + side, x : x + side] += weight
            (top, left), (rows, columns) = layout.pad_before, layout.resized
            whole = (total / total_weight)[None, None, top : top + rows, left : left + columns]
            results.append(F.interpolate(whole, size=(height, width), mode="bilinear")[0, 0])
        return results


MetaQAPImageProcessor.register_for_auto_class()


__all__ = ["CropLayout", "MetaQAPImageProcessor", "crop_layout", "load_image", "to_rgb"]
