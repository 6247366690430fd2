"""Files of Redis Enterprise, and what only other servers write: every verb reads the hints, and says of the rest what it is."""

from __future__ import annotations

import gzip
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import rdbkit
from rdbkit.cli import cli
from rdbkit.format.constants import NAMED_OPCODES, NAMED_TYPES
from rdbkit.format.decode import FileTypes
from rdbkit.operations.check import BLOCKER, CANNOT, LOSSLESS, WARNING, check
from rdbkit.passes.salvage import beginnings, next_beginning
from rdbkit.targets.target import target_names

from ..rdb import CRC, FIXTURES, aux, key, length, rdb, string

FILE = FIXTURES / "enterprise" / "ram-lru.rdb"
CONTENT = {b"a": b"b", b"e": b"f", b"c": b"d"}
EXPIRY = b"\xfc" + (2_000_000_000_000).to_bytes(8, "little")
EDGES = (0, 63, 64, 16383, 16384, (1 << 32) - 1, 1 << 32, (1 << 64) - 1)


def hinted(*opcodes: int, behind_expiry: bool = False, magic: bytes = b"REDIS0009") -> bytes:
    """Keys with these hints in front of each, with every form of a number."""
    parts = [aux(b"redis-ver", b"7.4.2"), b"\xfe\0\xfb" + length(len(EDGES)) + length(len(EDGES))]
    for i, number in enumerate(EDGES):
        hints = b"".join(bytes([opcode]) + length(number) for opcode in opcodes)
        front = EXPIRY + hints if behind_expiry else hints + EXPIRY
        parts.append(front + key(b"k%d" % i, 0, string(b"v%d" % i)))
    return rdb(*parts, magic=magic)


MADE = {
    "lru": hinted(107),
    "slot": hinted(121),
    "both": hinted(121, 107),
    "lru behind the expiry": hinted(107, behind_expiry=True),
    "slot behind the expiry": hinted(121, behind_expiry=True),
    "both behind the expiry": hinted(107, 121, behind_expiry=True),
}
SECRET = b"0123456789abcdef"
WANTED = {b"k%d" % i: b"v%d" % i for i in range(len(EDGES))}
made = pytest.mark.parametrize("name", MADE)


@pytest.fixture
def path(name: str, tmp_path: Path) -> Path:
    path = tmp_path / "in.rdb"
    path.write_bytes(MADE[name])
    return path


def content(src: Path | io.BytesIO) -> dict[bytes, object]:
    with rdbkit.open(src) as snapshot:
        return {record.key: record.value for record in snapshot}


def hints(src: Path | io.BytesIO) -> list[tuple[int, int]]:
    with rdbkit.open(src) as snapshot:
        return [(e.opcode, e.number) for e in snapshot.events() if isinstance(e, rdbkit.EnterpriseHint)]


def test_the_file_of_a_real_server_has_three_strings() -> None:
    assert content(FILE) == CONTENT
    assert hints(FILE) == [(107, 67), (107, 92), (107, 50)]
    with rdbkit.open(FILE) as snapshot:
        report = rdbkit.info(snapshot)
    assert report.other == {"EnterpriseHint": 3}
    loads = {row.target: (row.loads, row.why) for row in report.loads_as_is}
    assert loads["redis-7.4"] == ("no", "hints of Redis Enterprise are unknown to it")
    assert loads["azure-managed"] == ("yes", ""), "its own exports are ready for importing"
    assert loads["azure-enterprise"][0] == "no", "it is of a newer Redis"


@made
def test_the_numbers_are_read_in_every_form(name: str, path: Path) -> None:
    assert content(path) == WANTED
    found = hints(path)
    for opcode in {opcode for opcode, _ in found}:
        assert [number for other, number in found if other == opcode] == list(EDGES)


