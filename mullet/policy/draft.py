"""Checks the shape of a document section by section, so that one bad field hides no other problem."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mullet.domain.facility import Mode
from mullet.policy.document import Document
from mullet.policy.plant import NO_ENGINE, Section
from mullet.policy.problems import Path, Problem, nearest_or_all
from mullet.policy.settings import PolicyModel

S = TypeVar("S", bound=Section)


@dataclass(slots=True)
class Draft:
    """What of a document has the right shape: lists as {index: item}, single sections where they are good."""

    document: Document
    lists: dict[str, dict[int, Any]] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unenforced: list[Path] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)
    """Fields of the wrong shape: what else could be said of them is not worth saying."""
    currency: str = "USD"
    mode: Mode = Mode.OBSERVE

    def items(self, name: str, kind: type[S]) -> list[tuple[int, S]]:
        """Return (index, item) of those items of a list section that have the right shape."""
        return [(index, item) for index, item in self.lists.get(name, {}).items() if isinstance(item, kind)]

    def section(self, name: str, kind: type[S]) -> S | None:
        """Return a single section, or None where it is absent or has the wrong shape."""
        value = self.sections.get(name)
        return value if isinstance(value, kind) else None

    def ids(self, name: str) -> dict[str, int]:
        """Return every id that a list section gives (well-formed or not) and the index that gives it first."""
        found: dict[str, int] = {}
        raw = self.document.data.get(name)
        for index, item in enumerate(raw if isinstance(raw, list) else []):
            if isinstance(item, dict) and isinstance(item.get("id"), str | int):
                found.setdefault(str(item["id"]), index)
        return found

    def report(self, path: Path, message: str, suggestion: str = "", *, at_key: bool = False) -> None:
        """Add a problem, unless the field already has the wrong shape."""
        if any(path[:length] in self.broken for length in range(1, len(path) + 1)):
            return
        self.problems.append(self.document.problem(path, message, suggestion, at_key=at_key))

    def refer(self, path: Path, what: str, name: str, known: Iterable[str]) -> None:
        """Report `name` where it is none of the known ones."""
        names = list(known)
        if name not in names:
            self.report(path, f"there is no {what} {name!r}", nearest_or_all(name, names))


def draft_of(document: Document) -> Draft:
    """Return the parts of `document` that have the right shape, with every problem of shape."""
    draft = Draft(document, problems=list(document.problems))
    facility = document.data.get("facility")
    if isinstance(facility, dict):
        currency, mode = facility.get("currency"), facility.get("mode")
        if isinstance(currency, str) and re.fullmatch(r"[A-Z]{3}", currency):
            draft.currency = currency
        if isinstance(mode, str) and mode in Mode.__members__.values():
            draft.mode = Mode(mode)
    known = PolicyModel.model_fields
    for name in document.data:
        if name not in known:
            draft.report((name,), f"unknown key {name!r}", nearest_or_all(name, known), at_key=True)
    for name, info in known.items():
        model, is_list = _model_of(info.annotation)
        assert model is not None
        if document.data.get(name) is None:
            if info.is_required():
                draft.report((name,), "is missing", f"add a section {name!r}")
            elif info.default_factory is not None and not is_list:
                draft.sections[name] = _validate(draft, model, {}, (name,))
            continue
        raw = document.data[name]
        if is_list:
            _read_list(draft, name, model, raw, required=info.is_required())
        else:
            draft.sections[name] = _validate(draft, model, raw, (name,))
    _find_unenforced(draft, PolicyModel, document.data, ())
    return draft


def _read_list(draft: Draft, name: str, model: type[Section], raw: Any, *, required: bool) -> None:
    if not isinstance(raw, list):
        draft.report((name,), "must be a list", "start each item with '- '")
        return
    if required and not raw:
        draft.report((name,), "is empty")
    draft.lists[name] = {index: _validate(draft, model, item, (name, index)) for index, item in enumerate(raw)}


def _validate(draft: Draft, model: type[Section], raw: Any, path: Path) -> Section | None:
    if not isinstance(raw, dict):
        draft.report(path, "must be a mapping of fields", "write 'name: value' lines")
        return None
    try:
        return model.model_validate(raw, context={"currency": draft.currency})
    except ValidationError as error:
        errors = error.errors(include_url=False)
    draft.problems.extend(_problem(draft.document, model, path, details) for details in errors)
    wrong = {str(details["loc"][0]) for details in errors if details["loc"]}
    draft.broken.update((*path, name) for name in wrong)
    # What is right is still checked against the rest of the file: the wrong fields stand in with harmless values.
    rest = {name: value for name, value in raw.items() if name not in wrong}
    rest.update((name, value) for name, value in model.stand_ins.items() if name in wrong)
    try:
        return model.model_validate(rest, context={"currency": draft.currency})
    except ValidationError:
        return None


def _problem(document: Document, model: type[Section], base: Path, details: ErrorDetails) -> Problem:
    loc = tuple(part for part in details["loc"] if part != "[key]")
    path, kind, context = base + loc, details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        word, owner = str(loc[-1]), _model_at(model, loc[:-1])
        names = owner.model_fields if owner is not None else ()
        return document.problem(path, f"unknown key {word!r}", nearest_or_all(word, names), at_key=True)
    if kind == "missing":
        owner = _model_at(model, loc[:-1])
        hint = owner.model_fields[str(loc[-1])].description if owner is not None else None
        return document.problem(path, "is missing", f"add {loc[-1]!r}: {hint}" if hint else f"add {loc[-1]!r}")
    if details["input"] is None:
        return document.problem(path, "has no value", "give one, or remove the line")
    if kind == "policy":
        return document.problem(path, str(context["message"]), str(context["suggestion"]))
    message, suggestion = _plain(kind, context, details["input"])
    if kind == "string_pattern_mismatch":
        owner = _model_at(model, loc[:-1])
        hint = owner.model_fields[str(loc[-1])].description if owner is not None else None
        suggestion = hint or suggestion
    return document.problem(path, message or _lowered(details["msg"]), suggestion)


def _plain(kind: str, context: dict[str, Any], value: Any) -> tuple[str, str]:
    """Messages of pydantic's that can be said better; ("", "") where its own will do."""
    if kind in ("enum", "literal_error"):
        expected = str(context.get("expected", ""))
        names = re.findall(r"'([^']+)'", expected)
        return f"{value!r} is not known here", nearest_or_all(str(value), names)
    if kind == "string_pattern_mismatch":
        return f"{value!r} does not have the right form", f"it must match {context.get('pattern')}"
    if kind in ("greater_than", "greater_than_equal"):
        return (
            f"{value!r} is too low",
            "it must be above 0" if kind == "greater_than" else f"the least is {context['ge']}",
        )
    if kind == "less_than_equal":
        return f"{value!r} is too high", f"the most is {context['le']}"
    if kind in ("model_type", "dict_type"):
        return "must be a mapping of fields", ""
    if kind == "list_type":
        return "must be a list", "start each item with '- '"
    if kind == "string_type":
        return f"{value!r} is not a text", "quote it"
    if kind in ("int_type", "int_from_float", "int_parsing"):
        return f"{value!r} is not a whole number", ""
    if kind == "bool_type":
        return f"{value!r} is not true or false", ""
    return "", ""


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:]


