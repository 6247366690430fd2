"""Bicep and Terraform files, read by parsers of these languages, and held against what the services' resources take."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import Any

import hcl2
import tree_sitter
import tree_sitter_bicep

from .rdb import FIXTURES


class Code(str):
    """What is not a literal: an expression of the language."""


# -- Bicep


def parse_bicep(text: str) -> dict[str, dict[str, Any]]:
    """What a file declares, by kind and name: defaults of parameters, (type, properties) of resources, values of what is left."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_bicep.language()))
    root = parser.parse(text.encode()).root_node
    assert not root.has_error, text
    found: dict[str, dict[str, Any]] = {"param": {}, "resource": {}, "output": {}, "var": {}}
    kinds = {
        "parameter_declaration": "param", "resource_declaration": "resource", "output_declaration": "output",
        "variable_declaration": "var",
    }  # fmt: skip
    for node in root.children:
        if node.type not in kinds:
            assert node.type in ("comment", "decorators"), node.type
            continue
        kind, children = kinds[node.type], node.named_children
        name = _source(children[0])
        assert name not in found[kind]
        last = None if kind == "param" and "=" not in {child.type for child in node.children} else _bicep(children[-1])
        found[kind][name] = (_bicep(children[1]), last) if kind == "resource" else last
    return found


def _bicep(node: tree_sitter.Node) -> Any:
    match node.type:
        case "object":
            properties = [each.named_children for each in node.named_children if each.type == "object_property"]
            assert len(properties) == len(node.named_children)
            found = {_bicep(key) if key.type == "string" else _source(key): _bicep(value) for key, value in properties}
            assert len(found) == len(properties)
            return found
        case "array":
            return [_bicep(each) for each in node.named_children]
        case "string":
            assert not any(each.type == "interpolation" for each in node.children), _source(node)
            return _unquoted(_source(node), {"n": "\n", "r": "\r", "t": "\t", "'": "'", "$": "$"}, r"u\{([0-9a-f]+)\}")
        case "number":
            return int(_source(node))
        case "boolean":
            return _source(node) == "true"
        case _:
            return Code(_source(node))


def _source(node: tree_sitter.Node) -> str:
    assert node.text is not None
    return node.text.decode()


# -- Terraform


def parse_terraform(text: str) -> dict[str, Any]:
    """What python-hcl2 makes of a file, with literals as the text that they stand for, and expressions as `Code`."""
    found = _hcl(hcl2.loads(text))
    assert isinstance(found, dict)
    return found


def _hcl(value: Any) -> Any:
    if isinstance(value, dict):
        return {_hcl_text(key): _hcl(each) for key, each in value.items() if key != "__is_block__"}
    if isinstance(value, list):
        return [_hcl(each) for each in value]
    return _hcl_text(value) if isinstance(value, str) else value


def _hcl_text(text: str) -> str:
    if not text.startswith('"'):
        return Code(text.removeprefix("${").removesuffix("}"))
    assert not re.search(r"[$%]\{", text), text
    return _unquoted(text, {"n": "\n", "r": "\r", "t": "\t", '"': '"'}, r"u([0-9a-f]{4})")


def _unquoted(literal: str, escapes: dict[str, str], unicode: str) -> str:
    """The text of a literal, of whose escapes only those that are known may be there."""

    def one(match: re.Match[str]) -> str:
        return chr(int(match[1], 16)) if match[1] else ({"\\": "\\"} | escapes)[match[0][1:]]

    assert literal[0] == literal[-1]
    return re.sub(rf"\\(?:{unicode}|.)", one, literal[1:-1], flags=re.S)


# -- what the services' resources take


