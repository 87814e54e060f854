"""Names of files: any bytes go to a table and come back."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_metaqap.data.names import (
    from_portable_name,
    from_spreadsheet_text,
    portable_name,
    shown_name,
    spreadsheet_text,
)


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_any_bytes_survive_both_ways_of_writing_them(name):
    text = os.fsdecode(name)
    written = spreadsheet_text(portable_name(text))
    written.encode()
    assert os.fsencode(from_portable_name(from_spreadsheet_text(written))) == name
    assert not written.startswith(("=", "+", "-", "@", "\t", "\r"))
    shown_name(text).encode()
    assert shown_name(text).isprintable()


@pytest.mark.parametrize("name", ["photo.jpg", "a b/ü (1).jpg", "写真 📷.png", "50 %.jpg"])
def test_common_names_stay_as_they_are(name):
    assert spreadsheet_text(portable_name(name)) == shown_name(name) == name