@made
@pytest.mark.parametrize("target", [name for name in target_names() if name != "azure-managed"])
def test_it_is_written_for_every_target_without_hints(name: str, path: Path, target: str) -> None:
    for file, wanted in ((path, WANTED), (FILE, CONTENT)):
        report = check(file, target)
        assert report.verdict == LOSSLESS
        (finding,) = (f for f in report.findings if f.code == "RDB105")
        # it runs Redis Enterprise, but of an older Redis than the file is from
        assert finding.severity == (WARNING if target == "azure-enterprise" else BLOCKER)
        assert finding.count == len(hints(file))
        out = io.BytesIO()
        done = rdbkit.convert(file, out, target=target)
        assert (done.ledger.counts, done.ledger.notes["enterprise-hint"]) == ({}, finding.count)
        assert not done.identical
        out.seek(0)
        assert hints(out) == []
        out.seek(0)
        assert content(out) == wanted
        assert check(io.BytesIO(out.getvalue()), target).verdict == "as-it-is"


# -- exports of the service itself

#: A field that expires: in RDB 12 alone.
EXPIRING = key(b"h", 24, (4_102_444_800_000).to_bytes(8, "little") + length(1) + length(1) + string(b"f") + string(b"v"))


def exported(version: bytes = b"7.4.2", magic: bytes = b"REDIS0012", *more: bytes) -> bytes:
    slot = b"y" + length(99)
    keys = [slot + b"k" + length(5) + EXPIRY + key(b"a", 0, string(b"v")), slot + b"k" + length(7) + EXPIRING]
    return rdb(aux(b"redis-ver", version), b"\xfe\0\xfb\2\1", *(keys if magic > b"REDIS0011" else keys[:1]), *more, magic=magic)


