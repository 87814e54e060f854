"""Names of files, which may hold any bytes: how they are written to tables, read back, and shown to people.

Python holds bytes that are not UTF-8 as lone surrogates (PEP 383), which no UTF-8 file can hold. Nothing here imports
anything heavy.
"""

import os
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ..errors import printable

# RFC 8089; here also for relative paths.
_SCHEME = "file:"

# A cell that begins so is a formula for spreadsheets, or becomes one when they drop what stands in front of it. The
# apostrophe is in here so that the one that is put in front can be taken away again.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def portable_name(name: str) -> str:
    """A name as text that every program can read.

    One that is not UTF-8, or that begins with `file:`, becomes `file:` and its bytes percent-encoded, as in
    `file:caf%E9.jpg`; all others stay as they are. `from_portable_name` undoes it.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        pass
    else:
        if not name.startswith(_SCHEME):
            return name
    return _SCHEME + quote_from_bytes(os.fsencode(name))


def from_portable_name(text: str) -> str:
    """The name that `portable_name` was given."""
    return os.fsdecode(unquote_to_bytes(text.removeprefix(_SCHEME))) if text.startswith(_SCHEME) else text


def spreadsheet_text(text: str) -> str:
    """Text of a CSV cell that no spreadsheet takes for a formula.

    An apostrophe is put in front of text that begins with `=`, `+`, `-`, `@`, a tab, a line break or an apostrophe.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def from_spreadsheet_text(cell: str) -> str:
    """The text that `spreadsheet_text` was given."""
    return cell.removeprefix("'")


def shown_name(name: str) -> str:
    """A name for people, see `printable`."""
    return printable(name)


__all__ = ["from_portable_name", "from_spreadsheet_text", "portable_name", "shown_name", "spreadsheet_text"]
