"""Image processor of MetaQAP: any image -> the fewest 512 x 512 crops that cover it."""

import base64
import binascii
import io
import os
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict

from .crops_metaqap import LONGEST_SIDE, CropLayout, crop_layout, merge_crops, prepare_crops, shrink
from .decoding_metaqap import Photograph, UnreadableImage, read_image, to_rgb
from .fetching_metaqap import Fetching, fetch, is_web_address


def load_image(
    source: str | os.PathLike, *, fetching: Fetching | None = None, shortest_edge: int | None = None
) -> Image.Image:
    """A file, a web address or base64 text (also as a data URL) -> 8-bit RGB image, see `to_rgb`.

    transformers' function of this name lays transparency over black and clips 16-bit pixels.

    Args:
        source: path, `http(s)://` address, or base64 text.
        fetching: limits within which a web address is fetched; None refuses one.
        shortest_edge: that a model will shrink the image to: a JPEG file that is much larger is shrunk while it is
            decoded, see `read_opened`; default never.

    Raises:
        ValueError: if the text is none of these, an address that may not be fetched, or the image cannot be read; the
            message names it and says why.
        OSError: if the file is missing, or the address does not answer or is over a limit.
    """
    return load_photograph(source, fetching=fetching, shortest_edge=shortest_edge).pixels


def load_photograph(
    source: str | os.PathLike, *, fetching: Fetching | None = None, shortest_edge: int | None = None
) -> Photograph:
    """As `load_image`, with the size and whether it is the first of several frames."""
    text = os.fspath(source)
    shown = text if len(text) < 200 else f"{text[:200]}..."
    if isinstance(source, os.PathLike):
        os.stat(text)  # says that it is missing
    if isinstance(source, os.PathLike) or os.path.exists(text):
        return _read(text, shown, shortest_edge)
    if is_web_address(text):
        if fetching is None:
            raise ValueError(
                f"{shown} is a web address, and these are fetched only when that is asked for: `fetch=True` for the "
                "pipeline, `allow_fetching()` of the image processor."
            )
        data = fetch(text, fetching)
    else:
        try:
            data = base64.b64decode(text.partition(",")[2] if text.startswith("data:image/") else text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"{shown!r} is neither an existing image file nor a web address.") from error
    return _read(io.BytesIO(data), shown, shortest_edge)


def _read(source: str | io.BytesIO, name: str, shortest_edge: int | None) -> Photograph:
    try:
        return read_image(source, shortest_edge=shortest_edge)
    except UnreadableImage as error:
        raise UnreadableImage(f"{name} cannot be read: {error}.") from error


def _place_of_channels(image: np.ndarray | Tensor, data_format: str | ChannelDimension | None) -> ChannelDimension:
    ends = {ChannelDimension.FIRST: image.shape[0], ChannelDimension.LAST: image.shape[-1]}
    if data_format is not None and ends[ChannelDimension(data_format)] in (1, 3, 4):
        return ChannelDimension(data_format)
    # transformers' own rule reads an image of four rows as one of four channels. Where both ends fit equally well,
    # such as for an image of three rows, what is usual for arrays or tensors decides.
    usual = ChannelDimension.FIRST if isinstance(image, Tensor) else ChannelDimension.LAST
    for channels in (3, 4, 1) if data_format is None else ():
        if fitting := [end for end, size in ends.items() if size == channels]:
            return usual if usual in fitting else fitting[0]
    raise ValueError(f"An image array needs 1, 3 or 4 channels, first or last; got the shape {tuple(image.shape)}.")


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


