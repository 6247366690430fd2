"""Strings and scores as JSON text, held to what the standard library writes."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st
from librt.strings import BytesWriter

from rdbkit.passes.json_text import json_text, write_text

#: Bytes at the edges of those that stand in JSON text as they are.
ODD = [0, 0x1F, 0x20, 0x21, 0x22, 0x23, 0x5B, 0x5C, 0x5D, 0x7F, 0x80, 0xA2, 0xC3, 0xDC, 0xFF]


def written(data: bytes, before: bytes, behind: bytes) -> bytes:
    """The text of `data`, which stands between two others, behind what was written before."""
    out = BytesWriter()
    out.write(b"...")
    is_string = write_text(out, before + data + behind, len(before), len(before) + len(data))
    text = out.getvalue()
    assert text[:3] == b"..."
    assert is_string == (text[3:4] == b'"')
    return text[3:]


def test_each_byte_at_each_place() -> None:
    for size in range(20):
        for at in range(size):
            for odd in ODD:
                data = b"a" * at + bytes([odd]) + b"z" * (size - at - 1)
                assert written(data, b"\xff", b"") == written(data, b"", b"\0" * 9) == json_text(data)


@given(
    st.one_of(st.text().map(str.encode), st.lists(st.sampled_from(ODD), max_size=40).map(bytes), st.binary(max_size=40)),
    st.binary(),
)
@example(b'{"a":"b\\n"}' * 20, b"")
def test_any_bytes(data: bytes, around: bytes) -> None:
    text = written(data, around, around)
    assert text == json_text(data)
    try:
        assert json.loads(text) == data.decode()
    except UnicodeDecodeError:
        assert text.startswith(b'{"base64"')
