"""Skipping a value without decoding it, in blocks of any size.

Each value type has a layout in a small grammar (`constants.py`). `compile_layout` turns it into a program, and `ValueSkipper` runs
it. It stops wherever the block ends and goes on in the next, so that its memory does not depend on the value's size.

| sign | stands for | sign | stands for |
|---|---|---|---|
| `s` | string | `#` | a count, kept in the counter |
| `l` | number stored as a length | `@(...)` | the group, as often as the counter says |
| `d` | 8 bytes | `*(...)` | short for `#@(...)` |
| `i` | 16 bytes (stream id) | `o` | length 0, or 1 and one more length |
| `w` | 4 bytes | `u` | tagged element of an array |
| `t` | double as text | `m` | framed module values up to their end mark |
| `c` | quicklist container, 1 or 2; stands in `@(cs)` alone | `x` | field names of a hash; their number goes to the counter |
| `y` | id of a hash template; the number of its fields goes to the counter | | |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError
from rdbkit.format.compiled import COMPILED
from rdbkit.format.listpack import read_listpack
from rdbkit.format.primitives import read_length, read_string, skip_length, skip_string
from rdbkit.format.sink import Sink

if TYPE_CHECKING:
    from mypy_extensions import i64

# Instructions are an operation byte and an operand byte.
OP_END: Final = 0
OP_STRING: Final = 1
OP_LENGTH: Final = 2
OP_BYTES: Final = 3  # operand: how many
OP_TEXT_DOUBLE: Final = 4
OP_NODES: Final = 5  # rounds of a quicklist container and a string
OP_COUNT: Final = 6
OP_LOOP: Final = 7  # operand: where the instruction behind the loop stands
OP_NEXT: Final = 8  # operand: where the first instruction of the loop stands
OP_STRINGS: Final = 9  # operand: strings a round
OP_SCORED: Final = 10  # rounds of a string and 8 bytes
OP_OPTIONAL: Final = 11
OP_TAGGED: Final = 12
OP_MODULE: Final = 13
OP_FIELDS: Final = 14
OP_TEMPLATE: Final = 15

_SIMPLE: Final = {
    "s": (OP_STRING, 0),
    "l": (OP_LENGTH, 0),
    "d": (OP_BYTES, 8),
    "i": (OP_BYTES, 16),
    "w": (OP_BYTES, 4),
    "t": (OP_TEXT_DOUBLE, 0),
    "#": (OP_COUNT, 0),
    "o": (OP_OPTIONAL, 0),
    "u": (OP_TAGGED, 0),
    "m": (OP_MODULE, 0),
    "x": (OP_FIELDS, 0),
    "y": (OP_TEMPLATE, 0),
}
# Loops that most elements of most files stand in get an operation of their own.
_RUNS: Final = {
    "@(s)": (OP_STRINGS, 1),
    "@(ss)": (OP_STRINGS, 2),
    "@(sss)": (OP_STRINGS, 3),
    "@(sd)": (OP_SCORED, 0),
    "@(cs)": (OP_NODES, 0),
}
#: Most bytes that a listpack of field names may unpack to.
_FIELDS_LIMIT: Final = 16 << 20
#: Elements at a time: the interpreter has numbers up to this ready made, which is a quarter of the loop's time.
BATCH: Final = 256
#: 256 equal length bytes, by length.
SAME: Final = [bytes([length]) * BATCH for length in range(0x40)]
#: Bytes that a string takes, by its first byte; for forms whose first byte does not tell, beyond the end of any block.
_BEYOND: Final = 1 << 55
_STEP: Final = [*range(1, 0x41), *[_BEYOND] * 0x80, 2, 3, 5, *[_BEYOND] * 0x3D]


def compile_layout(layout: str, runs: bool = True) -> bytes:
    """The program of a layout; see the table above.

    Args:
        runs: loops that most elements stand in become one operation, not only that of `c`, which has no other.

    >>> compile_layout("s") == bytes([OP_STRING, 0, OP_END, 0])
    True
    """
    text = layout.replace("*", "#@")
    program: list[int] = []
    open_loops: list[int] = []
    at = 0
    while at < len(text):
        run = next((r for r in _RUNS if (runs or r == "@(cs)") and text.startswith(r, at)), None)
        if run is not None:
            program += _RUNS[run]
            at += len(run)
        elif text.startswith("@(", at):
            open_loops.append(len(program))
            program += (OP_LOOP, 0)
            at += 2
        elif text[at] == ")":
            begin = open_loops.pop()
            program += (OP_NEXT, begin + 2)
            program[begin + 1] = len(program)
            at += 1
        else:
            program += _SIMPLE[text[at]]
            at += 1
    return bytes([*program, OP_END, 0])


def skip_container(buf: bytes, pos: i64) -> i64:
    """The end of a quicklist node's container: 1 for a plain element, 2 for a packed node."""
    n: i64 = buf[pos]
    end: i64 = pos + 1
    if n == 1 or n == 2:
        return end
    n, end = read_length(buf, pos)
    if n != 1 and n != 2:
        raise CorruptError(f"a quicklist node has container {n}, where 1 or 2 is allowed", offset=pos, rule="quicklist-container")
    return end