def image_of(image: Any, data_format: str | ChannelDimension | None = None) -> Image.Image:
    """One array or tensor as an image of Pillow; such an image stays as it is.

    Args:
        image: see `MetaQAPImageProcessor`.
        data_format: where its channels are, if not at the usual end.

    Raises:
        ValueError: for shapes, values and other things that are no image.
    """
    if isinstance(image, (np.ndarray, Tensor)):
        if image.ndim not in (2, 3):
            raise ValueError(f"An image array has two or three dimensions; got the shape {tuple(image.shape)}.")
        if 0 in image.shape:
            raise ValueError(f"An image needs at least one pixel, got an array of shape {tuple(image.shape)}.")
    if isinstance(image, Tensor):
        data_format = None if image.ndim == 2 else _place_of_channels(image, data_format)
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()  # NumPy has no bfloat16
    if isinstance(image, np.ndarray):
        pixels = _array_to_uint8(image)
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        elif _place_of_channels(image, data_format) == ChannelDimension.FIRST:
            pixels = np.moveaxis(pixels, 0, -1)
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if not isinstance(image, Image.Image):  # such as text in a list whose first entry is a batch of arrays
        raise ValueError(f"An image is an array, a tensor or an image of Pillow; got {type(image).__name__}.")
    return image


#: The classes of the two backends, for processes that do not have this package.
BACKENDS = {
    "torchvision": "image_processing_metaqap.MetaQAPImageProcessor",
    "pil": "image_processing_metaqap.MetaQAPImageProcessorPil",
}

#: Steps of other image processors that this one does not take or always takes.
_FIXED_SETTINGS = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": False, "do_center_crop": False}


