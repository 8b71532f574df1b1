"""Broken policies: every problem at once, each with line, column, field and what to write instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_kit import KNOWN, SMALL, load, problems, small

from mullet.policy import LoadedPolicy, PolicyErrors, load_policy
from mullet.policy.document import read_document

GOLDEN = Path(__file__).parents[2] / "golden" / "policies"
BROKEN = sorted(GOLDEN.glob("*.yaml"))


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_broken_policy_is_refused_as_the_golden_file_says(path: Path) -> None:
    with pytest.raises(PolicyErrors) as caught:
        load_policy(path.read_text(), path.name, KNOWN)
    printed = "".join(f"{problem}\n" for problem in caught.value.problems)
    assert printed == path.with_suffix(".expected").read_text()


def test_there_are_ten_broken_policies_and_more() -> None:
    assert len(BROKEN) >= 10
    assert sorted(path.stem for path in GOLDEN.glob("*.expected")) == [path.stem for path in BROKEN]


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_every_problem_points_at_a_place_in_the_file(path: Path) -> None:
    lines = path.read_text().splitlines()
    with pytest.raises(PolicyErrors) as caught:
        load_policy(path.read_text(), path.name, KNOWN)
    for problem in caught.value.problems:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1


def test_the_small_policy_that_the_others_break_is_good() -> None:
    assert load(small()).warnings == ()


def test_a_problem_reads_as_file_line_column_field_message_suggestion() -> None:
    text = json.dumps(small(), indent=1).replace('"rating": "100 kW"', '"rating": "12 MW", "limit": "14 MW"')
    with pytest.raises(PolicyErrors) as caught:
        load(text)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "14 MW" in row)
    column = text.splitlines()[line - 1].index('"14 MW"') + 1
    expected = "circuits[0].limit: 14 MW is above the rating 12 MW; lower the limit or raise the rating"
    assert str(caught.value.problems[0]) == f"p.yaml:{line}:{column}: {expected}"


def test_errors_of_shape_do_not_hide_errors_of_reference() -> None:
    policy = small()
    policy["banks"][0].update(worst="3.2", circuit="nowhere")
    policy["circuits"][1]["parent"] = "pio"
    found = problems(policy)
    assert "banks[0].worst: '3.2' has no unit" in found
    assert "banks[0].circuit: there is no circuit 'nowhere'" in found
    assert "circuits[1].parent: there is no circuit 'pio'" in found
    assert len(found) == 3


def test_an_implied_option_may_not_be_contradicted() -> None:
    policy = small()
    policy["services"][0]["metrics"]["options"]["service"] = "code"
    assert problems(policy) == [
        "services[0].metrics.options.service: 'code' is not 'chat', which the file says above it"
    ]


def test_an_empty_optional_section_is_as_good_as_none() -> None:
    assert load(small(safety=None, accounts=None, thermal=None, mqtt=None)).hash == load(small()).hash


def test_a_load_may_not_have_the_id_of_a_circuit() -> None:
    policy = small()
    policy["circuits"].append({"id": "wm-003", "parent": "poi", "rating": "1 kW", "unmanaged_max": "0 W"})
    assert problems(policy) == ["banks[0].id: its load 'wm-003' has the id of a circuit"]


def test_gpus_of_two_agents_may_have_the_same_index_but_not_of_one() -> None:
    policy = small()
    policy["banks"].append({**policy["banks"][1], "id": "more", "agent": "other-node"})
    load(policy)
    policy["banks"][2]["agent"] = "node"
    assert problems(policy) == ["banks[2].addresses: 0 and 3 more also in banks[1]"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "nested too deeply"),
        ("a: &a {<<: *a}", "merges itself"),
        ("[1, 2]", "not a mapping"),
        ("--- {a: 1}\n--- {b: 1}\n", "another document"),
        ("\x00", "not YAML"),
        (f"a: {'[' * 60}{']' * 60}", "nested too deeply"),
        ("? [a, b]\n: 1", "a key must be a word"),
    ],
)
def test_hostile_yaml_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyErrors, match=message):
        load(text)


def test_aliases_that_multiply_are_refused() -> None:
    rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(PolicyErrors, match="too large"):
        load("\n".join(rows))


def test_merge_keys_are_followed_and_own_keys_win() -> None:
    document = read_document("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\n", "p.yaml")
    assert document.data["use"] == {"y": 3, "x": 1}


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += _paths(item, (*path, key))
    return found


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "poi", "12 MW", "-3 kW", "5", "5 furlongs", ".nan", "learn", "10.0.0.0-1", "é", "auto", "wm"]),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.sampled_from(["id", "count", "driver"]), st.integers(0, 9), max_size=2),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(_paths(SMALL)), JUNK, st.booleans()), min_size=1, max_size=4))
def test_any_file_is_loaded_or_refused_with_its_problems(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> None:
    policy = small()
    for path, junk, remove in changes:
        holder: Any = policy
        for part in path[:-1]:
            inside = (
                isinstance(holder, list) and len(holder) > part if isinstance(part, int) else isinstance(holder, dict)
            )
            holder = (holder[part] if isinstance(part, int) else holder.get(part)) if inside else None
            if holder is None:
                break
        if not isinstance(holder, dict):
            continue
        if remove:
            holder.pop(path[-1], None)
        else:
            holder[path[-1]] = junk
    result = _outcome(policy)
    if isinstance(result, LoadedPolicy):
        assert result.facility.loads
    else:
        assert result.problems
        assert all(problem.message and problem.line >= 1 for problem in result.problems)


def _outcome(policy: dict[str, Any]) -> LoadedPolicy | PolicyErrors:
    try:
        return load(policy)
    except PolicyErrors as refused:
        return refused