@made
@pytest.mark.parametrize("pack", [bytes, lambda data: gzip.compress(data, mtime=0)], ids=["plain", "gzip"])
def test_an_export_of_the_service_goes_in_as_it_is(name: str, path: Path, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    for data in (MADE[name], FILE.read_bytes(), exported()):
        path.write_bytes(pack(data))
        report = check(path, "azure-managed", deep=True)
        assert (report.verdict, [(f.code, f.severity) for f in report.findings]) == ("as-it-is", [("RDB105", "note")])
        assert report.findings[0].count == len(hints(path)) > 0
        assert "ready for importing" in report.findings[0].why + report.findings[0].source
        assert check(io.BytesIO(path.read_bytes()), "azure-managed", deep=True).verdict == "as-it-is"
        assert rdbkit.plan([path], "azure-managed").files[0].verdict == "as-it-is"
        out = io.BytesIO()
        for jobs in (1, 2):
            out = io.BytesIO()
            done = rdbkit.convert(path, out, target="azure-managed", jobs=jobs)
            assert (done.ledger.counts, done.ledger.notes, done.header) == ({}, {}, done.source)
            assert sorted(hints(io.BytesIO(out.getvalue()))) == sorted(hints(path))
            if "behind" not in name or data != MADE[name]:  # what stands behind an expiry goes in front of it
                assert out.getvalue() == data
        assert check(io.BytesIO(out.getvalue()), "azure-managed", deep=True).verdict == "as-it-is"


def test_what_is_changed_is_no_export_any_more(tmp_path: Path) -> None:
    path = tmp_path / "in.rdb"
    path.write_bytes(exported())
    out = io.BytesIO()
    with pytest.raises(rdbkit.LossError, match="field-expiry 1"):
        rdbkit.convert(path, out, target="azure-managed", edits=rdbkit.Edits(rename_prefix=[("a", "b")]))
    out = io.BytesIO()
    done = rdbkit.convert(path, out, target="azure-managed", selection=rdbkit.Selection(types=["string"]))
    assert (done.header.version, hints(io.BytesIO(out.getvalue()))) == (11, [])
    # nor what has to be moved
    path.write_bytes(exported(b"7.4.2", b"REDIS0012", b"\xfe\1", key(b"c", 0, string(b"v"))))
    report = check(path, "azure-managed")
    assert {f.code: f.severity for f in report.findings} == {"RDB105": WARNING, "RDB201": "loss", "RDB301": BLOCKER}
    of_pipe = check(io.BytesIO(path.read_bytes()), "azure-managed", deep=True)
    assert any(what.startswith("what else is lost where keys are moved") for what in of_pipe.not_looked_at)
    with rdbkit.open(path) as snapshot:
        assert rdbkit.info(snapshot).rdb_version == 12


@pytest.mark.parametrize(
    ("target", "writer", "magic", "verdict"),
    [
        ("azure-managed", b"7.4.2", b"REDIS0012", "as-it-is"),
        ("azure-managed", b"7.2.4", b"REDIS0011", "as-it-is"),
        ("azure-managed", b"6.0.1", b"REDIS0009", "as-it-is"),
        ("azure-managed", b"8.0.1", b"REDIS0012", "lossy"),  # exports of a newer Redis cannot be imported
        ("azure-managed", b"7.4.2", b"REDIS0013", "lossy"),  # nobody knows that it loads this
        ("azure-managed", b"", b"REDIS0011", "lossless"),
        ("azure-enterprise", b"7.2.4", b"REDIS0011", "as-it-is"),
        ("azure-enterprise", b"7.4.2", b"REDIS0012", "lossy"),
        ("azure-premium", b"6.0.1", b"REDIS0009", "lossless"),
        ("redis-7.4", b"7.4.2", b"REDIS0012", "lossless"),
    ],
)
def test_which_exports_go_in(target: str, writer: bytes, magic: bytes, verdict: str) -> None:
    assert check(io.BytesIO(exported(writer, magic)), target).verdict == verdict


@pytest.mark.parametrize("version", ["7.2", "valkey-8.0"])
@pytest.mark.parametrize("magic", [b"REDIS0011", b"REDIS0012"])
def test_the_command_is_for_the_engine_that_was_looked_at(version: str, magic: bytes, tmp_path: Path) -> None:
    """Of which the file is no export, although it is one of the engine that runs there otherwise."""
    path, made = tmp_path / "in.rdb", tmp_path / "out.rdb"
    path.write_bytes(exported(b"7.4.2", magic))
    report = check(path, rdbkit.find_target("azure-managed").with_engine(version))
    assert report.verdict != "as-it-is"
    assert f"--redis-version {version}" in report.command
    run = CliRunner().invoke(cli, shlex.split(report.command_to(str(made)))[1:])
    assert run.exit_code == 0
    with rdbkit.open(made) as snapshot:
        assert snapshot.header.version == 11
    assert hints(made) == []


def test_an_export_of_an_engine_of_which_nothing_is_documented() -> None:
    target = rdbkit.find_target("azure-managed").with_engine("8.0")
    report = check(io.BytesIO(exported(b"8.0.1")), target)
    assert (report.verdict, [f.code for f in report.findings]) == ("as-it-is", ["RDB105"])


def test_who_wrote_a_file_is_seen_by_its_first_keys() -> None:
    plain = key(b"a", 0, string(b"v"))
    hint = b"k" + length(5)
    for parts, is_seen in (
        ([hint, plain], True), ([plain, hint, plain], True), ([plain], False), ([], False), ([plain * 20_000, hint, plain], False)
    ):  # fmt: skip
        with rdbkit.open(io.BytesIO(rdb(b"\xfe\0", *parts))) as snapshot:
            assert snapshot.is_of_redis_enterprise == is_seen
            assert sum(1 for _ in snapshot) == b"".join(parts).count(plain)
            assert snapshot.is_of_redis_enterprise == is_seen
    with rdbkit.open(io.BytesIO(rdb(b"\xfe\0", b"\xc9junk"))) as snapshot:
        assert not snapshot.is_of_redis_enterprise


@made
def test_processes_count_them_once(name: str, path: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.rdb"
    file.write_bytes(MADE[name].replace(b"REDIS0009", b"REDIS0010", 1)[:-8] + bytes(8))  # RDB 9 takes one process
    one, two = io.BytesIO(), io.BytesIO()
    first = rdbkit.convert(file, one, target="redis-7.2")
    second = rdbkit.convert(file, two, target="redis-7.2", jobs=2)
    assert first.ledger.notes == second.ledger.notes == {"enterprise-hint": len(hints(file))}
    assert one.getvalue() == two.getvalue()


@made
def test_every_other_verb_takes_it(name: str, path: Path, tmp_path: Path) -> None:
    expiring = len(WANTED)
    with rdbkit.open(path) as snapshot:
        assert {row.key for row in rdbkit.keys(snapshot)} == WANTED.keys()
    with rdbkit.open(path) as snapshot:
        weight = rdbkit.memory(snapshot, rdbkit.find_target("redis-8.0"))
    assert (weight.keys, weight.expiring) == (expiring, expiring)
    verified = rdbkit.verify(path, deep=True)
    assert (verified.sound, verified.keys) == (True, expiring)
    planned = rdbkit.plan([path], "azure-managed")
    assert planned.files[0].keys == expiring
    written = []
    out = io.BytesIO()
    rdbkit.salvage(path, out)
    written.append(out.getvalue())
    out = io.BytesIO()
    rdbkit.redact(path, out, secret=SECRET)
    written.append(out.getvalue())
    into = tmp_path / "parts"
    parts = rdbkit.split([str(path)], str(into), rdbkit.Division(parts=2))
    assert parts.notes == {"enterprise-hint": len(hints(path))}
    out = io.BytesIO()
    rdbkit.merge([str(into / part.file) for part in parts.parts], out)
    written.append(out.getvalue())
    out = io.BytesIO()
    rdbkit.merge([str(path)], out)
    written.append(out.getvalue())
    lines = io.BytesIO()
    rdbkit.export(path, lines, format="jsonl")
    out = io.BytesIO()
    rdbkit.build(io.BytesIO(lines.getvalue()), out, target="redis-6.2")
    written.append(out.getvalue())
    for number, data in enumerate(written):
        assert hints(io.BytesIO(data)) == []
        assert rdbkit.verify(io.BytesIO(data), deep=True).sound
        (tmp_path / "out.rdb").write_bytes(data)
        if number != 1:  # redacted
            assert content(io.BytesIO(data)) == WANTED
            assert rdbkit.diff(str(path), str(tmp_path / "out.rdb")).same
    run = CliRunner().invoke(cli, ["get", str(path), "k3"])
    assert run.stdout == "v3"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("info {file}", "hints of Redis Enterprise: 3"),
        ("info --json {file}", '"EnterpriseHint": 3'),
        ("keys {file}", "0,a,string"),
        ("export {file}", '"key":"c"'),
        ("export {file} --format resp --target redis-7.4", "SET"),
        ("check {file} --target redis-8.0", "RDB105"),
        ("check {file} --target azure-managed --format github", "RDB105"),
        ("convert {file} {out} --target redis-8.0", "enterprise-hint 3"),
        ("convert {file} {out} --target redis-8.0 --json", '"enterprise-hint": 3'),
        ("split {file} --into {out} --parts 2", "0002.rdb"),
        ("merge {file} -o {out}", "3 keys"),
        ("diff {file} {file}", "same"),
        ("verify {file} --deep", "is sound"),
        ("salvage {file} {out}", "3 keys kept"),
        ("redact {file} {out} --strict", "3 hints of Redis Enterprise about keys"),
        ("memory {file} --target redis-8.0", "keys     3"),
        ("plan {file} --target azure-managed", "Managed"),
    ],
)
def test_every_command_takes_it(command: str, said: str, tmp_path: Path) -> None:
    args = [word.format(file=FILE, out=tmp_path / "out") for word in command.split()]
    run = CliRunner().invoke(cli, args, standalone_mode=False)
    assert run.exception is None, run.exception
    assert (run.return_value or 0) == (1 if args[0] == "check" and "azure-managed" not in args else 0)
    assert said in run.output


