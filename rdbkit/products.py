"""Which module a type of module values belongs to: the loader of products.toml, which has them by product, each with its source."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

#: Bytes of data of a module outside of keys that is none: opcode, id (9), when (2), end mark.
_HEAD_AND_END: Final = 13
#: The same with a number of six bits at most, which is none but 0 where nothing follows it.
_COUNT_OF_NONE: Final = 15


@dataclass(frozen=True, slots=True)
class ModuleType:
    """A type of module values.

    Attributes:
        name: its nine letters, such as "trietype0".
        product: the module that it belongs to, such as "RediSearch".
        what: what it holds, such as "suggestions"; empty where the product says it.
        newest: the newest version of its encoding in `source`, None where that is not known.
        counted: its data outside of keys begins with how many things there are.
        source: a public file that has the name.
        date: when that was read.
    """

    name: str
    product: str
    what: str
    newest: int | None
    counted: bool
    source: str
    date: str


@cache
def module_types() -> tuple[ModuleType, ...]:
    """All types that are known, by product."""
    import tomllib  # late: reading a snapshot does not need it

    with open(os.path.join(os.path.dirname(__file__), "products.toml"), "rb") as file:
        table = tomllib.load(file)
    date = str(table["date"])
    return tuple(
        ModuleType(name, product, row.get("what", ""), row.get("newest"), row.get("counted", False), row["source"], date)
        for product, rows in table["product"].items()
        for name, row in rows.items()
    )


@cache
def module_type(name: str) -> ModuleType | None:
    """What is known of a type, None for nothing. Of those that share a name, the first.

    >>> module_type("trietype0").product, module_type("trietype0").what
    ('RediSearch', 'suggestions')
    """
    return next((each for each in module_types() if each.name == name), None)


def module_product(name: str) -> str | None:
    """What a module type belongs to, None where it is not among those that are known.

    >>> module_product("MBbloom--")
    'RedisBloom'
    """
    found = module_type(name)
    return None if found is None else found.product


def product_of(name: str) -> str:
    """The same, or the name of the type where its product is not known."""
    return module_product(name) or name


def product_names() -> list[str]:
    """The products that are known."""
    return list(dict.fromkeys(each.product for each in module_types()))


@cache
def types_of(products: frozenset[str]) -> frozenset[str]:
    """The types of products; a name that is none of these is a type itself.

    >>> sorted(types_of(frozenset({"RedisJSON", "test__rdb"})))
    ['ReJSON-RL', 'test__rdb']
    """
    known = product_names()
    return frozenset(each.name for each in module_types() if each.product in products) | {
        name for name in products if name not in known
    }


def holds_nothing(name: str, size: int) -> bool:
    """Whether data of a module outside of keys has nothing in it, as where the module is loaded and not used.

    Args:
        name: of the module type.
        size: in bytes, with its opcode; 0 where it is not known yet.

    >>> holds_nothing("ft_index0", 15), holds_nothing("GEARS_DT0", 15)
    (True, False)
    """
    known = module_type(name)
    return 0 < size <= (_COUNT_OF_NONE if known is not None and known.counted else _HEAD_AND_END)


def described(name: str) -> str:
    """A type in words: what it is, and its name.

    >>> described("trietype0"), described("vectorset"), described("test__rdb")
    ('RediSearch suggestions (trietype0)', 'vector sets (vectorset)', 'module test__rdb')
    """
    found = module_type(name)
    return f"module {name}" if found is None else f"{found.product} {found.what}".rstrip() + f" ({name})"


def joined(names: Iterable[str]) -> str:
    """The products of types, each once, for humans.

    >>> joined(["ft_index0", "trietype0", "ReJSON-RL"])
    'RediSearch, RedisJSON'
    """
    return ", ".join(sorted({product_of(name) for name in names}))