def _model_of(annotation: Any) -> tuple[type[Section] | None, bool]:
    """The section class within an annotation, and whether it is a list of them."""
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        inner = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        return _model_of(inner[0])
    if origin is typing.Annotated:
        return _model_of(typing.get_args(annotation)[0])
    if origin is list:
        return _model_of(typing.get_args(annotation)[0])[0], True
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    return None, False


def _model_at(model: type[Section], loc: tuple[str | int, ...]) -> type[Section] | None:
    current: type[Section] | None = model
    for part in loc:
        if isinstance(part, int):
            continue
        if current is None or part not in current.model_fields:
            return None
        current = _model_of(current.model_fields[part].annotation)[0]
    return current


def _find_unenforced(draft: Draft, model: type[Section], raw: Any, path: Path) -> None:
    if isinstance(raw, list):
        for index, item in enumerate(raw):
            _find_unenforced(draft, model, item, (*path, index))
        return
    if not isinstance(raw, dict):
        return
    for name, info in model.model_fields.items():
        if raw.get(name) is None:
            continue
        extra = info.json_schema_extra
        if isinstance(extra, dict) and extra.get("x-enforced") == NO_ENGINE:
            draft.unenforced.append((*path, name))
            continue
        inner = _model_of(info.annotation)[0]
        if inner is not None:
            _find_unenforced(draft, inner, raw[name], (*path, name))
