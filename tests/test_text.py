"""Secrets are taken out of any text that is passed on."""

from __future__ import annotations

from rdbkit.text import first_line, scrub


def test_logins_of_servers_are_taken_out() -> None:
    assert scrub("redis://u:p@ss@h and more") == "redis://u:***@h and more"
    assert scrub("REDISS://:p/w@h:1") == "REDISS://:***@h:1"
    assert scrub("redis://u:my p@ss/w?@h") == "redis://u:***@h"
    assert scrub("redis://u@h") == "redis://***@h"  # who knows what it is
    assert scrub("redis://h:1 and redis://h/0") == "redis://h:1 and redis://h/0"


def test_keys_and_signatures_are_taken_out() -> None:
    text = "x AccountKey=abc==;B sig=d%3D&e SharedAccessSignature=sv=1&sig=f; Authorization: Bearer ghi"
    for secret in ("abc", "d%3D", "sig=f", "ghi"):
        assert secret not in scrub(text)
    assert scrub("url=https%3A%2F%2Fa%2Fb%3Fsig%3Dabc%253D&x") == "url=https%3A%2F%2Fa%2Fb%3Fsig%3D***&x"


def test_logins_of_other_urls_end_before_the_path() -> None:
    assert scrub("http://me:s3cret@proxy:8080/x") == "http://me:***@proxy:8080/x"
    assert scrub("no https://127.0.0.1:10000/account/c/a@b, sig=x") == "no https://127.0.0.1:10000/account/c/a@b, sig=***"
    assert scrub("redis://u:p@h?sig=abc") == "redis://u:***@h?sig=***"


def test_the_first_line_of_an_error() -> None:
    assert first_line(ValueError(" redis://u:s3cret@h is lost\nand more")) == "redis://u:***@h is lost"
    assert first_line(TimeoutError()) == "TimeoutError"
    assert len(first_line(ValueError("x" * 1000))) == 300