def test_what_is_left_out_is_no_loss_for_redact_strict(tmp_path: Path) -> None:
    report = rdbkit.redact(FILE, tmp_path / "out.rdb", secret=SECRET)
    assert report.dropped["enterprise-hint"] == 3
    assert report.is_complete


@made
@pytest.mark.parametrize("block_size", [16, 1 << 20])
def test_salvage_finds_keys_with_hints_behind_damage(name: str, tmp_path: Path, block_size: int) -> None:
    many = b"".join(MADE[name][9:-9].replace(b"\x02k", b"\x03%dk" % i) for i in range(3))
    damaged = rdb(b"\xfe\0", key(b"bad", 1, length(9) + string(b"x") * 3), many, magic=b"REDIS0009")
    path = tmp_path / "in.rdb"
    path.write_bytes(damaged)
    out = io.BytesIO()
    rdbkit.salvage(path, out, block_size=block_size)
    found = content(io.BytesIO(out.getvalue()))
    assert found.keys() >= {b"%dk%d" % (i, n) for i in range(3) for n in range(len(EDGES))} - {b"0k0"}
    assert hints(io.BytesIO(out.getvalue())) == []


def test_a_search_begins_with_no_letter_of_a_text() -> None:
    """Hints are letters, and each of a text would be looked at; but where a key may follow an expiry, a hint may."""
    table = beginnings(FileTypes("redis", 9, 1 << 20, ""))
    assert next_beginning(b"kyk,keys,yaks," * 100, 0, table) == -1
    for data in (EXPIRY + b"k\x05" + key(b"name", 0, string(b"v")), EXPIRY + b"y\x05" + key(b"name", 0, string(b"v"))):
        assert next_beginning(b"\xff" * 9 + data, 0, table) == 9


