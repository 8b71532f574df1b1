"""YAML text -> plain values, each with its line and column; syntax errors and duplicate keys become problems."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from mullet.policy.problems import Path, PolicyErrors, Problem, field_name

_TAG = "tag:yaml.org,2002:"
_MOST_NODES = 300_000
_MOST_DEPTH = 40


@dataclass(slots=True)
class Document:
    """A file as plain dicts, lists and scalars, and where each of them stands (1-based)."""

    file: str
    data: dict[str, Any]
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: Path, message: str, suggestion: str = "", *, at_key: bool = False) -> Problem:
        """Return a problem at `path`, or at the nearest thing above it that the file holds."""
        line, column = self._where(path, at_key)
        return Problem(self.file, line, column, field_name(path), message, suggestion)

    def _where(self, path: Path, at_key: bool) -> tuple[int, int]:
        if at_key and path in self.keys:
            return self.keys[path]
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, (1, 1))


def read_document(text: str, file: str) -> Document:
    """Return the content of a YAML text; problems that leave it readable are in `Document.problems`.

    Raises:
        PolicyErrors: the text is not one YAML mapping.
    """
    try:
        root = YAML(typ="rt", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        raise PolicyErrors([Problem(file, line, column, "", f"not YAML: {_reason(error)}", _advice(error))]) from None
    except YAMLError as error:
        raise PolicyErrors([Problem(file, 1, 1, "", f"not YAML: {' '.join(str(error).split())}")]) from None
    except RecursionError:
        raise PolicyErrors([Problem(file, 1, 1, "", "not a policy: nested too deeply")]) from None
    if root is None:
        raise PolicyErrors([Problem(file, 1, 1, "", "the file is empty", "start from policies/demo.yaml")])
    if not isinstance(root, MappingNode):
        raise PolicyErrors([Problem(file, 1, 1, "", "the file is not a mapping of sections")])
    document = Document(file, {})
    document.data = _Reader(document).read(root)
    return document


class _Reader:
    """Turns nodes into values; aliases are followed, within bounds."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0

    def read(self, root: MappingNode) -> dict[str, Any]:
        value = self._value(root, ())
        assert isinstance(value, dict)
        return value

    def _value(self, node: Node, path: Path) -> Any:
        self._nodes += 1
        self._document.values[path] = _position(node)
        if self._nodes > _MOST_NODES or len(path) > _MOST_DEPTH:
            raise PolicyErrors([self._document.problem(path, "is nested too deeply, or too large with its aliases")])
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return _scalar(node)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in self._pairs(node, path, 0):
            inside = (*path, str(key_node.value))
            self._document.keys[inside] = _position(key_node)
            result[str(key_node.value)] = self._value(value_node, inside)
        return result

    def _pairs(self, node: MappingNode, path: Path, depth: int) -> list[tuple[ScalarNode, Node]]:
        """Keys and values of a mapping, its own before those it merges with `<<`."""
        if depth > _MOST_DEPTH:
            raise PolicyErrors([self._document.problem(path, "merges itself")])
        own: dict[str, tuple[ScalarNode, Node]] = {}
        merged: list[Node] = []
        for key_node, value_node in node.value:
            if str(key_node.tag) == f"{_TAG}merge":
                merged.extend(value_node.value if isinstance(value_node, SequenceNode) else [value_node])
            elif not isinstance(key_node, ScalarNode):
                self._add(_position(key_node), path, "a key must be a word")
            elif str(key_node.value) in own:
                key = str(key_node.value)
                first = _position(own[key][0])[0]
                message = f"the key is given twice (first in line {first})"
                self._add(_position(key_node), (*path, key), message, "remove one of them")
            else:
                own[str(key_node.value)] = (key_node, value_node)
        for source in merged:
            if not isinstance(source, MappingNode):
                self._add(_position(source), path, "<< takes a mapping")
                continue
            for key_node, value_node in self._pairs(source, path, depth + 1):
                own.setdefault(str(key_node.value), (key_node, value_node))
        return list(own.values())

    def _add(self, position: tuple[int, int], path: Path, message: str, suggestion: str = "") -> None:
        self._document.problems.append(Problem(self._document.file, *position, field_name(path), message, suggestion))


def _scalar(node: ScalarNode) -> Any:
    text = str(node.value)
    kind = str(node.tag).removeprefix(_TAG)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    return _number(text) if kind in ("int", "float") else text


def _number(text: str) -> int | float | str:
    """The number, or the text itself where it is none: what wanted a number then says so."""
    plain = text.replace("_", "").lower()
    try:
        if plain.lstrip("+-")[:2] in ("0x", "0o"):
            return int(plain, 0)
        return int(plain) if plain.lstrip("+-").isdecimal() else _finite(float(plain))
    except ValueError:
        return text


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _position(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _reason(error: MarkedYAMLError) -> str:
    text = str(error.problem or error.context or "cannot be read").strip()
    return " ".join(text.split())


def _advice(error: MarkedYAMLError) -> str:
    text = f"{error.problem} {error.context}"
    if "'\\t'" in text or "tab" in text:
        return "indent with spaces, not tabs"
    if "another document" in text:
        return "one file holds one facility"
    if "mapping values are not allowed" in text:
        return "check the indentation, or quote a value that holds a colon"
    return ""
