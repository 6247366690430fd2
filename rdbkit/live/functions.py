"""Function libraries of servers: what a source has, and bringing them to every node of a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rdbkit.format.replies import Refusal
from rdbkit.live.server import Server
from rdbkit.resp import command

__all__ = ["CopiedFunctions", "Libraries", "copy_functions", "libraries_of"]

_LIST: Final = command(b"FUNCTION", b"LIST", b"WITHCODE")


@dataclass
class Libraries:
    """The function libraries of a server or snapshot.

    Attributes:
        sources: the source of each library by its name.
        differing: names of libraries that are not the same on all nodes of a cluster, of which one source was taken.
        refusal: why the server does not tell; None where it does, or has no functions at all.
    """

    sources: dict[str, bytes] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)
    refusal: str | None = None


@dataclass
class CopiedFunctions:
    """What became of function libraries, by name.

    Attributes:
        written: they are on every node of the target now.
        equal: the target had them already.
        different: the target has another source under that name, which was left alone.
        refused: the target's words for each that it does not take.
    """

    written: list[str] = field(default_factory=list)
    equal: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """How many are not on the target as they are on the source."""
        return len(self.different) + len(self.refused)


def libraries_of(server: Server) -> Libraries:
    """The function libraries of a server, of all nodes of a cluster.

    Raises: TargetError where it cannot be asked for some time.
    """
    found = Libraries()
    for (reply,) in server.ask_each_node(0, [_LIST]):
        if isinstance(reply, Refusal):
            if not has_no_functions(reply):
                found.refusal = str(reply)
            continue
        if not isinstance(reply, list):
            found.refusal = f"the server answers FUNCTION LIST with {str(reply)[:80]}"
            continue
        for name, source in _sources(reply).items():
            if found.sources.setdefault(name, source) != source and name not in found.differing:
                found.differing.append(name)
    return found


def copy_functions(libraries: Mapping[str, bytes], target: Server, *, replace: bool = False) -> CopiedFunctions:
    """Load function libraries on every node of a target that has keys; its replicas get them from these.

    A library that is there under the same name is left alone unless `replace` is given.

    Raises: TargetError where the target cannot be asked for some time.
    """
    done = CopiedFunctions()
    if not libraries:
        return done
    nodes = [{} if isinstance(reply, Refusal) else _sources(reply) for (reply,) in target.ask_each_node(0, [_LIST])]
    for name, source in sorted(libraries.items()):
        there = [node.get(name) for node in nodes]
        if all(each == source for each in there):
            done.equal.append(name)
            continue
        if any(each not in (None, source) for each in there) and not replace:
            done.different.append(name)
            continue
        # a node that has it already takes it again
        replies = target.ask_each_node(0, [command(b"FUNCTION", b"LOAD", b"REPLACE", source)])
        refusal = next((reply for (reply,) in replies if isinstance(reply, Refusal)), None)
        if refusal is None:
            done.written.append(name)
        else:
            done.refused[name] = str(refusal)
    return done


def has_no_functions(reply: Refusal) -> bool:
    """Whether a server is one from before functions (Redis 7.0)."""
    return "unknown command" in reply.text.lower()


def _sources(reply: list[list[Any]]) -> dict[str, bytes]:
    """Names and sources of what FUNCTION LIST WITHCODE tells."""
    found = {}
    for library in reply:
        facts = dict(zip(library[::2], library[1::2], strict=True))
        found[facts[b"library_name"].decode("utf-8", "surrogateescape")] = bytes(facts[b"library_code"])
    return found