def skip_short(buf: bytes, pos: i64, program: bytes) -> i64:
    """The end of a collection of fewer than 64 elements that lies whole in `buf`, at a third of a `ValueSkipper`'s cost.

    Returns -1 for every other value; raises IndexError, or returns an end beyond `buf`, as `primitives` do.
    """
    left: i64 = buf[pos]
    if left >= 0x40 or program[0] != OP_COUNT or program[4] != OP_END:
        return -1
    pos += 1
    operation: i64 = program[2]
    first: i64
    if operation == OP_STRINGS:
        for _ in range(left * program[3]):
            first = buf[pos]
            if first < 0x40:
                pos += first + 1
            else:
                pos = skip_string(buf, pos)
        return pos
    if operation == OP_NODES:
        for _ in range(left):
            pos = skip_string(buf, skip_container(buf, pos))
        return pos
    return -1


def skip_batch(buf: bytes, pos: int, behind: int) -> tuple[int, int]:
    """`(end, how many)` of up to 256 strings with `behind` bytes behind each; for the interpreter, which has to take few steps.

    Strings of one length, as ids often are, have their length bytes at equal distances: one comparison takes all 256.
    """
    done = 0
    at = pos
    step = _STEP
    try:
        stride = buf[pos] + 1 + behind
        if stride <= 0x40 + behind and buf[pos : pos + BATCH * stride : stride] == SAME[buf[pos]]:
            return pos + BATCH * stride, BATCH
        for done in range(0, BATCH, 4):  # noqa: B007 (wanted where the block ends)
            at = pos
            pos += step[buf[pos]] + behind
            pos += step[buf[pos]] + behind
            pos += step[buf[pos]] + behind
            pos += step[buf[pos]] + behind
    except IndexError:
        return (at, done) if at < _BEYOND else (at - _BEYOND - behind, done - 1)
    return (pos, BATCH) if pos < _BEYOND else (at, BATCH - 4)


