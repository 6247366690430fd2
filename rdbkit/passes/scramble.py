"""Strings scrambled with a secret so that their form stays: length, class of every byte, whether they are a number; compiled.

What is done to a string is a bijection, so that two different strings never become the same one, and a pure function of the secret
and the string, so that equal strings stay equal wherever they stand. It is no encryption: lengths, punctuation and equality can be
seen.
"""

from __future__ import annotations

from bisect import bisect_right
from hashlib import blake2b, shake_128
from math import isqrt
from typing import TYPE_CHECKING, Final

from librt.strings import BytesWriter

from rdbkit.errors import CorruptError
from rdbkit.format.compiled import COMPILED
from rdbkit.format.listpack import _integer
from rdbkit.passes.keyed_hash import LOW, KeyedHash, absorbed, hash_words

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Longer strings are scrambled in pieces of so many bytes, each on its own, so that they need not be in memory whole.
PIECE: Final = 1 << 16
#: Strings of which more bytes change get a keystream, as long as they are; that two of them meet is as likely as with random bytes.
_FEISTEL: Final = 20
_WORD: Final = 8  # bytes that one hash moves on
_KEYSTREAM: Final = 64  # bytes in one digest
_ROUNDS: Final = 4
_SHORT: Final = 64  # longer frames are hashed before they are hashed
_LONGEST_NUMBER: Final = 20  # with its sign
#: Where hashing is slow, since it is not compiled: twice as many strings are remembered, of up to
_MEMO: Final = 1 << 17
_MEMO_BYTES: Final = 16
_SMALL: Final = 1 << 15  # ranges of numbers up to this size get a table
_MEDIUM: Final = 1 << 32  # up to this, there are tables for their halves

_STAY: Final = bytes([9, 10, 13, *range(32, 48), *range(58, 65), *range(91, 97), *range(123, 127)])
#: Behind these the next byte is limited, so both stay, and what was UTF-8 stays so.
_LEADS: Final = bytes([0xE0, 0xED, 0xF0, 0xF4])
_FIXED: Final = _STAY + _LEADS
#: Bytes that become one another.
_CLASSES: Final = (
    b"0123456789",
    b"abcdefghijklmnopqrstuvwxyz",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    bytes([n for n in [*range(32), 0x7F] if n not in _STAY]),
    bytes(range(0x80, 0xC0)),
    bytes(range(0xC2, 0xE0)),
    bytes([*range(0xE1, 0xED), 0xEE, 0xEF]),
    bytes([0xF1, 0xF2, 0xF3]),
    bytes([0xC0, 0xC1, *range(0xF5, 0x100)]),
)
#: ASCII punctuation, between which the tokens of a name stand.
PUNCTUATION: Final = bytes([n for n in _STAY if n > 32])
_IS_FIXED: Final = bytes([n in _FIXED for n in range(256)])
_IS_LEAD: Final = bytes([n in _LEADS for n in range(256)])
_IS_PUNCTUATION: Final = bytes([n in PUNCTUATION for n in range(256)])


def _frame() -> bytes:
    """Each byte as the first of its class."""
    frame = bytearray(range(256))
    for members in _CLASSES:
        for byte in members:
            frame[byte] = members[0]
    return bytes(frame)


def _shifts() -> bytes:
    """At `k * 256 + byte`: the byte moved on by k places in its class."""
    rows = []
    for k in range(256):
        row = bytearray(range(256))
        for members in _CLASSES:
            for at, byte in enumerate(members):
                row[byte] = members[(at + k) % len(members)]
        rows.append(bytes(row))
    return b"".join(rows)


_FRAME: Final = _frame()
_SHIFTS: Final = _shifts()
_SAME: Final = bytes(range(256))
_ROWS: Final = [_SHIFTS[at : at + 256] for at in range(0, 1 << 16, 256)]


def _lows() -> list[int]:
    """Where ranges of numbers begin that have one count of digits and one form in an RDB, a listpack, a ziplist and an intset."""
    lows = {0, 13, 128, 4096, -128, -4096, -(1 << 63)}
    lows.update(sign << bits for bits in (15, 23, 31) for sign in (1, -1))
    lows.update(10**digits for digits in range(1, 19))
    lows.update(1 - 10**digits for digits in range(1, 19))
    return sorted(lows)


_LOWS: Final = _lows()
_SIZES: Final = [stop - low for low, stop in zip(_LOWS, [*_LOWS[1:], 1 << 63], strict=True)]
#: Of a number that counts from its range's begin: how many values its upper half has.
_HALVES: Final = [isqrt(size - 1) + 1 for size in _SIZES]


