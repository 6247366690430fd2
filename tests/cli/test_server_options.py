"""Logins of one server, and of a source and a target: which option, URL or variable counts, and that none is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from rdbkit.cli.server_options import SERVER_URL, Login, server_options, server_pair_options
from rdbkit.live import login as live_login
from rdbkit.live import server as live_server

SECRETS = {"one": "0ne", "two": "tw0", "both": "b0th"}
OLD, NEW = "rediss://old:1", "rediss://new:2"


@click.command()
@click.argument("source", type=SERVER_URL)
@click.argument("target", type=SERVER_URL)
@server_pair_options
def pair(source: str, target: str, source_login: Login, target_login: Login) -> None:
    source_login.connect(source)
    target_login.connect(target)
    click.echo(f"{source_login} {target_login} {source_login.is_given} {target_login.is_given}")


@click.command()
@click.argument("url", type=SERVER_URL)
@server_options
def single(url: str, login: Login) -> None:
    login.connect(url)


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What each server was connected to with; the files of passwords are in the current folder."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(live_server, "connect", lambda url, **given: found.append({"url": url, **given}))
    monkeypatch.setattr(live_login, "entra_credentials", lambda cloud: f"token for {cloud.word}")
    for name, secret in SECRETS.items():
        (tmp_path / name).write_text(f"{secret}\n")
    (tmp_path / "ca").write_text("certificates")
    monkeypatch.chdir(tmp_path)
    for side in ("SOURCE", "TARGET", "REDIS"):
        monkeypatch.delenv(f"RDBKIT_{side}_PASSWORD", raising=False)
    return found


def run(command: click.Command, *arguments: str, **environment: str) -> Result:
    result = CliRunner().invoke(command, arguments, env={f"RDBKIT_{name}_PASSWORD": value for name, value in environment.items()})
    for secret in (*SECRETS.values(), "s3cret"):
        assert secret not in result.output
    return result


@pytest.mark.parametrize(
    ("arguments", "environment", "passwords"),
    [
        ([], {}, (None, None)),
        (["--password-file", "both"], {}, ("b0th", "b0th")),
        (["--password-file", "both", "--target-password-file", "two"], {}, ("b0th", "tw0")),
        (["--source-password-file", "one", "--target-password-file", "two"], {}, ("0ne", "tw0")),
        ([], {"SOURCE": "s3cret"}, ("s3cret", None)),
        (["--password-file", "both"], {"SOURCE": "s3cret"}, ("s3cret", "b0th")),
        (["--source-password-file", "one"], {"SOURCE": "s3cret", "TARGET": "s3cret2"}, ("0ne", "s3cret2")),
    ],
)
def test_what_is_said_of_one_server_counts_before_what_is_said_of_both(
    reached: list[dict[str, Any]], arguments: list[str], environment: dict[str, str], passwords: tuple[str | None, str | None]
) -> None:
    assert run(pair, OLD, NEW, *arguments, **environment).exit_code == 0
    assert [each["url"] for each in reached] == [OLD, NEW]
    assert tuple(each["password"] for each in reached) == passwords


def test_a_password_in_the_url_of_one_counts_before_what_is_said_of_both(reached: list[dict[str, Any]]) -> None:
    assert run(pair, "redis://:s3cret@old", NEW, "--password-file", "both", SOURCE="s3cret2").exit_code == 0
    assert [each["password"] for each in reached] == [None, "b0th"]  # connect takes that of the URL
    assert run(pair, "redis://:s3cret@old", NEW, "--entra").exit_code == 0
    assert [each["credentials"] for each in reached[2:]] == [None, "token for public"]


def test_one_side_logs_in_with_entra_and_the_other_with_a_password(reached: list[dict[str, Any]]) -> None:
    assert run(pair, OLD, NEW, "--source-password-file", "one", "--target-entra").exit_code == 0
    assert [each["credentials"] for each in reached] == [None, "token for public"]
    assert [each["password"] for each in reached] == ["0ne", None]
    assert run(pair, OLD, "rediss://n.redis.cache.chinacloudapi.cn:6380", "--entra", SOURCE="s3cret").exit_code == 0
    assert [each["credentials"] for each in reached[2:]] == [None, "token for china"]


def test_tls_and_cluster_of_one_side(reached: list[dict[str, Any]]) -> None:
    result = run(pair, OLD, NEW, "--ca-cert", "ca", "--target-no-verify-tls", "--cluster", "no", "--target-cluster", "yes")
    assert result.exit_code == 0
    assert "rediss://new:2: certificates are not verified" in result.stderr
    assert [(each["ca_cert"], each["verify_tls"], each["cluster"]) for each in reached] == [
        ("ca", True, "no"),
        ("ca", False, "yes"),
    ]
    assert result.stdout.endswith("False True\n")
    assert run(pair, "redis://old", NEW, "--ca-cert", "ca").exit_code == 0  # it is for the other one


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["redis://old", NEW, "--source-ca-cert", "ca"],
            "--source-ca-cert, --source-client-cert and --source-no-verify-tls are for rediss://",
        ),
        (["redis://old", NEW, "--entra"], "--entra sends a token, which needs TLS: write rediss://"),
        (["redis://old", NEW, "--source-entra"], "--source-entra sends a token"),
        (["rediss://:s3cret@old", NEW, "--source-entra"], "--source-entra and a password exclude each other"),
        ([OLD, NEW, "--source-entra", "--source-password-file", "one"], "--source-entra and a password exclude each other"),
        ([OLD, NEW, "--entra", "--password-file", "both"], "--entra and a password exclude each other"),
        ([OLD, "u:s3cret@new"], "a server's URL begins with redis://"),
    ],
)
def test_options_that_do_not_go_together(reached: list[dict[str, Any]], arguments: list[str], said: str) -> None:
    result = run(pair, *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_one_server_has_no_sides(reached: list[dict[str, Any]]) -> None:
    assert run(single, OLD, "--password-file", "both", "--no-verify-tls").exit_code == 0
    assert (reached[0]["password"], reached[0]["verify_tls"], reached[0]["cluster"]) == ("b0th", False, "auto")
    assert run(single, OLD, "--source-entra").exit_code == 2
    assert run(single, "rediss://u:s3cret@h", "--entra").exit_code == 2