class ValueSkipper:
    """Finds the end of one value at a time.

    Attributes:
        done: the value's end has been reached.
        templates: field count of each hash template of the file (RDB 15).
        steps: elements that have been skipped, roughly, since somebody set it to 0.
    """

    def __init__(self) -> None:
        self.done: bool = False
        self.templates: dict[int, int] = {}
        self.program: bytes = b"\0\0"
        self.at: i64 = 0
        self.skip: i64 = 0
        self.count: i64 = 0
        self.left: i64 = -1
        self.rounds: list[int] = []
        self.room: i64 = 0
        self.steps: i64 = 0

    def begin(self, program: bytes) -> None:
        """Make ready for a value whose layout compiled to `program`."""
        self.done = False
        self.program = program
        self.at = 0
        self.skip = 0
        self.count = 0
        self.left = -1
        if self.rounds:
            self.rounds = []

    def advance(self, buf: bytes, pos: i64, room: i64) -> i64:
        """Go on at `pos`; return the first position that has not been skipped.

        `done` then tells whether that is the value's end. If not, everything before it is needed no more, and what follows
        it (a few bytes at most) must stand before the next block.

        Args:
            room: where the input ends, relative to `buf`, or a huge number where that is not known.

        Raises: CorruptError, with `offset` relative to `buf`.
        """
        end: i64 = len(buf)
        self.room = room
        if self.skip > 0:
            if self.skip > end - pos:
                self.skip -= end - pos
                return end
            pos += self.skip
            self.skip = 0
        program = self.program
        safe: i64 = pos
        n: i64
        try:
            # in the order of how often they come
            while True:
                safe = pos
                operation: i64 = program[self.at]
                if operation == OP_COUNT:
                    n, pos = read_length(buf, pos)
                    if n > room - pos:
                        raise CorruptError(f"announces {n} elements, but {room - pos} bytes are left", offset=safe)
                    self.count = n
                    self.at += 2
                elif operation == OP_STRINGS:
                    pos = self.skip_run(buf, pos, program[self.at + 1], 0)
                    if self.left > 0 or self.skip > 0:
                        return pos
                elif operation == OP_END:
                    self.done = True
                    return pos
                elif operation == OP_STRING:
                    pos = skip_string(buf, pos)
                    self.at += 2
                elif operation == OP_NEXT:
                    self.steps += 1
                    n = self.rounds[-1] - 1
                    if n > 0:
                        self.rounds[-1] = n
                        self.at = program[self.at + 1]
                    else:
                        self.rounds.pop()
                        self.at += 2
                elif operation == OP_LENGTH:
                    pos = skip_length(buf, pos)
                    self.at += 2
                elif operation == OP_BYTES:
                    pos += program[self.at + 1]
                    self.at += 2
                elif operation == OP_SCORED:
                    pos = self.skip_run(buf, pos, 1, 8)
                    if self.left > 0 or self.skip > 0:
                        return pos
                elif operation == OP_NODES:
                    pos = self.skip_nodes(buf, pos)
                    if self.left > 0 or self.skip > 0:
                        return pos
                elif operation == OP_LOOP:
                    if self.count > 0:
                        self.rounds.append(self.count)
                        self.at += 2
                    else:
                        self.at = program[self.at + 1]
                else:
                    pos = self.skip_rare(buf, pos, operation)
                if pos > end:
                    self.skip = pos - end
                    return end
        except IndexError:
            return safe

    def skip_run(self, buf: bytes, pos: i64, a_round: i64, behind: i64) -> i64:
        """Skip `a_round` strings for each that the counter says, and `behind` bytes after each.

        Leaves in `left` how many are still to come.
        """
        if self.left < 0:
            self.left = self.count * a_round
        left: i64 = self.left
        done: i64 = 0
        first: i64
        head: i64 = behind + 1
        try:
            while left > 0:
                few: i64 = min(left, BATCH)
                if not COMPILED and left >= BATCH:
                    pos, done = skip_batch(buf, pos, behind)
                    self.steps += done
                    left -= done
                    if done == BATCH:
                        continue
                    few = min(left, 4 if done > 64 else 64)  # over what is not plain, and longer where much of it is not
                for done in range(few):  # noqa: B007 (wanted where the block ends)
                    first = buf[pos]  # IndexError: the elements before end at pos, which may lie beyond the block
                    pos += first + head
                    if first >= 0x40:
                        pos -= first + head
                        pos = skip_string(buf, pos) + behind
                left -= few
                self.steps += few
        except IndexError:
            left -= done
            self.steps += done
        except CorruptError:
            self.steps += done
            raise
        return self.leave_run(pos, len(buf), left)

    def skip_nodes(self, buf: bytes, pos: i64) -> i64:
        """The nodes of a quicklist, as `skip_run` walks strings."""
        if self.left < 0:
            self.left = self.count
        left: i64 = self.left
        end: i64 = pos
        try:
            while left > 0:
                end = skip_string(buf, skip_container(buf, pos))
                left -= 1
                self.steps += 1
                pos = end
        except IndexError:
            pass
        return self.leave_run(pos, len(buf), left)

    def leave_run(self, pos: i64, end: i64, left: i64) -> i64:
        """Keep what is left of a run; an element that goes on in later blocks counts as skipped, its rest as `skip`."""
        if pos > end:
            self.skip = pos - end
            pos = end
        if left > 0:
            self.left = left
        else:
            self.left = -1
            self.at += 2
        return pos

    def skip_rare(self, buf: bytes, pos: i64, operation: i64) -> i64:
        """The steps that few values have."""
        n: i64
        start: i64 = pos
        self.steps += 1
        if operation == OP_TEXT_DOUBLE:
            n = buf[pos]
            pos += 1
            if n < 253:
                pos += n
        elif operation == OP_OPTIONAL:
            n, pos = read_length(buf, pos)
            if n > 1:
                raise CorruptError(f"an array has flag {n}, where 0 or 1 is allowed", offset=start, rule="array-tag")
            if n == 1:
                pos = skip_length(buf, pos)
        elif operation == OP_TAGGED:
            n, pos = read_length(buf, pos)
            if n > 3:
                raise CorruptError(f"an array element has tag {n}, where 0 to 3 is allowed", offset=start, rule="array-tag")
            pos = pos + 8 if n == 1 or n == 2 else skip_string(buf, pos)
        elif operation == OP_MODULE:
            n, pos = read_length(buf, pos)
            if n == 0:
                self.at += 2
            elif n <= 2:
                pos = skip_length(buf, pos)
            elif n == 3:
                pos += 4
            elif n == 4:
                pos += 8
            elif n == 5:
                pos = skip_string(buf, pos)
            else:
                raise CorruptError(f"a module value has opcode {n}, where 0 to 5 is allowed", offset=start, rule="module-opcode")
            return pos
        elif operation == OP_FIELDS:
            n, pos = read_length(buf, pos)
            if n > 1:
                raise CorruptError(f"field names have format {n}, where 0 or 1 is allowed", offset=start)
            if n == 0:
                names, pos = read_string(buf, pos, _FIELDS_LIMIT)
                if len(names) < 7:
                    raise CorruptError("a listpack of field names has fewer than 7 bytes", offset=start)
                self.steps += len(names)
                n = names[4] | names[5] << 8
                self.count = n if n < 65535 else read_listpack(names, 0, len(names), Sink())
            else:
                n, pos = read_length(buf, pos)
                self.count = n
                if n > self.room - pos:
                    raise CorruptError(f"announces {n} fields, but {self.room - pos} bytes are left", offset=start)
                self.steps += n
                while n > 0:
                    pos = skip_string(buf, pos)
                    n -= 1
                buf[pos - 1]
        else:
            n, pos = read_length(buf, pos)
            if n not in self.templates:
                raise CorruptError(f"refers to hash template {n}, which the file does not have", offset=start, rule="template")
            self.count = self.templates[n]
        self.at += 2
        return pos