class Scrambler:
    """Scrambles strings and numbers.

    A digit becomes a digit, a small letter a small letter, and so on; punctuation, spaces and line ends stay. What was UTF-8 is so
    again. Text of an integer, as servers would write it, becomes the text of another one that servers store in the same form
    everywhere; other text never becomes an integer.

    Args:
        secret: of any length but 0; the same one gives the same strings.

    Raises: ValueError for an empty secret.

    >>> scrambler = Scrambler(b"a secret")
    >>> scrambler.text(b"Ann, 42") == scrambler.text(b"Ann, 42") != scrambler.text(b"Bob, 42")
    True
    >>> scrambler.name(b"user:1").split(b":")[0] == scrambler.name(b"user:2").split(b":")[0]
    True
    """

    def __init__(self, secret: bytes) -> None:
        if not secret:
            raise ValueError("a secret of no bytes is none")
        key = blake2b(secret, person=b"rdbkit redact").digest()
        self.key: bytes = key
        self.long_key: bytes = shake_128(key + b"long").digest(32)
        self.hash: KeyedHash = KeyedHash(shake_128(key + b"hash").digest(16))
        self.alone: bytes = self.alphabet()
        self.tables: list[bytes] = [b"" for _ in _LOWS]  # of a range of numbers, once there was one of them
        self.memo: dict[bytes, bytes] = {}
        self.older: dict[bytes, bytes] = {}
        self.numbers: dict[int, int] = {}

    # -- strings

    def text(self, data: bytes) -> bytes:
        """A string of any length, of one piece.

        >>> len(Scrambler(b"a secret").text(bytes(100_000)))
        100000
        """
        size: i64 = len(data)
        if COMPILED and size <= PIECE:
            return self.short(data) if size <= _LONGEST_NUMBER else self.quick(data)
        if size <= _MEMO_BYTES:  # and not compiled
            found = self.memo.get(data)
            if found is None:
                found = self.older.get(data)
                if found is None:
                    found = self.short(data)
                if len(self.memo) >= _MEMO:  # what was not asked for since the last time is forgotten
                    self.older = self.memo
                    self.memo = {}
                self.memo[data] = found
            return found
        if size <= _LONGEST_NUMBER:
            return self.short(data)
        if size <= PIECE:
            return self.piece(data, 0)
        parts: list[bytes] = []
        before: i64 = 0
        at: i64 = 0
        while at < size:
            part = data[at : at + PIECE]
            parts.append(self.piece(part, before))
            before = part[-1]
            at += PIECE
        return b"".join(parts)

    def short(self, data: bytes) -> bytes:
        """A string that may be the text of a number."""
        if len(data) == 0:
            return data
        first: i64 = data[0]
        if first == 0x2D or 0x30 <= first < 0x3A:
            n = _integer(data)
            if n is not None:
                return b"%d" % self.integer(n)
            digits = data[1:] if first == 0x2D else data
            if len(data) <= _LONGEST_NUMBER and digits.isdigit():
                return self.digits(data)
        return self.quick(data) if COMPILED else self.piece(data, 0)

    def digits(self, data: bytes) -> bytes:
        """Digits that are no integer, since they begin with 0 or are too many: the first one stays, so that they are none again."""
        kept: i64 = 2 if data[0] == 0x2D else 1
        rest = data[kept:]
        while True:
            rest = self.mix(rest, data[:kept] + rest) if rest else rest
            found = data[:kept] + rest
            if _integer(found) is None:
                return found

    def piece(self, data: bytes, before: i64) -> bytes:
        """A piece of a string that is no integer, of up to `PIECE` bytes.

        Args:
            before: the byte in front of it, 0 for none.
        """
        changing = data.translate(None, _FIXED)
        size: i64 = len(data)
        count: i64 = len(changing)
        if count == size and not _IS_LEAD[before]:
            return self.mix(data, data)
        if count == 0:
            return data
        if not _IS_LEAD[before] and not has_lead(data):
            if count > _FEISTEL:
                return shifted(data, self.stream(data, size))
            return merged(data, data.translate(_IS_FIXED), self.mix(changing, data))
        # the byte behind a lead stays, too
        fixed = BytesWriter()
        kept = BytesWriter()
        lead = _IS_LEAD[before]
        for byte in data:
            stays = lead or _IS_FIXED[byte]
            fixed.append(1 if stays else 0)
            if not stays:
                kept.append(byte)
            lead = _IS_LEAD[byte]
        return merged(data, fixed.getvalue(), self.mix(kept.getvalue(), data))

    def stream(self, data: bytes, size: i64) -> bytes:
        """At least so many bytes that are hashed of a string."""
        found = blake2b(self.long_key + data).digest()
        return found if size <= _KEYSTREAM else shake_128(self.long_key + found).digest(size)

    def mix(self, data: bytes, whole: bytes) -> bytes:
        """Bytes of which each changes in its class, out of `whole`, of which all other bytes and the classes stay.

        A Feistel network of two halves, whose bytes are moved on by what is hashed of the other half and the frame.
        """
        size: i64 = len(data)
        if size > _FEISTEL:
            return shifted(data, self.stream(whole, size))
        if size <= 1:
            return data.translate(self.alone)
        half = size // 2
        left = data[:half]
        right = data[half:]
        state = self.state(whole.translate(_FRAME))
        if not COMPILED and size <= 2 * _WORD:
            rows = _ROWS
            for number in range(0, _ROUNDS, 2):
                by = int(hash_words(state, int.from_bytes(right, "little"), number)).to_bytes(_WORD, "little")
                left = bytes([rows[k][byte] for k, byte in zip(by, left, strict=False)])
                by = int(hash_words(state, int.from_bytes(left, "little"), number + 1)).to_bytes(_WORD, "little")
                right = bytes([rows[k][byte] for k, byte in zip(by, right, strict=False)])
            return left + right
        wide = size > 2 * _WORD
        for number in range(0, _ROUNDS, 2):
            left = shifted(left, hashed(state, right, number, wide))
            right = shifted(right, hashed(state, left, number + 1, wide))
        return left + right

    def state(self, frame: bytes) -> tuple[i64, i64, i64, i64]:
        """The hash when it has taken in the frame of a string."""
        if len(frame) > _SHORT:
            return self.hash.after(len(frame), blake2b(self.key + frame, digest_size=16, person=b"frame").digest())
        return self.hash.after(len(frame), frame)

    def quick(self, data: bytes) -> bytes:
        """`piece` without an object for each part of the string: that is for compiled code.

        What stays is moved on as well, which changes nothing: it is the only byte of its class.
        """
        size: i64 = len(data)
        count: i64 = 0
        at: i64 = 0
        while at < size:
            byte: i64 = data[at]
            if _IS_FIXED[byte]:
                if _IS_LEAD[byte]:
                    return self.piece(data, 0)
            else:
                count += 1
            at += 1
        if count > _FEISTEL:
            return shifted(data, self.stream(data, size))
        if count <= 1 or count > 2 * _WORD:
            return data if count == 0 else self.piece(data, 0)
        half: i64 = count // 2
        left: i64 = 0
        right: i64 = 0
        taken: i64 = 0
        at = 0
        while at < size:
            byte = data[at]
            at += 1
            if not _IS_FIXED[byte]:
                if taken < half:
                    left |= byte << (taken << 3)
                else:
                    right |= byte << ((taken - half) << 3)
                taken += 1
        state = self.state(data.translate(_FRAME))
        number: i64 = 0
        while number < _ROUNDS:
            left = moved(left, hash_words(state, right, number), half)
            right = moved(right, hash_words(state, left, number + 1), count - half)
            number += 2
        out = BytesWriter()
        taken = 0
        at = 0
        while at < size:
            byte = data[at]
            at += 1
            if not _IS_FIXED[byte]:
                if taken == half:
                    left = right
                byte = left & 0xFF
                left >>= 8
                taken += 1
            out.append(_SAME[byte])
        return out.getvalue()

    def alphabet(self) -> bytes:
        """What becomes of a byte that is the only one to change in its string."""
        table = bytearray(range(256))
        for members in _CLASSES:
            order = self.shuffled(b"alone" + members[:1], len(members))
            for at, byte in enumerate(members):
                table[byte] = members[order[at]]
        return bytes(table)

    # -- numbers

    def integer(self, n: int) -> int:
        """An integer of 64 bits, as its text would be scrambled: with the same sign, digits and forms.

        >>> scrambler = Scrambler(b"a secret")
        >>> scrambler.text(b"-1500") == b"%d" % scrambler.integer(-1500)
        True
        """
        if COMPILED:
            return int(self.number(n))
        found = self.numbers.get(n)
        if found is None:
            found = self.number(n)
            if len(self.numbers) >= 1 << 16:
                self.numbers.clear()
            self.numbers[n] = found
        return found

    def number(self, n: i64) -> i64:
        """`integer`, of which nothing is remembered."""
        index: i64 = 0
        above: i64 = len(_LOWS)
        if not COMPILED:
            index = bisect_right(_LOWS, n) - 1
        else:
            while above - index > 1:
                between = (index + above) >> 1
                if n < _LOWS[between]:
                    above = between
                else:
                    index = between
        low: i64 = _LOWS[index]
        size: i64 = _SIZES[index]
        if size <= _SMALL:
            table = self.tables[index]
            if not table:
                table = b"".join([place.to_bytes(4, "little") for place in self.shuffled(b"table %d" % int(low), int(size))])
                self.tables[index] = table
            return low + entry(table, n - low)
        if size <= _MEDIUM:
            return low + self.medium(index, n - low, size)
        return low + self.large(index, n - low, size)

    def medium(self, index: i64, n: i64, size: i64) -> i64:
        """A number below `size`: rounds on its two halves, for which there are tables, until it is below `size` again."""
        table = self.tables[index]
        above: i64 = _HALVES[index]
        below: i64 = (size + above - 1) // above
        if not table:
            table = shake_128(self.key + b"halves %d" % int(index)).digest(int(above * 4 * _ROUNDS))
            self.tables[index] = table
        while True:
            high: i64 = n // below
            low: i64 = n - high * below
            number: i64 = 0
            while number < _ROUNDS:
                low = (low + entry(table, number * above + high)) % below
                high = (high + entry(table, (number + 1) * above + low)) % above
                number += 2
            n = high * below + low
            if n < size:
                return n

    def large(self, index: i64, n: i64, size: i64) -> i64:
        """`medium` with a hash for a table."""
        above: i64 = _HALVES[index]
        below: i64 = (size + above - 1) // above
        state = self.hash.after(-1 - index, b"")
        while True:
            high: i64 = n // below
            low: i64 = n - high * below
            number: i64 = 0
            while number < _ROUNDS:
                low = (low + (hash_words(state, high, number) & LOW)) % below
                high = (high + (hash_words(state, low, number + 1) & LOW)) % above
                number += 2
            n = high * below + low
            if n < size:
                return n

    def shuffled(self, label: bytes, size: int) -> list[int]:
        """The numbers below `size` in an order that the secret decides."""
        stream = shake_128(self.key + label).digest(8 * size)
        order = [(stream[8 * i : 8 * i + 8], i) for i in range(size)]
        order.sort()
        return [i for _, i in order]

    # -- names

    def name(self, data: bytes) -> bytes:
        """A key's name: what stands between punctuation is scrambled each on its own, so that equal parts stay equal.

        >>> scrambler = Scrambler(b"a secret")
        >>> scrambler.name(b"{user:1}:cart").startswith(scrambler.name(b"{user:1}"))
        True
        """
        size: i64 = len(data)
        if size > 0 and data[0] == 0x2D and data[1:].isdigit():
            return self.text(data)  # a negative number, and what could become one
        parts: list[bytes] = []
        begin: i64 = 0
        at: i64 = 0
        while at < size:
            if _IS_PUNCTUATION[data[at]]:
                if at > begin:
                    parts.append(self.text(data[begin:at]))
                begin = at
                at += 1
                while at < size and _IS_PUNCTUATION[data[at]]:
                    at += 1
                parts.append(data[begin:at])
                begin = at
            else:
                at += 1
        if at > begin:
            parts.append(self.text(data[begin:at]))
        return b"".join(parts)

    # -- LZF

    def lzf(self, packed: bytes, whole: bytes, least: i64) -> bytes:
        """A string inside its LZF: what stands there literally is scrambled, and what refers back to it stays.

        Args:
            packed: the LZF.
            whole: what it unpacks to.
            least: how many bytes that change have to stand there literally; with few, two such strings could become the same.

        Returns: as many bytes, or none where there are fewer.
        """
        places = literals(packed)
        stays = behind_leads(packed, whole) if has_lead(whole) else b""
        fixed = BytesWriter()
        kept = BytesWriter()
        body = BytesWriter()
        at: i64
        for count, place in enumerate(places):
            at = place
            byte = packed[at]
            pinned = _IS_FIXED[byte] or (len(stays) > 0 and stays[count])
            body.append(byte)
            fixed.append(1 if pinned else 0)
            if not pinned:
                kept.append(byte)
        changing = kept.getvalue()
        if len(changing) < least:
            return b""
        literal = body.getvalue()
        mixed: list[bytes] = []
        for begin in range(0, len(changing), PIECE):
            mixed.append(self.mix(changing[begin : begin + PIECE], literal[begin : begin + PIECE]))
        new = merged(literal, fixed.getvalue(), b"".join(mixed))
        out = BytesWriter()
        out.write(packed)
        for count, place in enumerate(places):
            at = place
            out[at] = new[count]
        return out.getvalue()


