"""What waits until it is known what becomes of it, and where a damaged value stands."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import pytest

import rdbkit
from rdbkit.snapshot import large
from rdbkit.snapshot.large import Spool, count_elements, feed, has_wanted_size, located

from ..rdb import key, length, rdb, string

SET = key(b"s", 2, length(40) + b"".join(string(b"member %d" % i) for i in range(40)))


def test_a_spool_is_in_memory_and_then_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "HELD_BYTES", 10)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    with Spool([b"ten bytes", b"."]) as spool:
        assert b"".join(spool.pieces()) == b"ten bytes."
    with Spool() as spool, pytest.raises(FileNotFoundError):
        spool.write(b"eleven bytes")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Spool([b"one\n", b"two\n", b"three"]) as spool:
        assert spool.size == 13
        assert list(spool.pieces(5)) == [b"one\nt", b"wo\nth", b"ree"]
        assert list(spool.lines()) == [b"one\n", b"two\n", b"three"]
        assert spool.size == 13
    assert not list(tmp_path.iterdir())


def test_a_spool_is_gone_where_its_pieces_end_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Spool] = []
    close = Spool.close

    def noted(spool: Spool) -> None:
        closed.append(spool)
        close(spool)

    monkeypatch.setattr(Spool, "close", noted)
    with rdbkit.open(io.BytesIO(rdb(SET)[:200]), block_size=16) as snapshot, pytest.raises(rdbkit.TruncatedError):
        Spool(next(iter(snapshot)).chunks())
    assert len(closed) == 1


def test_elements_are_counted_and_pieces_shown() -> None:
    pieces: list[bytes] = []
    with rdbkit.open(io.BytesIO(rdb(SET)), block_size=16) as snapshot:
        record = next(iter(snapshot))
        size = record.size
        assert size is None
        assert count_elements(record, pieces.append) == 40
        assert len(pieces) > 1
        assert b"".join(pieces) == SET[3:].removeprefix(b"s")
        assert has_wanted_size(record, None)
        assert has_wanted_size(record, rdbkit.Selection(size=(len(SET), None)))
        assert not has_wanted_size(record, rdbkit.Selection(size=(None, len(SET) - 1)))


def test_an_error_of_decoding_has_its_place_and_keeps_that_which_it_has() -> None:
    file = rdb(key(b"other", 0, string(b"x")), key(b"z", 3, b"\x0a" + b"".join(string(b"member") + b"\x03abc" for _ in range(10))))
    with rdbkit.open(io.BytesIO(file), block_size=16) as snapshot:
        _, record = iter(snapshot)
        with pytest.raises(rdbkit.CorruptError) as error:
            raise record.add_location(rdbkit.CorruptError("damaged"))
        assert (error.value.key, error.value.offset) == (b"z", record.offset)
        with pytest.raises(rdbkit.CorruptError) as error, located(record):
            raise rdbkit.CorruptError("damaged", source="elsewhere", offset=1)
        assert (error.value.source, error.value.offset, error.value.key) == ("elsewhere", 1, None)


class Half:
    """Takes eight bytes as a value."""

    need = 0
    paused = False
    done = False

    def feed(self, buf: bytes, pos: int, sink: object) -> int:
        self.done = len(buf) - pos >= 8
        return pos + 8 if self.done else pos


def test_a_value_has_to_end_where_its_parts_do() -> None:
    with rdbkit.open(io.BytesIO(rdb(SET)), block_size=16) as snapshot:
        record = next(iter(snapshot))
        with pytest.raises(rdbkit.CorruptError, match="do not end where the value ends") as error:
            for _ in feed(record, Half()):
                pass
        assert error.value.key == b"s"