# -- what is only unknown is no damage

UNKNOWN = {
    **{number: name for number, (name, _) in NAMED_OPCODES.items()},
    **NAMED_TYPES,
    60: "value type 60",
    150: "opcode 150",
}
INSIDE = (b"\xfe\0", key(b"a", 0, string(b"b")))


def with_unknown(number: int, magic: bytes = b"REDIS0012", crc: int | None = None) -> bytes:
    data = rdb(*INSIDE, bytes([number]) + string(b"key") + string(b"value") * 2000, magic=magic)
    return data if crc is None else data[:-8] + crc.to_bytes(8, "little")


@pytest.mark.parametrize("number", UNKNOWN)
def test_check_names_what_is_unknown_and_what_to_do(number: int, tmp_path: Path) -> None:
    whole = with_unknown(number)
    framed = b"$EOF:" + b"x" * 40 + b"\r\n" + whole + b"x" * 40
    forms = (whole, whole + bytes(512), gzip.compress(whole), framed, with_unknown(number, crc=0))
    for data in forms:
        for block_size in (16, 1 << 20):
            with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
                report = check(snapshot, "azure-managed")
            (finding,) = (f for f in report.findings if f.code in ("RDB401", "RDB402", "RDB411"))
            assert (report.verdict, finding.code, finding.severity) == (CANNOT, "RDB411", BLOCKER)
            assert UNKNOWN[number] in finding.title
            assert "fetch" not in finding.fix
            assert "save the file again" not in finding.fix
            assert finding.samples[0].offset == data.index(bytes([number]) + string(b"key")) if data in (whole, framed) else True
            if "Dragonfly (opcode" in UNKNOWN[number]:
                assert "SAVE RDB" in finding.fix
            else:
                assert finding.fix == "a newer rdbkit may know it"
    path = tmp_path / "in.rdb"
    path.write_bytes(whole)
    run = CliRunner().invoke(cli, ["check", str(path), "--target", "redis-8.0"], standalone_mode=False)
    assert run.return_value == 1
    assert "its checksum fits, so it is no damage" in run.output
    assert "fetch" not in run.output
    verified = rdbkit.verify(path)
    assert [v.rule.name for v in verified.violations] == ["unknown-type"]
    out = io.BytesIO()
    rdbkit.salvage(path, out)
    assert content(io.BytesIO(out.getvalue()))[b"a"] == b"b"


