"""Programs keep what image libraries say of odd files off the terminal."""

import ctypes
import logging
import warnings

from PIL import Image

_NOWHERE = logging.NullHandler()


def silence_decoders() -> None:
    """Stop decoders from printing what they find in files, for the rest of this process.

    The error of the file says in words for people what is wrong. libtiff prints by itself unless it is told not to,
    and Pillow warns and logs, which Python prints where nobody has set up logging. It also warns of images with more
    pixels than `Image.MAX_IMAGE_PIXELS`, as photographs of large cameras have, and refuses twice as many anyhow.

    It is for programs to call, once when they start, and for processes that were started to read images. Functions of
    this package leave the filters of warnings alone, since Python keeps one list of them for all threads, and whoever
    puts it back undoes what others did meanwhile.
    """
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    # Such as "Corrupt EXIF data": Pillow's words for what has no say in a score.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.getLogger("PIL").addHandler(_NOWHERE)
    try:
        # Looked up in Pillow's module and in the libraries that it was linked with, wherever they lie.
        set_handler = ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler
    except (OSError, AttributeError):
        return  # a Pillow that has no libtiff, or hides it
    set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
    set_handler(None)


__all__ = ["silence_decoders"]