def hashed(state: tuple[i64, i64, i64, i64], half: bytes, number: i64, wide: bool) -> bytes:
    """Eight bytes that are hashed of one half, sixteen where the halves may be longer than a word."""
    first: i64 = int.from_bytes(half[:_WORD], "little", signed=COMPILED and len(half) >= _WORD)
    if not wide:
        return int(hash_words(state, first, number)).to_bytes(_WORD, "little", signed=COMPILED)
    more = absorbed(state, first)
    rest: i64 = int.from_bytes(half[_WORD:], "little")
    low = int(hash_words(more, rest, number)).to_bytes(_WORD, "little", signed=COMPILED)
    return low + int(hash_words(more, rest, number + _ROUNDS)).to_bytes(_WORD, "little", signed=COMPILED)


def entry(table: bytes, at: i64) -> i64:
    """A number of 32 bits out of a table."""
    if not COMPILED:
        return int.from_bytes(table[4 * at : 4 * at + 4], "little")
    at <<= 2
    lowest: i64 = table[at]
    low: i64 = table[at + 1]
    high: i64 = table[at + 2]
    highest: i64 = table[at + 3]
    return lowest | low << 8 | high << 16 | highest << 24


def moved(word: i64, by: i64, count: i64) -> i64:
    """`shifted` for a word of so many bytes."""
    new: i64 = 0
    place: i64 = 0
    count <<= 3
    while place < count:
        byte: i64 = _SHIFTS[(by & 0xFF) << 8 | (word & 0xFF)]
        new |= byte << place
        word >>= 8
        by >>= 8
        place += 8
    return new


