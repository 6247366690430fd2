"""Files that are no snapshot, or that a transfer has changed, are named for what they are, with what to do next."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import rdbkit
from rdbkit.snapshot.other_formats import describe, describe_damage
from rdbkit.storage.source import open_source

from ..rdb import FIXTURES, REPRESENTATIVE, Dribble, aux, key, rdb, string

TRANSFERS = FIXTURES / "transfers"
DUMP = (FIXTURES / "rich" / "redis-7.0.15.rdb").read_bytes()
VALKEY = (FIXTURES / "rich" / "valkey-9.1.2.rdb").read_bytes()
OLD = (FIXTURES / "rich" / "redis-2.8.24.rdb").read_bytes()
AZURE = b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?><Error><Code>BlobNotFound</Code><Message>x</Message></Error>'
TAR = b"dump.rdb".ljust(257, b"\0") + b"ustar\x0000" + bytes(300)


def error(data: bytes) -> rdbkit.RdbError:
    """What reading it ends with."""
    found = []
    for source in (io.BytesIO(data), Dribble(data, 7)):
        with pytest.raises(rdbkit.RdbError) as caught, rdbkit.open(source) as snapshot:
            list(snapshot)
        found.append(caught.value)
    assert found[0].message == found[1].message
    assert "\n" not in str(found[0])
    assert str(found[0]).startswith("<BytesIO>: ")
    return found[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((TRANSFERS / "lfs-pointer.rdb").read_bytes(), "a pointer of Git LFS, not the file itself: run `git lfs pull`"),
        ((TRANSFERS / "header-stripped.rdb").read_bytes(), "`REDIS` is missing in front of `0009`; put it there"),
        (DUMP[1:], "`R` is missing in front of `EDIS0010`"),
        (DUMP[4:], "`REDI` is missing in front of `S0010`"),
        (VALKEY[6:], "`VALKEY` is missing in front of `080`"),
        (VALKEY[2:], "`VA` is missing in front of `LKEY080`"),
        (DUMP[9:], "its header is missing"),
        (VALKEY[9:], "its header is missing"),
        (b"\xef\xbb\xbf" + DUMP, "a byte order mark, as text tools put it there, in front of `REDIS0010`; take it out"),
        (b"Warning: Using a password\n" + DUMP, "26 bytes (b'Warning: Using a password\\n') in front of `REDIS0010`"),
        (b"\xff\xfe" + DUMP.decode("latin-1").encode("utf-16-le"), "text in UTF-16, as PowerShell's > makes it"),
        (DUMP.decode("latin-1").encode("utf-16-be"), "text in UTF-16"),
        (base64.b64encode(DUMP), "in base64: decode it first"),
        (base64.encodebytes(gzip.compress(DUMP)), "in base64: decode it first"),
        (base64.b64encode(VALKEY), "in base64: decode it first"),
        (base64.b64encode(lzma.compress(DUMP)), "in base64: decode it first"),
        (base64.b64encode(bz2.compress(DUMP)), "in base64: decode it first"),
        (base64.b64encode(b"\x28\xb5\x2f\xfd" + DUMP), "in base64: decode it first"),
        (DUMP.hex().encode(), "in hexadecimal: decode it first"),
        (VALKEY.hex().encode(), "in hexadecimal: decode it first"),
        (b"00000000: 5245 4449 5330 3031 30fa 0972 6564 6973  REDIS0010..redis\n", "what xxd has printed"),
        (AZURE, "the error that a service answered instead of the file: BlobNotFound"),
        (b"<?xml version='1.0'?>\n<Error><Code>NoSuchKey</Code></Error>", "NoSuchKey"),
        (b"\n<!DOCTYPE html>\n<html><title>Sign in</title></html>", "a page of HTML or XML"),
        (b"<html><body>502 Bad Gateway</body></html>", "a page of HTML or XML"),
        (b'{"error":{"code":"AuthorizationFailed","message":"x"}}', "instead of the file: AuthorizationFailed"),
        (b'{"message": "Not Found"}', "JSON"),
        (b'[\n  {"a": 1}]', "JSON"),
        (b'{"db":0,"key":"a","type":"string","encoding":"raw","value":"1"}\n', "`rdbkit build` makes a snapshot"),
        (b"-NOAUTH Authentication required.\r\n", "NOAUTH Authentication required."),
        (b"-NOAUTH Authentication required.", "NOAUTH Authentication required."),
        (b"-ERR unknown command 'SYNC'\n", "ERR unknown command 'SYNC'"),
        (b"NOAUTH Authentication required.\n", "a server answered with an error, and that is all there is: NOAUTH"),
        (b"(error) WRONGPASS invalid username-password pair\n", "WRONGPASS invalid username-password pair"),
        (TAR, "a tar archive"),
        (b"PK\x03\x04aaaaaaaaa", "a zip archive"),
        (b"7z\xbc\xaf\x27\x1caaaaaa", "a 7z archive"),
        (b"\x04\x22\x4d\x18aaaaaaaa", "compressed with lz4"),
        (b"Salted__aaaaaaaa", "encrypted with openssl"),
        (b"age-encryption.org/v1\n-> X25519", "encrypted with age"),
        (b"SQLite format 3\0aaaa", "a database of SQLite"),
        (b"PAR1aaaaaaaaaaaaaa", "a Parquet file"),
        (b"\x7fELF\x02\x01\x01\0\0\0", "a program"),
        (b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n", "append-only"),
        (gzip.compress(DUMP).decode("utf-8", "replace").encode(), "bytes were replaced as by a conversion to UTF-8 text"),
        (gzip.compress(b"hello, world"), "it begins with b'hello, wo'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_snapshot_is_named(data: bytes, words: str) -> None:
    e = error(data)
    assert words in e.message
    assert "no RDB file" in e.message


@pytest.mark.parametrize("data", [DUMP, VALKEY, OLD], ids=["redis-7.0", "valkey-9.1", "redis-2.8"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.decode("utf-8", "replace").encode(), "bytes were replaced as by a conversion to UTF-8 text (EF BF BD)"),
        (lambda data: data.decode("latin-1").encode(), "it looks as if its bytes were converted to UTF-8 text"),
        (lambda data: bytes(byte if byte < 128 else 63 for byte in data), "a conversion to text has changed all bytes above 127"),
        (lambda data: bytes(byte & 127 for byte in data), "it looks as if a conversion to text has changed all bytes above 127"),
        (lambda data: data.replace(b"\n", b"\r\n"), "it looks as if a transfer in text mode made CR LF of every line feed"),
    ],
    ids=["replaced", "latin-1", "ascii", "seven-bits", "crlf"],
)  # fmt: skip
def test_what_a_transfer_has_changed_is_named(data: bytes, change: Callable[[bytes], bytes], words: str) -> None:
    e = error(change(data))
    assert words in e.message
    assert "transfer it again in binary mode" in e.message
    assert isinstance(e, rdbkit.CorruptError)


def test_line_feeds_in_values_tell_as_well() -> None:
    data = rdb(b"\xfe\0", *(key(b"k%d" % i, 0, string(b"a\nb%d" % i)) for i in range(10)), magic=b"REDIS0006")
    assert "CR LF of every line feed" in error(data.replace(b"\n", b"\r\n")).message
    # and where some have none, or few have any, nothing is said of it
    assert "CR LF" not in error(data.replace(b"\n", b"\r\n", 9)).message
    few = rdb(b"\xfe\0", *(key(b"k%d" % i, 0, string(b"a\nb%d" % i)) for i in range(3)), magic=b"REDIS0006")
    assert "CR LF" not in error(few.replace(b"\n", b"\r\n")).message


@pytest.mark.parametrize("tool", ["sed", "iconv"])
def test_what_may_be_undone_is_undone_by_the_command_that_is_named(tool: str, tmp_path: Path) -> None:
    changed = DUMP.replace(b"\n", b"\r\n") if tool == "sed" else DUMP.decode("latin-1").encode()
    command = next(part for part in error(changed).message.split("`") if part.startswith(tool))
    (tmp_path / "FILE").write_bytes(changed)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"})
    assert (tmp_path / "NEW").read_bytes() == DUMP


@pytest.mark.parametrize("data", [DUMP[5:], DUMP[2:], VALKEY[6:], b"\xef\xbb\xbf" + DUMP, b"Unable to use a TTY\r\n" + VALKEY])
def test_the_command_that_is_named_puts_the_header_right(data: bytes, tmp_path: Path) -> None:
    command = error(data).message.rsplit(": ", 1)[1]
    (tmp_path / "FILE").write_bytes(data)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / "NEW").read_bytes() in (DUMP, VALKEY)


def test_no_sound_or_merely_damaged_file_is_taken_for_one_that_was_changed_so() -> None:
    rng = random.Random(7)
    for name in sorted(REPRESENTATIVE):
        data = (FIXTURES / f"{name}.rdb").read_bytes()
        assert describe_damage(data[:4096], data) == ""
        for _ in range(20):
            damaged = bytearray(data)
            damaged[rng.randrange(9, len(data))] ^= 1 << rng.randrange(8)
            assert describe_damage(bytes(damaged[:4096]), bytes(damaged)) == ""
        for size in (9, 10, 40, 200):
            assert describe_damage(data[:size], data[:size]) == ""


def test_nothing_is_read_into_other_bytes() -> None:
    assert error(b"nonsense!").message == "no RDB file: it begins with b'nonsense!', not with REDIS or VALKEY and a version"
    rng = random.Random(9)
    for size in (0, 1, 8, 300, 4096):
        assert describe(b"\x01" + rng.randbytes(size)) == ""


def test_a_field_of_ten_bytes_in_a_sound_file_is_none_that_was_changed() -> None:
    data = rdb(aux(b"redis-bits", b"64"), b"\xfe\0", key(b"k", 0, string(b"\r\n" * 5)))
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        assert len(list(snapshot)) == 1
    assert "CR LF" not in error(data[:-12]).message


def test_nothing_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(gzip.compress(b"hello, world"))
    source = open_source(path)
    source.close()
    with pytest.raises(rdbkit.CorruptError):
        rdbkit.open(path)  # a file that stays open is a warning, and warnings are errors here