@pytest.mark.parametrize("number", UNKNOWN)
def test_the_error_names_what_is_unknown(number: int, tmp_path: Path) -> None:
    (tmp_path / "in.rdb").write_bytes(with_unknown(number))
    with rdbkit.open(tmp_path / "in.rdb") as snapshot, pytest.raises(rdbkit.UnsupportedTypeError) as caught:
        list(snapshot)
    assert UNKNOWN[number] in caught.value.message
    assert caught.value.offset == with_unknown(number).index(bytes([number]) + string(b"key"))


@pytest.mark.parametrize(
    ("number", "remedy"), [(201, "; let Dragonfly write an RDB file: SAVE RDB, or"), (102, "; a newer rdbkit may")]
)
def test_other_verbs_say_what_to_do(number: int, remedy: str, tmp_path: Path) -> None:
    (tmp_path / "in.rdb").write_bytes(with_unknown(number))
    args = [sys.executable, "-m", "rdbkit", "keys", str(tmp_path / "in.rdb")]
    run = subprocess.run(args, capture_output=True, text=True)
    assert run.returncode == 3
    assert remedy in run.stderr


@pytest.mark.parametrize("number", UNKNOWN)
def test_what_looks_unknown_is_damage_where_the_checksum_differs(number: int) -> None:
    data = with_unknown(number, crc=77)
    for form in (data, data + bytes(512), data[:-3]):
        report = check(io.BytesIO(form), "azure-managed")
        assert [f.code for f in report.findings if f.severity == BLOCKER] == ["RDB401"]


def test_an_unknown_thing_in_an_append_only_file_is_not_said_to_be_damage() -> None:
    inside = rdb(aux(b"aof-base", b"1"), *INSIDE, b"\xc9" + string(b"blob"), magic=b"REDIS0009")
    report = check(io.BytesIO(inside + b"*1\r\n$4\r\nPING\r\n"), "redis-8.0")
    assert [f.code for f in report.findings if f.severity == BLOCKER] == ["RDB411"]


def test_a_checksum_that_ends_in_zeros_is_found_in_front_of_padding() -> None:
    """The last bytes of a checksum look like padding."""
    n = 0
    while True:
        data = rdb(*INSIDE, key(b"n%d" % n, 0, string(b"")), b"\xc9" + string(b"blob"))
        if CRC.calc(data[:-8]) >> 56 == 0:
            break
        n += 1
    for form in (data, data + bytes(1), data + bytes(4000)):
        assert check(io.BytesIO(form), "redis-8.0").findings[0].code == "RDB411"


def test_a_type_that_the_version_does_not_have_is_no_damage() -> None:
    """Type 22 is one thing in Redis 7.4's release candidates and another in Valkey 9; 24 is nothing in Valkey."""
    data = rdb(*INSIDE, key(b"h", 24, bytes(8) + length(1) + b"\0" + string(b"f") + string(b"v")), magic=b"VALKEY080")
    report = check(io.BytesIO(data), "valkey-9.1")
    (finding,) = (f for f in report.findings if f.severity == BLOCKER)
    assert (finding.code, finding.samples[0].offset) == ("RDB411", len(rdb(*INSIDE)) - 9)
    assert "value type 24" in finding.title


def test_hints_are_none_in_a_file_of_valkey() -> None:
    with rdbkit.open(io.BytesIO(rdb(*INSIDE, b"k\1", magic=b"VALKEY080"))) as snapshot, pytest.raises(rdbkit.UnsupportedTypeError):
        list(snapshot)


def test_json_names_the_finding(tmp_path: Path) -> None:
    path = tmp_path / "in.rdb"
    path.write_bytes(with_unknown(201))
    run = CliRunner().invoke(cli, ["check", str(path), "--target", "redis-8.0", "--json"])
    (file,) = json.loads(run.stdout)["files"]
    assert [f["code"] for f in file["findings"]] == ["RDB411"]
