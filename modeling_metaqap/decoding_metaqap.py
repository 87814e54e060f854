"""Image files -> upright 8-bit RGB, and for each one that cannot be read a reason that a person can act on.

Nothing here imports PyTorch, so that processes that only read images start fast.
"""

import io
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple

import numpy as np

# Importing the plug-ins registers them. Were they loaded when a file needs them, as Pillow does by itself, what
# becomes of a file would depend on which files were opened before.
from PIL import (
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    ImageCms,
    ImageStat,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TgaImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

try:
    from pillow_heif import HeifImagePlugin  # noqa: F401
except ImportError:
    _HEIF: tuple[str, ...] = ()
else:
    _HEIF = ("HEIF",)

#: Pillow's names of the formats that photographs come in; no others are opened. The content of a file decides,
#: whatever its name says, and some of Pillow's decoders start other programs (EPS starts Ghostscript). TGA comes
#: last: it has no signature, and other files can look like one. HEIF is among them where pillow-heif is installed.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "JPEG2000", "PPM", *_HEIF, "TGA")

#: Larger files are refused.
MAX_FILE_BYTES = 1 << 30

_NOT_AN_IMAGE = "not an image, or of a format that is not read; save it as JPEG or PNG"
_CUT_SHORT = "it is cut short or damaged; copy it again from where it came from"
_DAMAGED = "it is damaged or of an unusual kind; save it again as JPEG or PNG, or copy it from where it came from"

# What a file is whose format is not read, by the bytes at its beginning, from an offset on.
_OTHER_KINDS = (
    (0, b"%!PS", "it is a PostScript document"),
    (0, b"\xc5\xd0\xd3\xc6", "it is a PostScript document"),
    (0, b"%PDF", "it is a PDF document"),
    (0, b"<svg", "it is an SVG drawing"),
    (0, b"<?xml", "it is an XML document"),
    (0, b"<!DOCTYPE", "it is a web page"),
    (0, b"<html", "it is a web page"),
    (0, b"PK\x03\x04", "it is a zip archive"),
    (0, b"8BPS", "it is a Photoshop document"),
    (0, b"\xd7\xcd\xc6\x9a", "it is a Windows metafile"),
    (0, b"FUJIFILMCCD-RAW", "it is a camera's raw file"),
    (4, b"ftypcrx", "it is a camera's raw file"),
    (4, b"ftypqt", "it is a video"),
    (4, b"ftypisom", "it is a video"),
    (4, b"ftypmp4", "it is a video"),
    (4, b"ftypM4V", "it is a video"),
    (0, b"\x1aE\xdf\xa3", "it is a video"),
    (0, b"\xff\x0a", "it is a JPEG XL photograph"),
    (0, b"\0\0\0\x0cJXL ", "it is a JPEG XL photograph"),
)
_HEIF_SIGNATURES = (b"ftypheic", b"ftypheix", b"ftypmif1")

_NO_FILES = (
    (stat.S_ISDIR, "it is a folder, not a file"),
    (stat.S_ISFIFO, "it is a named pipe, not a file"),
    (stat.S_ISSOCK, "it is a socket, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
)


class UnreadableImage(ValueError):
    """An image that cannot be read. The message is the reason, in a few words without the image's name."""


class Photograph(NamedTuple):
    """An image that was read.

    Attributes:
        pixels: 8-bit RGB, upright, and perhaps shrunk.
        width, height: of the original in pixels, upright.
        is_first_frame: whether the file holds several frames or pages, of which this is the first.
    """

    pixels: Image.Image
    width: int
    height: int
    is_first_frame: bool = False


# Of a photograph with fewer pixels on its shorter side not much can be seen.
_SMALL_SIDE = 32
# Values of 255 that the pixels of a surface of one color may differ by, as after lossy compression.
_ONE_COLOR = 3
# How a warning ends of a picture that no score says anything of.
_TO_JUDGE = " to judge"


def warning_of(photograph: Photograph) -> str | None:
    """Why the score of a photograph says little, in a few words; None for an ordinary one."""
    reasons = []
    if min(photograph.width, photograph.height) < _SMALL_SIDE:
        reasons.append(f"{photograph.width} x {photograph.height} pixels are too few{_TO_JUDGE}")
    elif all(high - low <= _ONE_COLOR for low, high in ImageStat.Stat(photograph.pixels).extrema):
        reasons.append(f"there is nothing but one color{_TO_JUDGE}")
    if photograph.is_first_frame:
        reasons.append("only the first of several frames or pages was judged")
    return "; ".join(reasons) or None


def says_nothing(warning: str | None) -> bool:
    """Whether a warning is of a picture with too little in it for any score: a tiny one, or one of one color."""
    return warning is not None and any(reason.endswith(_TO_JUDGE) for reason in warning.split("; "))


def is_first_of_several(image: Image.Image) -> bool:
    """Whether an opened image file holds several frames or pages, and the first one is to be read."""
    # MPO files hold other views of the same photograph, such as a depth map of a phone.
    return image.format != "MPO" and bool(getattr(image, "is_animated", False)) and image.tell() == 0


def too_many_pixels(limit: int) -> str:
    """The reason to refuse an image, in a few words."""
    return f"it has more pixels than the limit of {limit:,}"


@contextmanager
def errors_explained() -> Iterator[None]:
    """Make an [`UnreadableImage`] of whatever a decoder raises.

    Decoders raise nearly everything for damaged files: OSError and SyntaxError, but also RuntimeError, IndexError,
    OverflowError, AssertionError, NotImplementedError and what plug-ins define.
    """
    try:
        yield
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(_explanation(error)) from error


def _explanation(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return _NOT_AN_IMAGE
    if isinstance(error, Image.DecompressionBombError):
        return too_many_pixels(2 * (Image.MAX_IMAGE_PIXELS or 0))
    if isinstance(error, Image.DecompressionBombWarning):  # where the program makes errors of warnings
        return too_many_pixels(Image.MAX_IMAGE_PIXELS or 0)
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    # The libraries' own words, such as "decoder error -2", tell a person nothing.
    return _CUT_SHORT if "truncated" in str(error).lower() else _DAMAGED


def open_image(source: str | bytes | os.PathLike | IO[bytes]) -> Image.Image:
    """Open an image file of one of `PHOTO_FORMATS`; of its content only the header is read.

    Args:
        source: path of a regular file, or an open file.

    Raises:
        UnreadableImage: with the reason.
    """
    with errors_explained():
        if isinstance(source, (str, bytes, os.PathLike)):
            # Opening a pipe would wait for ever, and a device may do anything.
            status = os.stat(source)
            for is_kind, reason in _NO_FILES:
                if is_kind(status.st_mode):
                    raise UnreadableImage(reason)
            if status.st_size == 0:
                raise UnreadableImage("the file is empty")
            if status.st_size > MAX_FILE_BYTES:
                raise UnreadableImage(f"the file is larger than the limit of {MAX_FILE_BYTES:,} bytes")
            source = os.fspath(source)
        try:
            image = Image.open(source, formats=PHOTO_FORMATS)
        except UnidentifiedImageError as error:
            raise UnreadableImage(_what_it_is(source)) from error
        try:
            if image.format in ("JPEG", "MPO") and image.fp is not None:
                _check_scan(image.fp)
        except BaseException:
            image.close()
            raise
        return image


def read_image(
    source: str | bytes | os.PathLike | IO[bytes] | Image.Image, *, shortest_edge: int | None = None
) -> Photograph:
    """An image file, or an image of Pillow, as 8-bit RGB, upright; see `to_rgb`.

    Args:
        source: path of a regular file, an open file, or an image. An image of Pillow gives all its pixels.
        shortest_edge: that a model will shrink the photograph to. A JPEG file that is much larger is then shrunk while
            it is decoded, see `read_opened`; default never.

    Raises:
        UnreadableImage: with the reason.
    """
    with errors_explained():
        if isinstance(source, Image.Image):
            is_first_frame, rgb = is_first_of_several(source), to_rgb(source)
            return Photograph(rgb, rgb.width, rgb.height, is_first_frame)
        with open_image(source) as image:
            return read_opened(image, shortest_edge=shortest_edge)


def read_rgb(
    source: str | bytes | os.PathLike | IO[bytes] | Image.Image, *, shortest_edge: int | None = None
) -> Image.Image:
    """The pixels of `read_image`."""
    return read_image(source, shortest_edge=shortest_edge).pixels


def read_opened(image: Image.Image, *, shortest_edge: int | None) -> Photograph:
    """The photograph of a file that `open_image` has opened, whose pixels are not read yet.

    The decoder of a JPEG file can leave out the finest detail and give a half, a quarter or an eighth of each side. It
    does so as far as the shortest edge keeps twice the pixels that the model will see. Scores then hardly move (with
    fewer pixels they do, see `studies/results/decoding.json`), and reading takes less than half of the time. Crops lie
    where they lie in all the pixels.

    Args:
        image: opened, not loaded.
        shortest_edge: see `read_image`.

    Raises:
        UnreadableImage: with the reason.
    """
    with errors_explained():
        is_first_frame, (width, height) = is_first_of_several(image), image.size
        if not isinstance(image, JpegImagePlugin.JpegImageFile) or shortest_edge is None:
            rgb = to_rgb(image)
            return Photograph(rgb, rgb.width, rgb.height, is_first_frame)
        factor = 8
        while factor > 1 and not _serves(image.size, factor, shortest_edge):
            factor //= 2
        if factor > 1:
            image.draft(None, (width // factor, height // factor))
        if turns_sides(image):
            width, height = height, width
        return Photograph(to_rgb(image), width, height, is_first_frame)


def _serves(size: tuple[int, int], factor: int, shortest_edge: int) -> bool:
    """Whether a photograph of this size can be decoded at so small a part of its sides."""
    reduced = [-(-side // factor) for side in size]

    def sides_seen(sides: Sequence[int]) -> list[int]:
        return [round(side * (shortest_edge / min(sides))) for side in sides]

    return min(reduced) >= 2 * shortest_edge and sides_seen(reduced) == sides_seen(size)


def turns_sides(image: Image.Image) -> bool:
    """Whether height becomes width when the image is brought upright."""
    return image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


def _what_it_is(source: str | bytes | IO[bytes]) -> str:
    """The reason not to read a file whose format is not known."""
    if isinstance(source, (str, bytes)):
        with open(source, "rb") as file:
            beginning = file.read(64)
    else:
        source.seek(0)
        beginning = source.read(64)
    if not beginning:
        return "the file is empty"
    if not beginning.strip(b"\0"):
        return "the file holds nothing but zeros; copy it again from where it came from"
    for offset, signature, kind in _OTHER_KINDS:
        if beginning[offset:].startswith(signature):
            return f"{kind}, which is not read; save it as JPEG or PNG"
    if beginning[4:].startswith(_HEIF_SIGNATURES):
        if _HEIF:
            return "it is a HEIC photograph that is damaged or of an unusual kind; save it as JPEG or PNG"
        return "it is a HEIC photograph, which only pillow-heif reads; install that, or save it as JPEG or PNG"
    return _NOT_AN_IMAGE


# A frame begins with a marker from 0xFFC0 on, but for those that are something else. Of arithmetic coding (from 0xFFC9
# on) a block may take less than a bit.
_FRAMES = {0xC0 + n for n in range(16)} - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}


def _check_scan(file: IO[bytes]) -> None:
    """Refuse a JPEG file without pixels, or of zeros from somewhere on: the decoder fills up with grey in silence."""
    position, end = file.tell(), _end_before_zeros(file)
    file.seek(2)
    blocks = 0.0
    try:
        while True:
            marker = file.read(2)
            while marker == b"\xff\xff":  # fill bytes
                marker = b"\xff" + file.read(1)
            if len(marker) < 2 or marker[0] != 0xFF:
                return  # the decoder has its own say
            [length] = struct.unpack(">H", file.read(2))
            if marker[1] in _HUFFMAN_FRAMES:
                blocks = _blocks(file.read(length - 2))
            elif marker[1] == 0xDA:
                file.seek(length - 2, io.SEEK_CUR)
                begin = file.read(2)
                if len(begin) == 2 and begin[0] == 0xFF and begin[1] not in (0x00, 0xFF):
                    raise UnreadableImage("it holds no pixels; copy it again from where it came from")
                # Each block takes at least one bit.
                if 8 * (end - file.tell() + 2) < blocks:
                    raise UnreadableImage(_CUT_SHORT)
                return
            else:
                file.seek(length - 2, io.SEEK_CUR)
    except struct.error:
        return
    finally:
        file.seek(position)


def _end_before_zeros(file: IO[bytes]) -> int:
    """Where a JPEG file ends; some devices add zeros behind the end, which must then be marked.

    Raises:
        UnreadableImage: if zeros stand where pixels should, as after a copy that was broken off.
    """
    end = size = file.seek(0, io.SEEK_END)
    while end:
        begin = max(0, end - (1 << 16))
        file.seek(begin)
        block = file.read(end - begin)
        if content := block.rstrip(b"\0"):
            end = begin + len(content)
            break
        end = begin
    file.seek(max(0, end - 2))
    if size - end >= 64 and file.read(2) != b"\xff\xd9":
        raise UnreadableImage(_CUT_SHORT)
    return end


def _blocks(frame: bytes) -> float:
    """How many blocks of 8 x 8 pixels the largest component of a JPEG frame has at least."""
    _, height, width, count = struct.unpack_from(">BHHB", frame)
    factors = [divmod(frame[7 + 3 * component], 16) for component in range(count)]
    most = max(horizontal for horizontal, _ in factors) * max(vertical for _, vertical in factors)
    largest = max(horizontal * vertical for horizontal, vertical in factors)
    return (width // 8) * (height // 8) * largest / most


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


def to_rgb(image: Image.Image, *, white: float | None = None) -> Image.Image:
    """Any PIL image -> 8-bit RGB: EXIF orientation applied, alpha laid over white, 16-bit scaled, CMYK converted.

    Colours of another colour space than sRGB, as the image's ICC profile says, are converted to sRGB. The result
    carries no metadata, so a second call changes nothing.

    Args:
        image: of any mode.
        white: value of white of integer pixels; see `value_of_white`, which is the default.

    Raises:
        UnreadableImage: for pixels whose white is not known.
    """
    image.load()  # TIFF files are brought upright here and lose the tag
    white = value_of_white(image) if white is None else white
    profile = image.info.get("icc_profile")
    # `ImageOps.exif_transpose` also writes the EXIF data anew and fails on malformed tags that have no say here.
    transpose = _TO_UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if transpose is not None:
        image = image.transpose(transpose)
    if image.mode.startswith("I"):  # PIL's own conversion clips at 255
        values = np.asarray(image).astype(np.float32)
        image = Image.fromarray(np.clip(np.rint(values / (white / 255)), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = _to_srgb(image, profile) if profile else image.convert("RGB")
    image.info.clear()
    return image


# TIFF 6.0: tags and values.
_BITS, _PHOTOMETRIC, _MAX_VALUE, _SAMPLE_FORMAT, _SAMPLE_MAX_VALUE = 258, 262, 281, 339, 341
_WHITE_IS_ZERO, _UNSIGNED = 0, 1

_UNKNOWN_WHITE = "its 16-bit pixels use 12 bits at most, so that white is not known; scale them to 16 bits"


def value_of_white(image: Image.Image) -> float:
    """Which value of the pixels of a loaded image is white: 255, or for integers of 16 bits mostly 65535.

    TIFF files can hold fewer bits in 16, and say so or not.

    Raises:
        UnreadableImage: if the pixels do not tell, as those of floating-point images and of 32 bits do not.
    """
    if image.mode == "F":
        raise UnreadableImage("its floating-point pixels have no defined white; convert it to 8 or 16 bit first")
    tags = getattr(image, "tag_v2", {})
    bits = max(tags.get(_BITS, (0,)))
    if not image.mode.startswith("I"):
        if bits == 16 and 0 < np.asarray(image).max() < 16:  # Pillow has kept the upper 8 bits
            raise UnreadableImage(_UNKNOWN_WHITE)
        return 255
    pixels = np.asarray(image)
    darkest, brightest = pixels.min(), pixels.max()
    # Mode "I" holds 32-bit integers, but files that decode to it (PNG, PGM) use 16 of them.
    if darkest < 0 or brightest > 65535 or bits > 16 or tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] != _UNSIGNED:
        raise UnreadableImage("its integer pixels have no defined white; convert it to 8 or 16 bit first")
    if not bits:
        return 65535
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise UnreadableImage("it is a negative, whose white is 0; save it again with black as 0")
    if bits < 16:
        return float(2**bits - 1)
    stated = tags.get(_SAMPLE_MAX_VALUE, tags.get(_MAX_VALUE, (65535,)))
    white = float(stated[0] if isinstance(stated, tuple) else stated)
    if 255 < white < 65535 and brightest <= white:
        return white
    if 0 < brightest < 4096:
        raise UnreadableImage(_UNKNOWN_WHITE)
    return 65535


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert the colours of an image with an ICC profile; one that cannot be read has no say."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        # Most photographs have an sRGB profile, whose conversion would only round.
        is_srgb = "srgb" in (source.profile.profile_description or "").lower()
        if space == "CMYK" and image.mode == "CMYK" or space == "RGB" and not is_srgb:
            image = image if image.mode == "CMYK" else image.convert("RGB")
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        pass
    return image.convert("RGB")


__all__ = [
    "MAX_FILE_BYTES",
    "PHOTO_FORMATS",
    "Photograph",
    "UnreadableImage",
    "errors_explained",
    "is_first_of_several",
    "open_image",
    "read_image",
    "read_opened",
    "read_rgb",
    "says_nothing",
    "to_rgb",
    "too_many_pixels",
    "turns_sides",
    "value_of_white",
    "warning_of",
]
