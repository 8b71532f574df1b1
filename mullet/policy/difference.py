"""What a change of policy changes: fields added, removed and changed, and which of them loosen a guard."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mullet.policy.checks import USABLE_FRACTION
from mullet.policy.loaded import LoadedPolicy

_MODES = ("observe", "advise", "auto")


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs. `before` and `after` are texts as in the file, None where the field is absent."""

    path: str
    kind: str
    """"added", "removed" or "changed"."""
    before: str | None
    after: str | None
    raises_limit: bool
    """It raises a limit or loosens a guard: two approvers are due where the policy asks for them (R48)."""

    def __str__(self) -> str:
        mark = " (raises a limit)" if self.raises_limit else ""
        if self.kind == "changed":
            return f"{self.path}: {self.before} -> {self.after}{mark}"
        return f"{self.path}: {self.kind} {self.after if self.kind == 'added' else self.before}{mark}"


def diff(before: LoadedPolicy, after: LoadedPolicy) -> tuple[Change, ...]:
    """Return the semantic difference of two policies: spelling, order of keys and comments do not count."""
    old, new = _flatten(_with_limits(before.content)), _flatten(_with_limits(after.content))
    old_text, new_text = _flatten(before.document.data), _flatten(after.document.data)
    changes = []
    for path in sorted(set(old) | set(new)):
        was, becomes = old.get(path), new.get(path)
        if was == becomes:
            continue
        kind = "added" if was is None else "removed" if becomes is None else "changed"
        changes.append(
            Change(
                path=path,
                kind=kind,
                before=None if was is None else _text(old_text.get(path, was)),
                after=None if becomes is None else _text(new_text.get(path, becomes)),
                raises_limit=_loosens(path, was, becomes),
            )
        )
    return tuple(changes)


def _with_limits(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with every circuit's usable limit spelled out, so that a rating raised shows as a limit raised."""
    circuits = [
        {**circuit, "limit": circuit["rating"] * USABLE_FRACTION if circuit["limit"] is None else circuit["limit"]}
        for circuit in content["circuits"]
    ]
    return {**content, "circuits": circuits}


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves by path; a list's items go by their id, name or source, else by index. What is empty is absent."""
    if isinstance(value, Mapping):
        items = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value:
        items = [(f"{path}[{_label(item, index)}]", item) for index, item in enumerate(value)]
    else:
        return {} if value is None or value in ([], {}) else {path: value}
    leaves: dict[str, Any] = {}
    for inner, item in items:
        leaves.update(_flatten(item, inner))
    return leaves


def _label(item: Any, index: int) -> str:
    if isinstance(item, Mapping):
        if "source" in item and "action" in item:
            return f"{item['source']}/{item['action']}"
        for name in ("id", "name", "address", "currency"):
            if item.get(name) is not None:
                return str(item[name])
    return str(index)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _higher(was: Any, becomes: Any) -> bool:
    return isinstance(was, int | float) and isinstance(becomes, int | float) and becomes > was


def _lower(was: Any, becomes: Any) -> bool:
    return isinstance(was, int | float) and isinstance(becomes, int | float) and becomes < was


def _gone_or(rule: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda was, becomes: (was is not None and becomes is None) or rule(was, becomes)


def _freer_mode(was: Any, becomes: Any) -> bool:
    return was in _MODES and becomes in _MODES and _MODES.index(becomes) > _MODES.index(was)


_LOOSENING: dict[tuple[str, str], Callable[[Any, Any], bool]] = {
    ("circuits", "limit"): _higher,
    ("circuits", "failsafe_limit"): _gone_or(_higher),
    ("circuits", "unmanaged_max"): _gone_or(_lower),
    ("circuits", "meter_error"): _lower,
    ("circuits", "meter"): _gone_or(lambda was, becomes: False),
    ("circuits", "switch"): _gone_or(lambda was, becomes: False),
    ("circuits", "accept_unleased"): lambda was, becomes: becomes is True,
    ("circuits", "mode"): _freer_mode,
    ("facility", "mode"): _freer_mode,
    ("banks", "worst"): _gone_or(_lower),
    ("banks", "tolerance"): _lower,
    ("banks", "identity"): _gone_or(lambda was, becomes: was != becomes),
    ("banks", "agent"): _gone_or(lambda was, becomes: False),
    ("safety", "max_age"): _gone_or(_higher),
    ("leases", "duration"): _higher,
    ("economics", "low"): _lower,
    ("economics", "high"): _higher,
    ("pacing", "ramp"): _higher,
    ("pacing", "block"): _higher,
    ("api", "allow_remote"): lambda was, becomes: becomes is True,
    ("mqtt", "allow_plaintext"): lambda was, becomes: becomes is True,
}


def _loosens(path: str, was: Any, becomes: Any) -> bool:
    section = path.partition(".")[0].partition("[")[0]
    rule = _LOOSENING.get((section, path.rpartition(".")[2]))
    return rule is not None and rule(was, becomes)