class MetaQAPBaseImageProcessor(BaseImageProcessor):
    """What the image processors of both backends have in common; see [`MetaQAPImageProcessor`]."""

    model_input_names = ["pixel_values", "crop_weights"]
    size = {"shortest_edge": 512}
    crop_size = {"height": 512, "width": 512}
    default_to_square = False
    resample = PILImageResampling.BICUBIC
    do_convert_rgb = True
    do_resize = True
    do_pad = True
    do_center_crop = False
    do_rescale = True
    do_normalize = False

    # Neither read from a file nor saved: whoever made a checkpoint has no say in it.
    _fetching: Fetching | None = None

    def __init__(self, **kwargs: Any):
        kwargs.pop("_fetching", None)
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        entries = super().to_dict()
        entries.pop("_fetching", None)
        if "auto_map" in entries:  # of saved code, where transformers names the class of this backend alone
            entries["auto_map"] = {"AutoImageProcessor": dict(BACKENDS)}
        return entries

    def allow_fetching(
        self, *, timeout: float = 20.0, max_bytes: int = 100_000_000, allow_private: bool = False
    ) -> Self:
        """Let this processor fetch images from web addresses from now on; it returns itself.

        Args:
            timeout, max_bytes, allow_private: see `Fetching`.
        """
        self._fetching = Fetching(timeout=timeout, max_bytes=max_bytes, allow_private=allow_private)
        return self

    @property
    def seen_edge(self) -> int | None:
        """The shortest edge that images are shrunk to; None if they are not."""
        return self.size["shortest_edge"] if self.do_resize else None

    def _prepare_image_like_inputs(self, images: Any, *args: Any, **kwargs: Any) -> list[Any]:
        self.layout(1, 1, **{name: kwargs[name] for name in ("do_resize", "size", "crop_size")})  # checks them
        images = self.fetch_images(images, shortest_edge=kwargs["size"].shortest_edge if kwargs["do_resize"] else None)
        return super()._prepare_image_like_inputs(images, *args, **kwargs)

    def fetch_images(self, image_url_or_urls: Any, *, shortest_edge: int | None = None) -> Any:
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(item, shortest_edge=shortest_edge) for item in image_url_or_urls]
        if isinstance(image_url_or_urls, (str, os.PathLike)):
            return load_image(image_url_or_urls, fetching=self._fetching, shortest_edge=shortest_edge)
        if isinstance(image_url_or_urls, (np.ndarray, torch.Tensor)) and image_url_or_urls.ndim == 2:
            # The caller takes images with a channel axis only, and three channels are found in any shape.
            if isinstance(image_url_or_urls, torch.Tensor):
                return image_url_or_urls.expand(3, *image_url_or_urls.shape)
            return np.repeat(image_url_or_urls[..., None], 3, axis=-1)
        return super().fetch_images(image_url_or_urls)

    def _validate_preprocess_kwargs(self, **kwargs: Any) -> None:
        for name, value in _FIXED_SETTINGS.items():
            if kwargs[name] != value:
                raise ValueError(
                    f"`{name}` must stay {value}, got {kwargs[name]}: the model takes crops that cover the image, RGB "
                    "in [0, 1], and normalises them itself."
                )
        super()._validate_preprocess_kwargs(**kwargs)

    def process_image(
        self, image: Any, input_data_format: str | ChannelDimension | None = None, **kwargs: Any
    ) -> Image.Image:
        """One image of any kind -> 8-bit RGB."""
        return to_rgb(image_of(image, input_data_format))

    def layout(
        self,
        height: int,
        width: int,
        *,
        do_resize: bool | None = None,
        size: Any = None,
        crop_size: Any = None,
    ) -> CropLayout:
        """Where the crops of an image of `height` x `width` pixels lie.

        Args:
            height, width: of the image, upright.
            do_resize, size, crop_size: other settings than this processor's own.

        Raises:
            ValueError: for an image without pixels, and settings that cannot be.
        """
        do_resize = self.do_resize if do_resize is None else do_resize
        settings = self._standardize_kwargs(
            size=self.size if size is None else size,
            crop_size=self.crop_size if crop_size is None else crop_size,
            default_to_square=self.default_to_square,
        )
        size, crop_size = settings["size"], settings["crop_size"]
        if crop_size.height != crop_size.width:
            raise ValueError(f"Crops are square; got crop_size {dict(crop_size)}.")
        if do_resize and (size.shortest_edge is None or size.longest_edge is not None):
            raise ValueError(f"`size` must be `{{'shortest_edge': pixels}}`, got {dict(size)}.")
        for side in (crop_size.height, *((size.shortest_edge,) if do_resize else ())):
            if type(side) is not int or not 1 <= side <= LONGEST_SIDE:
                raise ValueError(f"Sides must be whole numbers of pixels from 1 to {LONGEST_SIDE:,}, got {side!r}.")
        shortest_edge = size.shortest_edge if do_resize else min(height, width)
        return crop_layout(height, width, shortest_edge=shortest_edge, crop_size=crop_size.height)

    def _preprocess(
        self,
        images: list[Image.Image | Tensor],
        size: SizeDict,
        crop_size: SizeDict,
        resample: PILImageResampling,
        rescale_factor: float,
        do_resize: bool,
        do_pad: bool,
        return_tensors: str | None,
        **kwargs: Any,
    ) -> BatchFeature:
        if not images:
            raise ValueError("No images were given.")
        device = next((image.device for image in images if isinstance(image, Tensor)), None)
        layouts = [
            self.layout(
                *(image.shape[1:] if isinstance(image, Tensor) else image.size[::-1]),
                do_resize=do_resize,
                size=size,
                crop_size=crop_size,
            )
            for image in images
        ]
        counts = [len(layout.corners) for layout in layouts]
        number = torch.tensor(counts).unsqueeze(1)
        crop_weights = (torch.arange(max(counts)) < number) / number
        shape = (3, *[layouts[0].crop_size] * 2)
        pixel_values = torch.zeros(*((len(images), max(counts)) if do_pad else (sum(counts),)), *shape, device=device)
        start = 0
        for index, (image, layout) in enumerate(zip(images, layouts, strict=True)):
            place = pixel_values[index] if do_pad else pixel_values[start:]
            crops = torch.as_tensor(prepare_crops(image, layout, resample=resample), device=device)
            place[: len(crops)] = crops
            start += len(crops)
        pixel_values *= rescale_factor
        data = {"pixel_values": pixel_values, "crop_weights": crop_weights.to(device)}
        if device is None:
            data = {name: values.numpy() for name, values in data.items()}
        return BatchFeature(data=data, tensor_type=return_tensors)

    @staticmethod
    def collate(items: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Make one batch of images that were prepared one by one; `Trainer` takes this as its `data_collator`.

        Args:
            items: of each image `pixel_values` `(N, 3, H, W)` and `crop_weights` `(N,)`, as this processor makes them
                without the dimension of the batch. N may differ. Whatever else they hold (`labels`) is stacked.

        Returns:
            `pixel_values` `(B, N, 3, H, W)` and `crop_weights` `(B, N)`, padded with crops of zeros whose weight is
            zero, and the rest.

        Raises:
            ValueError: for items without crops.
        """
        batch = {name: [torch.as_tensor(item[name]) for item in items] for name in items[0]}
        counts = [len(weights) for weights in batch.get("crop_weights", ())]
        if not counts or [len(crops) for crops in batch["pixel_values"] if crops.ndim == 4] != counts:
            raise ValueError(
                "Each item needs `pixel_values` (N, 3, H, W) and `crop_weights` (N,): what the image processor makes "
                "of one image, without the dimension of the batch."
            )
        for name in ("pixel_values", "crop_weights"):
            batch[name] = [torch.cat([t, t.new_zeros(max(counts) - len(t), *t.shape[1:])]) for t in batch[name]]
        return {name: torch.stack(tensors) for name, tensors in batch.items()}

    def post_process_quality_map(
        self,
        outputs: Any,
        target_sizes: list[tuple[int, int]],
        *,
        do_resize: bool | None = None,
        size: Any = None,
        crop_size: Any = None,
    ) -> list[Tensor]:
        """Put the quality maps of an image's crops together to one map of the whole image.

        Args:
            outputs: of the model, called with `output_quality_map=True` on a batch of this processor.
            target_sizes: `(height, width)` of each original image, after its EXIF orientation was applied.
            do_resize, size, crop_size: as the processor was called, if not with its own settings.

        Returns:
            For each image a map `(height, width)` of local quality; where crops overlap, they fade into one another.

        Raises:
            ValueError: if images of these sizes do not have as many crops as there are maps.
        """
        maps = outputs.quality_map
        maps = maps.unsqueeze(1) if maps.ndim == 3 else maps
        if len(target_sizes) != len(maps):
            raise ValueError(f"Got quality maps of {len(maps)} images but {len(target_sizes)} target sizes.")
        layouts = [
            self.layout(height, width, do_resize=do_resize, size=size, crop_size=crop_size)
            for height, width in target_sizes
        ]
        # All images of a batch have as many maps as the one with the most crops.
        most = max((len(layout.corners) for layout in layouts), default=0)
        if most != maps.shape[1]:
            raise ValueError(
                f"Images of these sizes have up to {most} crops, but there are {maps.shape[1]} quality maps of each: "
                "pass (height, width) of the original images, and the settings that the processor was called with."
            )
        wholes = []
        for crop_maps, target_size, layout in zip(maps.float(), target_sizes, layouts, strict=True):
            side = layout.crop_size
            # A crop counts for most in its middle and for next to nothing at its border, so that no seam shows.
            ramp = torch.arange(side, device=maps.device) + 0.5
            ramp = torch.minimum(ramp, ramp.flip(0))
            weight = torch.outer(ramp, ramp)
            total, total_weight = torch.zeros(2, *layout.padded, device=maps.device)
            crop_maps = crop_maps[: len(layout.corners)].unsqueeze(1)
            full = F.interpolate(crop_maps, size=(side, side), mode="bilinear").squeeze(1)
            for (top, left), crop_map in zip(layout.corners, full, strict=True):
                total[top : top + side, left : left + side] += weight * crop_map
                total_weight[top : top + side, left : left + side] += weight
            (top, left), (rows, columns) = layout.pad_before, layout.resized
            whole = (total / total_weight)[None, None, top : top + rows, left : left + columns]
            wholes.append(F.interpolate(whole, size=tuple(target_size), mode="bilinear")[0, 0])
        return wholes


class MetaQAPImageProcessor(MetaQAPBaseImageProcessor, TorchvisionBackend):
    r"""
    Prepares images of any size for [`MetaQAPModel`], deterministically and independently of the batch.

    The EXIF orientation is applied, everything is brought to RGB, the shortest edge is shrunk to
    `size["shortest_edge"]` if it is longer (antialiased bicubic, never enlarged), and the image is cut into the fewest
    evenly spaced crops of `crop_size` that cover it. Sides shorter than a crop are padded by reflection.

    Images may be PIL images, paths, web addresses (after `allow_fetching`), or arrays and tensors of shape `(H, W)`,
    `(H, W, C)` or `(C, H, W)` with 1, 3 or 4 (RGBA) channels and uint8, uint16 or floating-point pixels in [0, 1].
    Where both ends of a shape are 3, arrays have their channels last and tensors first.

    Returns a `BatchFeature` with `pixel_values` `(B, N, 3, 512, 512)`, RGB in [0, 1], and `crop_weights` `(B, N)`,
    zero for the crops that only pad the batch. With `do_pad=False` there are no such crops: `pixel_values` are the
    crops of all images, one after the other, `(M, 3, 512, 512)`. The model takes both, and `collate` makes a batch of
    images that were prepared one by one.

    `size`, `crop_size`, `resample`, `do_resize` and `do_pad` can be changed. The steps of other image processors
    cannot, and asking for them is an error: pixels are always brought to [0, 1] (`do_rescale`; arrays of
    floating-point pixels are there already, and nothing is divided twice), and each base learner normalises them by
    itself (`do_normalize`).
    For crops of bytes see `prepare_crops`.

    A tensor on a GPU is shrunk and cut on that GPU, and `device="cuda"` brings other images there once they are
    decoded. On the CPU Pillow does the work, as in [`MetaQAPImageProcessorPil`]. The crops are the same to the bit in
    each way, so published scores hold for all.
    """

    def process_image(
        self,
        image: Any,
        input_data_format: str | ChannelDimension | None = None,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> Image.Image | Tensor:
        """One image of any kind -> 8-bit RGB, for another device than the CPU a tensor `(3, H, W)` on it."""
        if device is None:
            device = image.device if isinstance(image, Tensor) else "cpu"
        device = torch.device(device)
        if device.type == "cpu":
            return super().process_image(image, input_data_format)
        if isinstance(image, Tensor) and image.dtype == torch.uint8 and 0 not in image.shape:
            is_first = _place_of_channels(image, input_data_format) == ChannelDimension.FIRST
            channels_first = image if is_first else image.movedim(-1, 0)
            if len(channels_first) == 3:
                return channels_first.detach().to(device)
        rgb = super().process_image(image, input_data_format)
        return torch.from_numpy(np.array(rgb)).movedim(-1, 0).to(device)


class MetaQAPImageProcessorPil(MetaQAPBaseImageProcessor, PilBackend):
    """[`MetaQAPImageProcessor`] with Pillow alone, `AutoImageProcessor.from_pretrained(checkpoint, backend="pil")`.

    It computes on the CPU, wherever images come from.
    """


MetaQAPImageProcessor.register_for_auto_class()
MetaQAPImageProcessorPil.register_for_auto_class()


__all__ = [
    "CropLayout",
    "MetaQAPImageProcessor",
    "MetaQAPImageProcessorPil",
    "crop_layout",
    "image_of",
    "load_image",
    "load_photograph",
    "merge_crops",
    "prepare_crops",
    "shrink",
    "to_rgb",
]
