"""URLs of servers: what is read of them, and that no message has their passwords."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from rdbkit.cli import cli
from rdbkit.live.server_url import parse_url

from ..rdb import FIXTURES

FILE = str(FIXTURES / "rich" / "redis-7.0.15.rdb")


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "user", "password", "db"),
    [
        ("redis://h", "h", 6379, False, None, None, None),
        ("redis://h:1/", "h", 1, False, None, None, None),
        ("rediss://cache.redis.azure.net:10000", "cache.redis.azure.net", 10000, True, None, None, None),
        ("redis://:pw@h:1/3", "h", 1, False, None, "pw", 3),
        ("redis://me@h", "h", 6379, False, "me", None, None),
        ("redis://me:a%40b%2Fc@h", "h", 6379, False, "me", "a@b/c", None),
        ("redis://me:a@b/c#d?e@h:2", "h", 2, False, "me", "a@b/c#d?e", None),
        ("redis://[::1]:7/0", "::1", 7, False, None, None, 0),
    ],
)
def test_urls(url: str, host: str, port: int, tls: bool, user: str | None, password: str | None, db: int | None) -> None:
    place = parse_url(url)
    found = (place.host, place.port, place.tls, place.user, place.password, place.db)
    assert found == (host, port, tls, user, password, db)
    assert password is None or password not in str(place) + repr(place)
    assert parse_url(str(place)).host == host


def test_urls_of_sentinels() -> None:
    for url, port, tls, db, service in (
        ("redis+sentinel://me:s3cret@h/mymaster", 26379, False, None, "mymaster"),
        ("rediss+sentinel://h:1/a%2Fb/3", 1, True, 3, "a/b"),
    ):
        place = parse_url(url)
        assert (place.host, place.port, place.tls, place.db, place.service) == ("h", port, tls, db, service)
        assert "s3cret" not in str(place)
        again = parse_url(str(place))
        assert (again.port, again.tls, again.db, again.service) == (port, tls, db, service)
    assert str(parse_url("redis+sentinel://me:s3cret@h/mymaster/1")) == "redis+sentinel://me:***@h:26379/mymaster/1"
    for url in ("redis+sentinel://s3cret@h", "redis+sentinel://u:s3cret@h:1/", "redis+sentinel://u:s3cret@h:1/name/x"):
        with pytest.raises(ValueError, match=r"redis\+sentinel://host:port/service|only have a database") as e:
            parse_url(url)
        assert "s3cret" not in str(e.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://u:s3cret@h", "h:6379", "redis://", "redis://u:s3cret@", "redis://u:s3cret@h:port", "redis://u:s3cret@h:99999",
        "redis://u:s3cret@h/db", "redis://u:s3cret@h?ssl=1", "redis://u:s3cret@[::1", "redis://u:s3cret@h/-1", "redis://h/²",
        "u:s3cret@h:6379", "//u:s3cret@h", "redis:u:s3cret@h", "rdis://u:my s3cret@h", "redis://u:my /?s3cret@h:99999",
        "redis://s3cret@h/x", "redis://:s3cret", "redis://u:s3cret@a..b", f"redis://u:s3cret@h/{'9' * 5000}",
    ],
)  # fmt: skip
def test_malformed_urls_are_told_without_their_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis://|its port or database") as e:
        parse_url(url)
    assert "s3cret" not in str(e.value)
    for arguments in (
        [FILE, url],
        [url, FILE],
        [FILE, "redis://h", "--state", url, "--cluster", url],
        [FILE, "redis://h", f"--{url}"],
    ):
        result = CliRunner().invoke(cli, ["verify-import", *arguments])
        assert result.exit_code in (2, 4)
        assert "s3cret" not in result.output


@pytest.mark.parametrize("url", ["redis://u:my s3cret@h:1", "redis://u:s3cret@h", "redis://s3cret@h", "u:s3cret@h"])
def test_a_url_in_the_place_of_a_file_is_told_without_its_password(url: str, tmp_path: Path) -> None:
    for option in ([url, "redis://h"], [FILE, "redis://h", "--ca-cert", url], [FILE, "redis://h", "--rate", url]):
        result = CliRunner().invoke(cli, ["verify-import", *option])
        assert result.exit_code in ((1, 4) if option[0].startswith("redis:") else (2,))
        assert "s3cret" not in result.output
    result = CliRunner().invoke(cli, ["verify-import", FILE, "redis://h", "--password-file", "s3cret"])
    assert result.exit_code == 2
    assert "the file cannot be read: No such file or directory" in result.output
    assert "s3cret" not in result.output
