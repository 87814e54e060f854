"""Several hundred odd image files: broken, enormous, rare and hostile ones, with what becomes of each.

`write_corpus` writes them to a folder; the same seed gives the same files. `Case.outcome` is `SCORE`, a part of the
message, or None where either may happen, as with damaged bytes.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

SCORE = "score"

Writer = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One file of the corpus.

    Attributes:
        group: what kind of oddity it is, in words for the documents.
        name: of the file, as bytes.
        write: makes it at a path.
        outcome: `SCORE`, a part of the message that it gets, or None where either is right.
    """

    group: str
    name: bytes
    write: Writer
    outcome: str | None


def photograph(width: int = 96, height: int = 64, *, seed: int = 0) -> Image.Image:
    """Coarse and fine noise in colours, brighter to the right."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 200, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int64)
    pixels = pixels + rng.integers(0, 30, (height, width, 3)) + np.linspace(0, 25, width, dtype=int)[:, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def content(data: bytes) -> Writer:
    return lambda path: path.write_bytes(data)


_FORMATS = {
    "jpg": ("JPEG", {"quality": 90}),
    "progressive.jpg": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "lossless.webp": ("WEBP", {"lossless": True}),
    "avif": ("AVIF", {}),
    "tif": ("TIFF", {}),
    "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}),
    "jpeg.tif": ("TIFF", {"compression": "jpeg"}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "jp2": ("JPEG2000", {}),
    "ppm": ("PPM", {}),
    "tga": ("TGA", {"compression": "tga_rle"}),
}


def _in_format(image: Image.Image, suffix: str, **more: object) -> bytes:
    image_format, options = _FORMATS[suffix]
    return encoded(image, image_format, **options, **more)


def _whole_and_cut() -> Iterator[Case]:
    for suffix in _FORMATS:
        data = _in_format(photograph(), suffix)
        yield Case("each format", f"whole.{suffix}".encode(), content(data), SCORE)
        yield Case("a name with the ending of another format", f"renamed-{suffix}.jpg".encode(), content(data), SCORE)
        for tenth in range(1, 10):
            cut = data[: len(data) * tenth // 10]
            # Interlaced, progressive and tiled files may be complete enough, and a cut GIF or WebP has no end mark.
            yield Case("cut short", f"cut-{tenth}0.{suffix}".encode(), content(cut), None)
        zeros = data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
        outcome = "cut short" if suffix.endswith("jpg") else None
        yield Case("the second half zeros", f"half-zeros.{suffix}".encode(), content(zeros), outcome)
        yield Case("nothing but zeros", f"zeros.{suffix}".encode(), content(bytes(len(data))), "zeros")
        yield Case("zero bytes", f"empty.{suffix}".encode(), content(b""), "the file is empty")


def _damaged(number: int) -> Iterator[Case]:
    rng = np.random.default_rng(7)
    for suffix in _FORMATS:
        data = _in_format(photograph(seed=1), suffix)
        for index in range(number):
            pixels = np.frombuffer(data, dtype=np.uint8).copy()
            count = int(rng.integers(1, 6))
            places = rng.integers(12, len(pixels), count)
            pixels[places] = rng.integers(0, 256, count)
            name = f"changed-{index}.{suffix}".encode()
            yield Case("a few bytes changed", name, content(pixels.tobytes()), None)
    avif = _in_format(photograph(), "avif")
    place = avif.index(b"mdat") + 8
    changed = avif[:place] + bytes([avif[place] ^ 0xFF]) + avif[place + 1 :]
    yield Case("a few bytes changed", b"first-of-mdat.avif", content(changed), None)


def _modes() -> Iterator[Case]:
    image = photograph()
    alpha = Image.linear_gradient("L").resize(image.size)
    grey = image.convert("L")
    deep = np.asarray(grey).astype(np.uint16) * 257
    clear = image.copy()
    clear.putalpha(alpha)
    grey_clear = Image.merge("LA", (grey, alpha))
    palette = image.quantize(32)
    pictures = {
        "1-bit": (image.convert("1"), ("png", "tif", "bmp", "gif")),
        "grey": (grey, ("jpg", "png", "webp", "avif", "tif", "gif", "bmp", "jp2", "tga")),
        "grey with alpha": (grey_clear, ("png", "tif", "webp", "avif", "jp2", "tga")),
        "palette": (palette, ("png", "tif", "gif", "bmp")),
        "transparent": (clear, ("png", "tif", "webp", "avif", "jp2", "tga", "bmp")),
        "CMYK": (image.convert("CMYK"), ("jpg", "tif")),
        "YCbCr": (image.convert("YCbCr"), ("jpg",)),
        "16-bit grey": (Image.fromarray(deep), ("png", "tif", "lzw.tif", "jp2")),
    }
    for mode, (picture, suffixes) in pictures.items():
        for suffix in suffixes:
            data = _in_format(picture, suffix)
            yield Case("each mode and bit depth", f"{mode}.{suffix}".encode(), content(data), SCORE)
    for colour in (3, bytes([255, 128, 0] * 8)):
        data = encoded(palette, "PNG", transparency=colour)
        name = f"transparent palette {type(colour).__name__}.png".encode()
        yield Case("each mode and bit depth", name, content(data), SCORE)
    data = encoded(image, "PNG", transparency=(1, 2, 3))
    yield Case("each mode and bit depth", b"transparent colour.png", content(data), SCORE)
    # What Pillow cannot write, by hand.
    pixels = np.asarray(image)
    rgb16 = (pixels.astype(">u2") * 257).reshape(64, -1)
    yield Case("each mode and bit depth", b"rgb16.png", content(_png(96, 64, rgb16.tobytes(), bits=16, kind=2)), SCORE)
    yield Case("each mode and bit depth", b"rgb16.tif", content(_tiff(pixels.astype("<u2") * 257)), SCORE)
    pgm = b"P5 96 64 65535\n" + deep.astype(">u2").tobytes()
    yield Case("each mode and bit depth", b"16-bit.pgm", content(pgm), SCORE)
    float_tiff = encoded(Image.fromarray(np.asarray(grey) / np.float32(255)), "TIFF")
    yield Case("floating-point pixels", b"float.tif", content(float_tiff), "no defined white")
    not_numbers = Image.fromarray(np.full((64, 96), np.nan, dtype=np.float32))
    yield Case("floating-point pixels", b"nan.tif", content(encoded(not_numbers, "TIFF")), "no defined white")
    integers = Image.fromarray(np.asarray(grey).astype(np.int32) << 20)
    yield Case("32-bit integers", b"int32.tif", content(encoded(integers, "TIFF")), "no defined white")
    twelve = np.asarray(grey).astype("<u2") * 16
    yield Case("12 bits in 16", b"12 in 16.tif", content(_tiff(twelve)), "white is not known")
    yield Case("12 bits in 16", b"12 in 16 rgb.tif", content(_tiff(pixels.astype("<u2") * 16)), "white is not known")
    yield Case("12 bits in 16", b"12 in 16 said.tif", content(_tiff(twelve, extra=[(281, 3, 1, 4095)])), SCORE)
    negative = encoded(Image.fromarray(deep), "TIFF", tiffinfo={262: 0})
    yield Case("16-bit negative", b"negative.tif", content(negative), "negative")
    lab = encoded(ImageCms_lab(image), "TIFF")
    yield Case("CIELAB", b"lab.tif", content(lab), None)


def ImageCms_lab(image: Image.Image) -> Image.Image:  # noqa: N802
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    return ImageCms.applyTransform(image, transform)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, rows: bytes, *, bits: int = 8, kind: int = 0, before: bytes = b"") -> bytes:
    stride = len(rows) // height if height else 0
    raw = b"".join(b"\0" + rows[row * stride : (row + 1) * stride] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = (_chunk(b"IHDR", header), before, _chunk(b"IDAT", zlib.compress(raw)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _png_of_zeros(width: int, height: int) -> bytes:
    """A black 1-bit PNG, of which the first thousand rows are there."""
    data = zlib.compress(bytes(((width + 7) // 8 + 1) * min(height, 1000)))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _tiff(pixels: np.ndarray, *, extra: list[tuple[int, int, int, int]] | None = None) -> bytes:
    """An uncompressed little-endian TIFF of 16-bit pixels, `(H, W)` or `(H, W, 3)`."""
    height, width = pixels.shape[:2]
    bands = 1 if pixels.ndim == 2 else pixels.shape[2]
    data = pixels.astype("<u2").tobytes()
    bits_at = 8 + len(data)
    bits = (258, 3, bands, 16 if bands == 1 else bits_at)
    tags = [(256, 4, 1, width), (257, 4, 1, height), bits, (259, 3, 1, 1), (262, 3, 1, 1 if bands == 1 else 2)]
    tags += [(273, 4, 1, 8), (277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, len(data)), *(extra or [])]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", bits_at + 8) + data + struct.pack("<4H", 16, 16, 16, 0) + directory


def _orientations_and_profiles() -> Iterator[Case]:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        for suffix in ("jpg", "png", "webp", "tif", "avif"):
            data = _in_format(photograph(), suffix, exif=exif)
            yield Case("each EXIF orientation", f"orientation-{orientation}.{suffix}".encode(), content(data), SCORE)
    profiles = {
        "srgb": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "wide gamut": wide_gamut_profile(),
        "garbage": b"no profile" * 30,
    }
    for name, profile in profiles.items():
        for suffix in ("jpg", "png", "webp", "tif", "avif"):
            data = _in_format(photograph(), suffix, icc_profile=profile)
            yield Case("colour profiles", f"{name}.{suffix}".encode(), content(data), SCORE)
    cmyk = _in_format(photograph().convert("CMYK"), "jpg", icc_profile=wide_gamut_profile())
    yield Case("colour profiles", b"of RGB in CMYK.jpg", content(cmyk), SCORE)


def wide_gamut_profile() -> bytes:
    """An ICC profile of matrix and curve with the primaries of Adobe RGB (1998), adapted to D50, and its gamma."""

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    text = b"wide gamut"
    description = b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(1 + 8 + 3 + 67)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, 563)  # 2.2 in eighths of bytes
    tags = {
        b"desc": description,
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.60974, 0.31111, 0.01947),
        b"gXYZ": xyz(0.20528, 0.62567, 0.06087),
        b"bXYZ": xyz(0.14919, 0.06322, 0.74457),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
        b"cprt": b"text" + bytes(4) + b"none\0",
    }
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", at + len(body), bytes(4), 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">3i", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
    return header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + table + body


def _frames() -> Iterator[Case]:
    frames = [photograph(seed=seed) for seed in range(3)]
    for suffix in ("gif", "webp", "png", "tif", "avif"):
        data = _in_format(frames[0], suffix, save_all=True, append_images=frames[1:])
        yield Case("several frames", f"animated.{suffix}".encode(), content(data), SCORE)
    mpo = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    yield Case("several frames", b"two views.mpo", content(mpo), SCORE)
    yield Case("several frames", b"two views.jpg", content(mpo), SCORE)
    many = [frame.resize((16, 16)) for frame in frames] * 700
    yield Case(
        "thousands of frames",
        b"many.gif",
        content(encoded(many[0], "GIF", save_all=True, append_images=many[1:])),
        SCORE,
    )


def _sizes() -> Iterator[Case]:
    for width, height in ((1, 1), (1, 7), (2, 513), (10_000, 1), (1, 10_000)):
        yield Case(
            "tiny and narrow",
            f"{width}x{height}.png".encode(),
            content(_in_format(photograph(width, height), "png")),
            SCORE,
        )
    for width, height in ((1_000_000, 1), (1, 1_000_000), (3_000_000, 1)):
        yield Case(
            "far too narrow",
            f"{width}x{height}.png".encode(),
            content(_png_of_zeros(width, height)),
            "too long and narrow",
        )
    for width, height in ((30_000, 30_000), (60_000, 60_000), (200_000, 1_000)):
        yield Case(
            "bombs of pixels",
            f"{width}x{height}.png".encode(),
            content(_png_of_zeros(width, height)),
            "more pixels than the limit",
        )
    head = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
    yield Case("bombs of pixels", b"claims.bmp", content(head), "more pixels than the limit")
    gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    yield Case("bombs of pixels", b"claims.gif", content(gif + b"\x2c" + bytes(8) + b"\0\x02\0;"), None)
    zero = _png(0, 0, b"")
    yield Case("no pixels", b"0x0.png", content(zero), "")
    yield Case("no pixels", b"0x0.pgm", content(b"P5 0 0 255\n"), "")
    text = zlib.compress(bytes(64 << 20))
    for kind in (b"zTXt", b"iTXt", b"iCCP"):
        extra = b"comment\0\1\0\0\0" if kind == b"iTXt" else b"comment\0\0"
        data = _png(96, 64, bytes(96 * 64), before=_chunk(kind, extra + text))
        yield Case("bombs of metadata", f"{kind.decode()}.png".encode(), content(data), None)
    info = PngImagePlugin.PngInfo()
    for index in range(3000):
        info.add_text(f"key {index}", "x" * 100)
    yield Case("bombs of metadata", b"many texts.png", content(encoded(photograph(), "PNG", pnginfo=info)), SCORE)


def _jpeg_without_scan() -> bytes:
    data = _in_format(photograph(), "jpg")
    scan = data.index(b"\xff\xda")
    [length] = struct.unpack(">H", data[scan + 2 : scan + 4])
    return data[: scan + 2 + length] + b"\xff\xd9"


def _structures() -> Iterator[Case]:
    yield Case("no pixels in a JPEG", b"no scan.jpg", content(_jpeg_without_scan()), "no pixels")
    padded = _in_format(photograph(), "jpg") + bytes(5000)
    yield Case("zeros behind the end of a JPEG", b"padded.jpg", content(padded), SCORE)
    data = _in_format(photograph(640, 480), "jpg")
    scan = data.index(b"\xff\xda")
    yield Case(
        "hardly any pixels in a JPEG", b"little scan.jpg", content(data[: scan + 60] + b"\xff\xd9"), "cut short"
    )
    grey = np.asarray(photograph().convert("L")).astype("<u2") * 257
    absurd = {
        "strip beyond the end": (273, 4, 1, 2**31),
        "strip of 4 GB": (279, 4, 1, 2**32 - 1),
        "a billion strips": (273, 4, 10**9, 8),
        "65535 samples": (277, 3, 1, 65535),
        "no such compression": (259, 3, 1, 65000),
        "compression of JPEG": (259, 3, 1, 7),
        "compression of zlib": (259, 3, 1, 8),
        "compression of LZW": (259, 3, 1, 5),
        "0 wide": (256, 4, 1, 0),
        "2 billion wide": (256, 4, 1, 2**31),
        "a long tag": (700, 1, 2**32 - 1, 0),
        "a type that does not exist": (305, 99, 1, 0),
        "a width that is a text": (256, 2, 4, 0),
    }
    for name, tag in absurd.items():
        whole = _tiff(grey)
        at = struct.unpack("<I", whole[4:8])[0]
        head, entries = whole[:at], [whole[at + 2 + 12 * n :][:12] for n in range(9)]
        kept = [entry for entry in entries if struct.unpack("<H", entry[:2])[0] != tag[0]]
        directory = sorted([*kept, struct.pack("<HHII", *tag)], key=lambda entry: struct.unpack("<H", entry[:2]))
        data = head + struct.pack("<H", len(directory)) + b"".join(directory) + bytes(4)
        yield Case("absurd TIFF tags", f"{name}.tif".encode(), content(data), None)
    whole = _tiff(grey)
    at = struct.unpack("<I", whole[4:8])[0]
    loop = whole[:-4] + struct.pack("<I", at)
    yield Case("absurd TIFF tags", b"directory that follows itself.tif", content(loop), SCORE)
    kinds = {
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", "PostScript"),
        "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        "html": (b"<!DOCTYPE html><html></html>", "web page"),
        "zip": (b"PK\x03\x04" + bytes(30), "zip"),
        "psd": (b"8BPS\0\1" + bytes(30), "Photoshop"),
        "wmf": (b"\xd7\xcd\xc6\x9a" + bytes(30), "metafile"),
        "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        "mp4": (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", "video"),
        "jxl": (b"\xff\x0a" + bytes(30), "JPEG XL"),
        "txt": (b"This is not an image at all.\n" * 3, "not an image"),
        "random": (np.random.default_rng(3).bytes(3000), "not an image"),
    }
    for kind, (data, message) in kinds.items():
        yield Case("files of another kind", f"{kind}.jpg".encode(), content(data), message)
    other = {
        "ICO": "ico",
        "PCX": "pcx",
        "SGI": "sgi",
        "DDS": "dds",
        "ICNS": "icns",
        "QOI": "qoi",
        "IM": "im",
        "EPS": "eps",
    }
    for image_format, suffix in other.items():
        size = (64, 64) if image_format in ("ICO", "ICNS") else (96, 64)
        data = encoded(photograph(*size), image_format)
        yield Case("formats that are not read", f"{suffix}-named.jpg".encode(), content(data), "")


def _names() -> Iterator[Case]:
    data = _in_format(photograph(), "png")
    names = [
        b"\xff\xfe not UTF-8.png",
        b"latin1 caf\xe9.png",
        "ünïcödé 写真 📷.png".encode(),
        b"new\nline.png",
        b"tab\tin it.png",
        b"carriage\rreturn.png",
        b"escape \x1b[31m red.png",
        b"quote \" and ' it.png",
        b"comma, semicolon; it.png",
        b"=cmd|'calc'!A1.png",
        b"+1.png",
        b"-1.png",
        b"@sum.png",
        b"'apostrophe.png",
        b" space in front and behind .png",
        b"[bold]markup[red].png",
        b"percent %ff%41.png",
        b"file:it.png",
        b"back\\slash.png",
        b"x" * 240 + b".png",
    ]
    for name in names:
        yield Case("names in any bytes", name, content(data), SCORE)


def _no_files() -> Iterator[Case]:
    yield Case("not a file", b"pipe.jpg", os.mkfifo, "named pipe")
    yield Case("not a file", b"folder.jpg", lambda path: path.mkdir(), "folder")
    yield Case("not a file", b"device.jpg", lambda path: path.symlink_to("/dev/zero"), "device")
    yield Case("links", b"gone.jpg", lambda path: path.symlink_to("nowhere.jpg"), "no such file")
    yield Case("links", b"circle.jpg", lambda path: path.symlink_to("circle.jpg"), "symbolic links")
    yield Case("links", b"link.jpg", lambda path: path.symlink_to("whole.jpg"), SCORE)


def cases(*, changed: int = 8) -> list[Case]:
    """All cases; `changed` files of each format have a few bytes changed."""
    groups = (
        _whole_and_cut(),
        _modes(),
        _orientations_and_profiles(),
        _frames(),
        _sizes(),
        _structures(),
        _names(),
        _no_files(),
        _damaged(changed),
    )
    return [case for group in groups for case in group]


def write_corpus(folder: Path, *, changed: int = 8) -> list[tuple[Case, Path]]:
    """Write the files of all cases to an empty folder."""
    written = []
    for case in cases(changed=changed):
        path = folder / os.fsdecode(case.name)
        case.write(path)
        written.append((case, path))
    return written