def check_bicep(text: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """The resources of a Bicep file, each held against the table of its type."""
    found = parse_bicep(text)
    names = {name for kind in ("param", "resource", "var") for name in found[kind]}
    for kind, body in found["resource"].values():
        table = _tables("arm.toml")[kind]
        body = dict(body)
        parts = kind.count("/")
        assert ("parent" in body) == (parts > 1), kind
        for meta in ("parent", "scope", "dependsOn"):
            body.pop(meta, None)
        _check(body, table, "", kind)
    for code in _codes(found):
        used = set(re.findall(r"(?<![\w.'])([a-z]\w*)(?![\w(]|\s*:)", re.sub(r"'[^']*'", "", code)))
        assert used <= names, (code, used - names)
    return found["resource"]


def check_terraform(text: str) -> dict[tuple[str, str], Any]:
    """The resources of a Terraform file by type and name, each held against the arguments of its type."""
    found = parse_terraform(text)
    tables = _tables("azurerm.toml")
    (settings,), (provider,) = found["terraform"], found["provider"]
    (required,) = settings["required_providers"]
    assert required["azurerm"]["source"] == "hashicorp/azurerm"
    release = tuple(map(int, tables["release"].split(".")))
    assert required["azurerm"]["version"] == f"~> {release[0]}.{release[1]}"
    _check(provider["azurerm"], tables["provider"]["arguments"], "", "provider")
    declared: dict[str, Any] = {"var": {}, "local": {}, "data": {}, "resource": {}}
    for each in found["variable"]:
        declared["var"] |= each
    for each in found["locals"]:
        declared["local"] |= each
    for kind in ("data", "resource"):
        for block in found[kind]:
            for type_, named in block.items():
                for name, body in named.items():
                    arguments = {argument: value for argument, value in body.items() if argument != "depends_on"}
                    _check(arguments, tables[kind][type_]["arguments"], "", type_)
                    assert (type_, name) not in declared[kind]
                    declared[kind][type_, name] = body
    for code in _codes(found):
        for path in re.findall(r"(?<![\w\"/.])[a-z_]\w*(?:\[0\])?(?:\.\w+(?:\[0\])?)+", code):
            _check_reference(path.replace("[0]", "").split("."), declared, tables)
    resources: dict[tuple[str, str], Any] = declared["resource"]
    return resources


def _check_reference(path: list[str], declared: dict[str, Any], tables: dict[str, Any]) -> None:
    """A name in an expression is that of a variable, or of an attribute that a resource of the file has."""
    if path[0] in ("var", "local"):
        assert len(path) == 2, path
        assert path[1] in declared[path[0]], path
        return
    kind, path = ("data", path[1:]) if path[0] == "data" else ("resource", path)
    assert (path[0], path[1]) in declared[kind], path
    table = tables[kind][path[0]]
    # a resource as such is what `depends_on` names
    assert ".".join(path[2:]) in ["", *table["attributes"], *table["arguments"]], path


def argument(resource: str, name: str) -> dict[str, Any]:
    """What the table says of an argument of a resource of Terraform."""
    row: dict[str, Any] = _tables("azurerm.toml")["resource"][resource]["arguments"][name]
    return row


@cache
def _tables(name: str) -> dict[str, Any]:
    return tomllib.loads((FIXTURES / "templates" / name).read_text())


def _check(value: Any, table: dict[str, Any], path: str, what: str) -> None:
    """Every name is in the table, with a value of its type; nothing that is required lacks."""
    if isinstance(value, list):
        for each in value:
            _check(each, table, path, what)
        return
    if isinstance(value, dict):
        prefix = f"{path}." if path else ""
        required = {name for name, row in table.items() if name != "source" and isinstance(row, dict) and row.get("required")}
        here = {name for name in required if name.startswith(prefix) and "." not in name.removeprefix(prefix)}
        missing = here - {prefix + name for name in value}
        assert not missing, (what, missing)
        for name, each in value.items():
            row = table.get(prefix + name)
            assert isinstance(row, dict), (what, prefix + name)
            _check_value(each, row, table, prefix + name, what)


def _check_value(value: Any, row: dict[str, Any], table: dict[str, Any], path: str, what: str) -> None:
    kind = row["type"]
    if kind == "array":
        assert isinstance(value, list), (what, path)
        for each in value:
            if isinstance(each, dict):
                _check(each, table, f"{path}[]", what)
            else:
                _check_value(each, table[f"{path}[]"], table, f"{path}[]", what)
        return
    if kind in ("object", "block"):
        assert isinstance(value, list if kind == "block" else dict), (what, path)
        _check(value, table, path, what)
        return
    if isinstance(value, Code) or value is None:
        return
    types: dict[str, type] = {"string": str, "bool": bool, "int": int, "number": int, "list of string": list}
    assert type(value) is types[kind], (what, path, value)
    if "values" in row:
        assert value in row["values"], (what, path, value)
    if "pattern" in row:
        assert re.search(row["pattern"], str(value)), (what, path, value)


def _codes(value: Any) -> Iterator[str]:
    """The expressions in what was parsed."""
    if isinstance(value, Code):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _codes(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _codes(each)