def shifted(data: bytes, by: bytes) -> bytes:
    """Each byte moved on in its class by the number that stands at its place in `by`."""
    if not COMPILED:
        rows = _ROWS
        return bytes([rows[k][byte] for k, byte in zip(by, data, strict=False)])
    out = BytesWriter()
    at: i64 = 0
    size: i64 = len(data)
    while at < size:
        k: i64 = by[at]
        out.append(_SHIFTS[k << 8 | data[at]])
        at += 1
    return out.getvalue()


def merged(data: bytes, fixed: bytes, changed: bytes) -> bytes:
    """`data`, where `fixed` says 1, and otherwise what comes next in `changed`."""
    out = BytesWriter()
    at: i64 = 0
    taken: i64 = 0
    size: i64 = len(data)
    while at < size:
        if fixed[at]:
            out.append(data[at])
        else:
            out.append(changed[taken])
            taken += 1
        at += 1
    return out.getvalue()


def has_lead(data: bytes) -> bool:
    """Whether there is a byte behind which the next one stays."""
    return 0xE0 in data or 0xED in data or 0xF0 in data or 0xF4 in data


def literals(packed: bytes) -> list[int]:
    """Where the bytes of LZF stand that it does not refer back to.

    >>> literals(b"\\x01ab\\xe0\\x01\\x01")
    [1, 2]
    """
    places: list[int] = []
    at: i64 = 0
    size: i64 = len(packed)
    while at < size:
        control: i64 = packed[at]
        at += 1
        if control < 32:
            for _ in range(control + 1):
                places.append(int(at))
                at += 1
        else:
            at += 2 if control >= 224 else 1
    if at != size:
        raise CorruptError("LZF data does not end where it should")
    return places


def behind_leads(packed: bytes, whole: bytes) -> bytes:
    """For each literal of LZF 1 where it, or a copy of it, comes to follow a byte of `_LEADS`, otherwise 0."""
    stays = BytesWriter()
    origins: list[int] = []  # of the bytes that it unpacks to: which literal it is
    at: i64 = 0
    size: i64 = len(packed)
    count: i64 = 0
    while at < size:
        control: i64 = packed[at]
        at += 1
        if control < 32:
            for _ in range(control + 1):
                origins.append(int(count))
                stays.append(0)
                count += 1
            at += control + 1
        else:
            length: i64 = control >> 5
            if length == 7:
                length += packed[at]
                at += 1
            back: i64 = len(origins) - ((control & 31) << 8 | packed[at]) - 1
            at += 1
            for _ in range(length + 2):
                origins.append(origins[back])
                back += 1
    for here in range(1, len(whole)):
        if _IS_LEAD[whole[here - 1]]:
            stays[origins[here]] = 1
    return stays.getvalue()
