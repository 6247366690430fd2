"""Which writes of a connection are marked, and when, whatever comes back on it and wherever its bytes are cut."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdbkit.dual.pairing import Pairing, request_names
from rdbkit.format.requests import LARGEST_KEPT
from rdbkit.resp import command

NAMES = request_names()


class Found:
    """What a pairing tells, in the order in which it does."""

    def __init__(self) -> None:
        self.marks: list[tuple[int, bytes]] = []
        self.lacking: list[str] = []
        self.unknown: list[tuple[int, list[bytes]]] = []
        self.defined: list[list[bytes]] = []
        self.login: bytes | None = None

    def mark(self, db: int, keys: Iterable[bytes]) -> None:
        self.marks += [(db, key) for key in keys]

    def lacks(self, why: str) -> None:
        self.lacking.append(why)

    def ask_about(self, db: int, arguments: list[bytes]) -> None:
        self.unknown.append((db, arguments))

    def define(self, arguments: list[bytes]) -> None:
        self.defined.append(arguments)

    def other_login(self, arguments: list[bytes]) -> bytes | None:
        return self.login


def words(text: str) -> bytes:
    return command(*text.encode().split())


class Talk:
    """A connection: what the client says, and what the server answers."""

    def __init__(self) -> None:
        self.found = Found()
        self.pairing = Pairing(NAMES, self.found)

    def ask(self, *texts: str) -> bytes:
        return self.pairing.requests(b"".join(map(words, texts)))

    def answer(self, text: bytes) -> bytes:
        return self.pairing.replies(text)

    @property
    def keys(self) -> list[str]:
        return [f"{db}:{key.decode()}" if db else key.decode() for db, key in self.found.marks]


def movable(talk: Talk) -> bool:
    return talk.pairing.is_movable


def answered(talk: Talk) -> bool:
    return talk.pairing.is_answered


def blocked(talk: Talk) -> bool:
    return talk.pairing.is_blocked


#: What clients ask, what a server answers, and what is marked: each part leaves the connection as it was.
PARTS: list[tuple[list[str], bytes, list[str]]] = [
    (["GET a", "PING"], b"$1\r\n1\r\n+PONG\r\n", []),
    (["SET a 1", "DEL b c", "INCR d"], b"+OK\r\n:2\r\n-ERR value is not an integer\r\n", ["a", "b", "c"]),
    (["MSET a 1 b 2", "MGET a b"], b"-OOM no\r\n*2\r\n$1\r\n1\r\n$-1\r\n", []),
    (["SELECT 3", "SET a 1", "SELECT 99", "SET b 1", "SELECT 0"], b"+OK\r\n+OK\r\n-ERR range\r\n+OK\r\n+OK\r\n", ["3:a", "3:b"]),
    (
        ["MULTI", "SET a 1", "DEL b c", "SELECT 2", "INCR d", "SELECT 0", "EXEC"],
        b"+OK\r\n" + 5 * b"+QUEUED\r\n" + b"*5\r\n+OK\r\n:2\r\n+OK\r\n:1\r\n+OK\r\n",
        ["a", "b", "c", "2:d"],
    ),
    (["WATCH a", "MULTI", "SET a 1", "EXEC"], b"+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n", []),
    (["MULTI", "SET a 1", "DISCARD", "SET b 1"], b"+OK\r\n+QUEUED\r\n+OK\r\n+OK\r\n", ["b"]),
    (["MULTI", "SET a", "EXEC"], b"+OK\r\n-ERR wrong number\r\n-EXECABORT\r\n", []),
    (["MULTI", "SET a 1", "DEL b c", "EXEC"], b"-NOPERM\r\n+OK\r\n:0\r\n-ERR EXEC without MULTI\r\n", ["a", "b", "c"]),
    (["EVAL x 1 k", "SET a 1"], b"-ERR in the middle\r\n+OK\r\n", ["k", "a"]),
    (["SUBSCRIBE x y", "PING"], b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\ny\r\n:2\r\n"
     b"*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$2\r\nhi\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n", []),
    (["UNSUBSCRIBE", "SET a 1"], b"*3\r\n$7\r\nmessage\r\n$1\r\ny\r\n$1\r\n2\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\nx\r\n:1\r\n"
     b"*3\r\n$11\r\nunsubscribe\r\n$1\r\ny\r\n:0\r\n+OK\r\n", ["a"]),
    (["PUNSUBSCRIBE", "SET a 1"], b"*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n+OK\r\n", ["a"]),
    (["CLIENT REPLY SKIP", "SET a 1", "SET b 1"], b"+OK\r\n", ["a", "b", "a"]),
    (["CLIENT REPLY OFF", "SET a 1", "GET x", "DEL b c", "CLIENT REPLY ON", "SET d 1"], b"+OK\r\n-ERR\r\n", [*"abc", *"abc"]),
    (["COPY a b DB 2", "MOVE a 3"], b":1\r\n:1\r\n", ["2:b", "a", "3:a"]),
    (["HELLO 3", "SUBSCRIBE x", "SET a 1", "UNSUBSCRIBE x", "SET b 1", "HELLO 2"],
     b"%1\r\n+proto\r\n:3\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n>3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\n1\r\n+OK\r\n"
     b">3\r\n$11\r\nunsubscribe\r\n$1\r\nx\r\n:0\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n+OK\r\n*2\r\n+proto\r\n:2\r\n", ["a", "b"]),
]  # fmt: skip


@pytest.mark.parametrize("part", range(len(PARTS)))
def test_what_is_marked(part: int) -> None:
    before, (requests, replies, keys) = PARTS[part - 1 if part and PARTS[part][0][0] == "UNSUBSCRIBE" else part], PARTS[part]
    talk = Talk()
    if before is not PARTS[part]:
        talk.ask(*before[0])
        talk.answer(before[1])
    sent = b"".join(map(words, requests))
    assert talk.ask(*requests) == sent
    assert talk.answer(replies) == replies
    assert talk.keys == keys
    assert talk.pairing.is_answered
    assert talk.pairing.is_movable


REQUESTS = b"".join(words(text) for requests, _, _ in PARTS for text in requests)
REPLIES = b"".join(replies for _, replies, _ in PARTS)
MARKED = [key for _, _, keys in PARTS for key in keys]


def pieces(text: bytes, cuts: Iterable[int]) -> list[bytes]:
    return [text[a:b] for a, b in pairwise([0, *sorted(cuts), len(text)])]


def test_all_of_it_cut_at_every_byte() -> None:
    whole = Talk()
    assert whole.pairing.requests(REQUESTS) == REQUESTS
    assert whole.answer(REPLIES) == REPLIES
    assert sorted(whole.keys) == sorted(MARKED)
    for at in range(0, max(len(REQUESTS), len(REPLIES))):
        talk = Talk()
        assert b"".join(map(talk.pairing.requests, pieces(REQUESTS, [min(at, len(REQUESTS))]))) == REQUESTS
        assert b"".join(map(talk.answer, pieces(REPLIES, [min(at, len(REPLIES))]))) == REPLIES
        assert sorted(talk.keys) == sorted(MARKED)


@given(st.lists(st.integers(0, len(REQUESTS))), st.lists(st.integers(0, len(REPLIES))))
def test_all_of_it_cut_anywhere(cuts: list[int], others: list[int]) -> None:
    talk = Talk()
    assert b"".join(map(talk.pairing.requests, pieces(REQUESTS, cuts))) == REQUESTS
    assert b"".join(map(talk.answer, pieces(REPLIES, others))) == REPLIES
    assert sorted(talk.keys) == sorted(MARKED)
    assert talk.pairing.is_answered


def test_nothing_is_marked_before_its_reply() -> None:
    talk = Talk()
    talk.ask("SET a 1", "DEL b c", "SET d 1")
    talk.answer(b"+OK\r\n:2\r")
    assert talk.keys == ["a"]
    assert not talk.pairing.is_answered
    talk.answer(b"\n+OK")
    assert talk.keys == ["a", "b", "c"]


def test_what_has_no_reply_in_the_end_is_marked_in_every_database_that_it_may_be_in() -> None:
    talk = Talk()
    talk.ask("SELECT 2", "SET a 1", "BLPOP b c 0", "MULTI", "INCR d", "DEL e")
    talk.pairing.mark_all()
    assert sorted(talk.keys) == sorted(f"{db}{key}" for db in ("", "2:") for key in "abcde")


def test_half_a_request_waits_and_a_large_one_does_not() -> None:
    talk = Talk()
    text = words("SET a 1")
    for at in range(1, len(text)):
        talk.found.marks.clear()
        assert talk.pairing.requests(text[:at]) == b""
        assert talk.pairing.requests(text[at:]) == text
        talk.answer(b"+OK\r\n")
        assert talk.keys == ["a"]
    large = command(b"SET", b"big", bytes(LARGEST_KEPT * 2))
    assert talk.pairing.requests(large[:-1]) == large[:-1]
    assert movable(talk) is False
    assert talk.pairing.requests(large[-1:]) == large[-1:]
    assert movable(talk) is True
    talk.answer(b"+OK\r\n")
    assert talk.keys[-1] == "big"


def test_garbage_is_passed_on_and_nothing_is_found_in_it() -> None:
    talk = Talk()
    text = words("SET a 1") + b"*1\r\n+SET\r\n" + words("SET b 1")
    assert talk.pairing.requests(text) == text
    assert talk.pairing.untracked == "what is no request"
    assert talk.keys == ["a"]
    assert talk.pairing.requests(text) == text
    assert talk.answer(b"-ERR Protocol error\r\n") == b"-ERR Protocol error\r\n"


def test_what_follows_monitor_is_marked_when_it_is_sent() -> None:
    talk = Talk()
    talk.ask("SET a 1", "MONITOR", "SET b 1", "EVAL x 1 k", "BLPOP l 0")
    talk.ask("MULTI", "DEL c", "SET d 1", "EXEC")
    assert sorted(talk.keys) == sorted("abklcd")
    assert talk.answer(b'+OK\r\n+OK\r\n+1.0 [0 x] "SET"\r\n').startswith(b"+OK")


def test_what_is_no_reply_is_passed_on() -> None:
    talk = Talk()
    talk.ask("SET a 1")
    assert talk.answer(b"HTTP/1.1 400 Bad Request\r\n") == b"HTTP/1.1 400 Bad Request\r\n"
    assert talk.keys == ["a"]
    assert talk.pairing.untracked == "what is no reply"


def test_a_command_that_waits_can_be_ended_and_is_sent_again() -> None:
    talk = Talk()
    sent = talk.ask("SET a 1", "BLPOP q 0")
    assert sent == words("SET a 1") + command(b"CLIENT", b"ID") + words("BLPOP q 0")
    assert blocked(talk) is False
    answered = b"".join(talk.answer(bytes([byte])) for byte in b"+OK\r\n:77\r\n")
    assert answered == b"+OK\r\n"
    assert blocked(talk) is True
    assert talk.pairing.unblock() == 77
    assert b"".join(talk.answer(bytes([byte])) for byte in b"*-1\r\n") == b""
    assert talk.pairing.is_answered
    talk.pairing.moved()
    assert talk.pairing.again() == command(b"CLIENT", b"ID") + words("BLPOP q 0")
    reply = b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n"
    assert talk.answer(b":5\r\n" + reply) == reply
    assert talk.keys == ["a", "q"]
    assert talk.pairing.again() == b""


def test_a_consumer_for_whom_nothing_came_is_marked() -> None:
    talk = Talk()
    talk.ask("BLPOP q 1", "xreadgroup GROUP g c STREAMS x >")
    talk.answer(b":77\r\n*-1\r\n*-1\r\n")
    assert talk.keys == ["x"]


def test_what_comes_just_before_it_is_ended_reaches_the_client() -> None:
    talk = Talk()
    talk.ask("BLPOP q 0")
    talk.answer(b":77\r\n")
    talk.pairing.unblock()
    reply = b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n"
    assert b"".join(talk.answer(bytes([byte])) for byte in reply) == reply
    assert talk.keys == ["q"]
    assert talk.pairing.again() == b""


def test_it_cannot_be_ended_where_others_wait_behind_it_or_its_number_is_refused() -> None:
    talk = Talk()
    talk.ask("BLPOP q 0", "GET a")
    talk.answer(b":77\r\n")
    assert talk.pairing.unblock() is None
    other = Talk()
    other.ask("BLPOP q 0")
    other.answer(b"-NOPERM no\r\n")
    assert other.pairing.is_blocked
    assert other.pairing.unblock() is None


def test_it_stops_where_it_can_be_moved() -> None:
    talk = Talk()
    talk.ask("WATCH a", "MULTI", "SET a 1")
    talk.pairing.stops = True
    assert talk.ask("GET b", "EXEC", "GET c") == words("GET b") + words("EXEC")
    assert talk.pairing.held == words("GET c")
    assert talk.pairing.is_movable
    half = Talk()
    large = command(b"SET", b"big", bytes(LARGEST_KEPT * 2))
    half.pairing.requests(large[:-5])
    half.pairing.stops = True
    assert half.pairing.requests(large[-5:] + words("GET c")) == large[-5:]
    assert half.pairing.held == words("GET c")


def test_what_has_no_reply_is_marked_in_its_turn() -> None:
    talk = Talk()
    talk.ask(
        "SELECT 5",
        "SET a 1",
        "CLIENT REPLY OFF",
        "SET b 1",
        "SELECT 2",
        "DEL c",
        "MULTI",
        "SET d 1",
        "EXEC",
        "CLIENT REPLY ON",
        "SET e 1",
    )
    assert talk.keys == []
    talk.answer(b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n")
    assert talk.keys[:4] == ["5:a", "5:b", "2:c", "2:d"]
    assert sorted(talk.keys[4:]) == ["2:c", "2:d", "2:e", "5:b"]  # and once more when they are known to be done
    assert talk.pairing.is_answered


def test_what_has_no_reply_is_marked_again_when_a_later_reply_tells_that_it_is_done() -> None:
    talk = Talk()
    talk.ask("CLIENT REPLY SKIP", "SET a 1")
    assert talk.keys == ["a"]
    talk.ask("GET b", "GET b")
    assert talk.keys == ["a"]
    talk.answer(b"$-1\r\n")
    assert talk.keys == ["a", "a"]
    talk.answer(b"$-1\r\n")
    assert talk.keys == ["a", "a"]


def test_once_it_cannot_be_told_keys_are_marked_in_all_databases_that_may_be_in_use() -> None:
    talk = Talk()
    talk.ask("SELECT 5", "MONITOR", "SET a 1", "SELECT 2", "SET b 1")
    assert set(talk.keys) == {"a", "5:a", "2:a", "b", "5:b", "2:b"}


def test_a_client_that_wants_no_replies_is_heard_of_ahead_of_a_switch() -> None:
    talk = Talk()
    talk.ask("CLIENT REPLY OFF", "SET a 1")
    assert answered(talk) is True
    on, off = words("CLIENT REPLY ON"), words("CLIENT REPLY OFF")
    assert talk.pairing.hear() == on
    assert answered(talk) is False
    assert talk.answer(b"+OK\r\n") == b""
    assert talk.pairing.context.commands()[-1].text == off
    assert talk.pairing.hush() == off
    talk.ask("SET b 1")
    assert talk.keys == ["a", "a", "b"]  # the server has answered, so that it must have written it by then
    assert talk.ask("CLIENT REPLY ON", "GET a")
    assert talk.answer(b"+OK\r\n$-1\r\n") == b"+OK\r\n$-1\r\n"
    assert talk.pairing.hear() == words("PING")
    assert talk.answer(b"+PONG\r\n") == b""
    assert talk.pairing.hear() == b""
    assert talk.pairing.hush() == b""


def test_a_login_is_replaced_where_it_stands() -> None:
    talk = Talk()
    talk.found.login = words("AUTH other")
    assert talk.ask("GET a", "AUTH mine", "GET b") == words("GET a") + words("AUTH other") + words("PING") + words("GET b")
    talk.answer(b"$-1\r\n+OK\r\n+PONG\r\n$-1\r\n")
    assert talk.pairing.context.login == (b"mine",)
    assert "mine" not in repr(talk.pairing.context)


@pytest.mark.parametrize("login", ["AUTH mine", "HELLO 3 AUTH me mine"])
@pytest.mark.parametrize("piece", [1, 1 << 30])
def test_a_refused_login_may_have_no_reply(login: str, piece: int) -> None:
    """Redis 8.0.6 answers none where it has replies to send yet."""
    ok = b"+OK\r\n" if login.startswith("AUTH") else b"%1\r\n+proto\r\n:3\r\n"
    for other in (None, words("AUTH other")):
        for said in (b"", b"-WRONGPASS no\r\n", ok):
            for pinged in (b"+PONG\r\n", b"-NOAUTH no\r\n", b"-NOPERM no\r\n"):
                talk = Talk()
                talk.found.login = other
                sent = words("SET a 1") + (other or words(login)) + words("PING") + words("SET b 1")
                assert talk.ask("SET a 1", login, "SET b 1") == sent
                replies = b"+OK\r\n" + said + pinged + b"+OK\r\n"
                heard = b"".join(talk.answer(replies[at : at + piece]) for at in range(0, len(replies), piece))
                assert heard == b"+OK\r\n" + said + b"+OK\r\n"
                assert talk.found.marks == [(0, b"a"), (0, b"b")]
                assert talk.pairing.is_answered
                assert (talk.pairing.context.login is not None) == (said == ok)


def test_a_login_that_nothing_is_ahead_of_is_sent_alone() -> None:
    talk = Talk()
    assert talk.ask("AUTH mine", "GET a") == words("AUTH mine") + words("GET a")


def test_a_login_of_our_own_may_have_no_reply() -> None:
    for said in (b"", b"-WRONGPASS no\r\n", b"+OK\r\n"):
        talk = Talk()
        talk.ask("GET a")
        assert talk.pairing.log_in(b"new") == words("AUTH new") + words("PING")
        talk.ask("SET b 1")
        assert talk.answer(b"$-1\r\n" + said + b"+PONG\r\n+OK\r\n") == b"$-1\r\n+OK\r\n"
        assert talk.found.marks == [(0, b"b")]
        assert talk.pairing.log_in(b"new") == words("AUTH new")


def test_what_is_asked_besides_has_no_reply_for_the_client() -> None:
    talk = Talk()
    heard = []
    talk.ask("GET a")
    assert talk.pairing.ask(words("PING"), lambda: heard.append(1)) == words("PING")
    talk.ask("GET b")
    assert talk.answer(b"$1\r\n1\r\n+PO") + talk.answer(b"NG\r\n$-1\r\n") == b"$1\r\n1\r\n$-1\r\n"
    assert heard == [1]
    talk.ask("MULTI")
    assert talk.pairing.ask(words("PING"), lambda: None) == b""


def test_what_is_not_a_write_of_keys() -> None:
    talk = Talk()
    talk.ask("FLUSHDB", "FLUSHALL", "SCRIPT LOAD x", "X.NEW k", "PUBLISH a b")
    talk.answer(b"+OK\r\n-NOPERM\r\n$1\r\nx\r\n+OK\r\n:0\r\n")
    assert talk.found.lacking == ["flush"]
    assert talk.found.defined == [[b"SCRIPT", b"LOAD", b"x"]]
    assert talk.found.unknown == [(0, [b"X.NEW", b"k"])]
    talk.pairing.requests(command(b"DEL", bytes(LARGEST_KEPT + 1)) + command(b"SET", bytes(LARGEST_KEPT + 1), b""))
    assert talk.found.lacking == ["flush", "key-too-large", "key-too-large"]


def test_what_is_not_a_write_of_keys_inside_of_a_transaction() -> None:
    talk = Talk()
    talk.ask("MULTI", "FLUSHDB", "X.NEW k", "DISCARD")
    talk.answer(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+OK\r\n")
    assert (talk.found.lacking, talk.found.unknown) == ([], [])
    talk.ask("MULTI", "SELECT 2", "X.NEW k", "SCRIPT FLUSH", "FLUSHDB", "EXEC", "X.NEW l")
    talk.answer(b"+OK\r\n" + 4 * b"+QUEUED\r\n" + b"*4\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n")
    assert (talk.found.lacking, talk.found.defined) == (["flush"], [[b"SCRIPT", b"FLUSH"]])
    assert talk.found.unknown == [(2, [b"X.NEW", b"k"])]
    talk.pairing.mark_all()  # the connection breaks
    assert talk.found.unknown[1:] == [(2, [b"X.NEW", b"l"])]


def test_another_server_is_told_what_the_first_was() -> None:
    talk = Talk()
    talk.ask("HELLO 3 AUTH app secret SETNAME web", "CLIENT SETINFO LIB-NAME x", "CLIENT NO-EVICT ON", "CLIENT TRACKING ON NOLOOP")
    talk.ask("SELECT 4", "SUBSCRIBE a b", "PSUBSCRIBE p*", "UNSUBSCRIBE a")
    talk.answer(b"%0\r\n+OK\r\n-ERR\r\n+OK\r\n+OK\r\n")
    for kind, channel in ((b"subscribe", b"a"), (b"subscribe", b"b"), (b"psubscribe", b"p*"), (b"unsubscribe", b"a")):
        talk.answer(b">3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:1\r\n" % (len(kind), kind, len(channel), channel))
    assert talk.pairing.is_answered
    told = talk.pairing.context.commands()
    assert [each.text for each in told] == [
        words("AUTH app secret"), words("HELLO 3"), words("CLIENT SETNAME web"), words("CLIENT SETINFO LIB-NAME x"),
        words("CLIENT TRACKING ON NOLOOP"), words("SELECT 4"), words("SUBSCRIBE b"), words("PSUBSCRIBE p*"),
    ]  # fmt: skip
    assert [each.must for each in told] == [True, True, True, False, True, True, True, True]
    assert talk.pairing.context.is_tracking
    assert not talk.pairing.context.redirects
    talk.ask("RESET")
    talk.answer(b"+RESET\r\n")
    assert talk.pairing.context.commands() == []
