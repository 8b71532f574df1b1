"""The edge agent's file: what it says, and that every mistake in it is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mullet.adapters.agent_config import AgentConfigError, parse_agent_config, read_agent_config
from mullet.adapters.broker import broker_settings

EXAMPLE = Path(__file__).parents[3] / "policies" / "agent-gpu-node.yaml"
TEXT = EXAMPLE.read_text(encoding="utf-8")


def test_the_example_is_valid() -> None:
    config = read_agent_config(EXAMPLE)
    assert (config.agent_id, config.facility_id, config.lease_s) == ("gpu-node-1", "west-texas", 60.0)
    assert [load.id for load in config.loads] == [f"chat-gpu-{n:03d}" for n in range(1, 9)]
    assert [load.address for load in config.loads] == [str(n) for n in range(8)]
    assert all(load.agent is None for load in config.loads)
    assert config.loads[0].point(config.loads[0].fail_safe).watts == 400.0
    assert list(config.options["gpu"]["chat-gpu"]) == ["state_file"]
    assert (config.broker.host, config.broker.port, config.broker.tls) == ("broker.example.net", 8883, True)


def test_credentials_are_looked_up_by_name_and_a_missing_one_is_named() -> None:
    broker = read_agent_config(EXAMPLE).broker
    found = broker_settings(broker, lambda name: f"text of {name}")
    assert (found.password, found.ca_pem, found.key_pem) == (
        "text of mqtt-password",
        "text of mqtt-ca",
        "text of mqtt-key",
    )
    assert "mqtt-password" not in repr(found)
    with pytest.raises(ValueError, match="mqtt-password"):
        broker_settings(broker, lambda name: None)


def test_ranges_of_addresses() -> None:
    config = parse_agent_config(TEXT.replace("[0, 1, 2, 3, 4, 5, 6, 7]", "[10.0.1.9-11, 10.0.2.1]"), "f")
    assert [load.address for load in config.loads] == ["10.0.1.9", "10.0.1.10", "10.0.1.11", "10.0.2.1"]


def line_of(fragment: str, text: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), start=1) if fragment in line)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("lease: 60 s  ", "lease: 60  ", "lease: "),
        ("lease: 60 s", "lease: 0 s", "lease: "),
        ("lease: 60 s", "lease: 60 W", "lease: "),
        ("poll: 1 s", "pole: 1 s", "pole: "),
        ("facility: west-texas", "facility: west/texas", "facility: "),
        ("fail_safe: 400W", "fail_safe: 300W", "banks[0]: fail_safe '300W' is none of the points"),
        ("worst: 700 W", "worst: 600 W", "banks[0]: worst is below the highest point"),
        ("{name: 400W, power: 400 W}", "{name: 400W, power: 400 MW}", "banks[0]: points must rise"),
        ("[0, 1, 2, 3, 4, 5, 6, 7]", "[0, 0]", "banks[0]: an address is given twice"),
        ("[0, 1, 2, 3, 4, 5, 6, 7]", "[10.0.0.9-1]", "banks[0].addresses: '10.0.0.9-1' runs backwards"),
        ("mqtts://broker.example.net:8883", "mqtt://broker.example.net", "mqtt: mqtt:// beyond this machine"),
        ("key: mqtt-key", "# no key", "mqtt: cert and key come together"),
        ("kind: gpu", "kind: toaster", "banks[0].kind: "),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, expected: str) -> None:
    text = TEXT.replace(old, new, 1)
    assert text != TEXT
    with pytest.raises(AgentConfigError) as caught:
        parse_agent_config(text, "agent.yaml")
    (problem,) = caught.value.problems
    where, _, what = problem.partition(": ")
    file, _, line = where.partition(":")
    assert file == "agent.yaml"
    assert what.startswith(expected)
    near = {"banks[0]: ": "- id: chat-gpu", "mqtt: ": "mqtt:"}
    fragment = next((at for field, at in near.items() if what.startswith(field)), new)
    assert int(line) == line_of(fragment.strip(), text)


def test_every_mistake_is_told_at_once() -> None:
    text = TEXT.replace("lease: 60 s", "lease: soon").replace("worst: 700 W", "worst: much")
    with pytest.raises(AgentConfigError) as caught:
        parse_agent_config(text, "agent.yaml")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("text", ["", "- a list", "a: [", "a: 1\na: 2", "\t"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(AgentConfigError):
        parse_agent_config(text, "agent.yaml")
