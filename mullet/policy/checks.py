"""Checks what the sections say of each other: the circuit tree, references, ids, points, feeds, links."""

from __future__ import annotations

import ipaddress
from typing import Any

from mullet.domain.units import format_watts
from mullet.policy.bank_checks import check_banks
from mullet.policy.draft import Draft
from mullet.policy.options import check_driver
from mullet.policy.plant import (
    AuxiliarySection,
    CircuitSection,
    MeterSection,
    ServiceSection,
    SwitchSection,
)
from mullet.policy.problems import Path
from mullet.policy.settings import (
    ApiSection,
    EconomicsSection,
    FeedSection,
    FeedsSection,
    LeasesSection,
    MqttSection,
    PacingSection,
    PlanningSection,
    SafetySection,
    ThermalSection,
)
from mullet.policy.wiring import KnownNames

Options = dict[str, dict[int | str, dict[str, Any]]]
"""Options of drivers, defaults filled in: by section, then by index in a list or name."""

SENSORS = {"ambient": "degC", "coolant": "degC", "flow": "L/min"}
"""Feeds that gate waking, and the unit in which each is read."""
USABLE_FRACTION = 0.8
"""Share of a rating that may be used unless the policy says why more (80 % of a continuous rating, R3)."""


def check(draft: Draft, known: KnownNames) -> Options:
    """Report every contradiction in `draft`; return the drivers' options by section and index."""
    for section in ("circuits", "banks", "meters", "switches", "services", "auxiliaries", "accounts"):
        _check_ids(draft, section)
    _check_tree(draft)
    _check_circuits(draft)
    options: Options = {"meters": {}, "switches": {}, "services": {}}
    for index, meter in draft.items("meters", MeterSection):
        found = check_driver(draft, known.meters, "meter", meter.driver, meter.options, ("meters", index))
        options["meters"][index] = found or {}
    for index, switch in draft.items("switches", SwitchSection):
        found = check_driver(draft, known.switches, "switch", switch.driver, switch.options, ("switches", index))
        options["switches"][index] = found or {}
    for index, service in draft.items("services", ServiceSection):
        metrics, path = service.metrics, ("services", index, "metrics")
        found = check_driver(draft, known.feeds, "feed", metrics.driver, metrics.options, path, {"service": service.id})
        options["services"][index] = found or {}
    options["banks"] = check_banks(draft, known)
    for index, auxiliary in draft.items("auxiliaries", AuxiliarySection):
        draft.refer(("auxiliaries", index, "circuit"), "circuit", auxiliary.circuit, draft.ids("circuits"))
    options["feeds"] = _check_feeds(draft, known)
    _check_thermal(draft)
    _check_settings(draft)
    _check_links(draft)
    return options


def _check_ids(draft: Draft, section: str) -> None:
    raw = draft.document.data.get(section)
    first: dict[str, int] = {}
    for index, item in enumerate(raw if isinstance(raw, list) else []):
        if not isinstance(item, dict) or not isinstance(item.get("id"), str | int):
            continue
        name = str(item["id"])
        if name in first:
            path: Path = (section, first[name], "id")
            line = draft.document.problem(path, "").line
            draft.report(
                (section, index, "id"), f"{name!r} is given twice (first in line {line})", "rename one of them"
            )
        first.setdefault(name, index)


def _check_tree(draft: Draft) -> None:
    """Parents exist, one grid connection, no ring; read from the raw file, so other errors do not hide it."""
    raw = draft.document.data.get("circuits")
    ids = draft.ids("circuits")
    if not isinstance(raw, list) or not ids:
        return
    parents: dict[str, str | None] = {}
    for name, index in ids.items():
        parent = raw[index].get("parent")
        parents[name] = None if parent is None else str(parent)
        if parent is not None:
            draft.refer(("circuits", index, "parent"), "circuit", str(parent), ids)
    roots = [name for name, parent in parents.items() if parent is None]
    for name in roots[1:]:
        message = f"{name!r} is a second grid connection besides {roots[0]!r}"
        draft.report(("circuits", ids[name]), message, "give it a parent; one file holds one grid connection")
    in_ring: set[str] = set()
    for name in parents:
        trail: list[str] = []
        node: str | None = name
        while node is not None and node in parents and node not in trail:
            trail.append(node)
            node = parents[node]
        if node is not None and node in trail and node not in in_ring:
            ring = trail[trail.index(node) :]
            in_ring.update(ring)
            draft.report(("circuits", ids[node], "parent"), f"the circuits run in a ring: {' -> '.join([*ring, node])}")
    if not roots and not in_ring:
        draft.report(("circuits",), "there is no grid connection", "leave out the parent of exactly one circuit")


def _check_circuits(draft: Draft) -> None:
    used: dict[tuple[str, str], str] = {}
    for index, circuit in draft.items("circuits", CircuitSection):
        path: Path = ("circuits", index)
        _check_limit(draft, circuit, path)
        for section, name in (("meters", circuit.meter), ("switches", circuit.switch)):
            if name is None:
                continue
            what = section.removesuffix("es" if section == "switches" else "s")
            draft.refer((*path, what), what, name, draft.ids(section))
            if (section, name) in used:
                message = f"{what} {name!r} already stands on circuit {used[section, name]!r}"
                draft.report((*path, what), message, f"a {what} belongs to one circuit")
            used.setdefault((section, name), circuit.id)
        given = draft.document.data["circuits"][index]
        if given.get("meter") is None and given.get("unmanaged_max") is None:
            message = f"{circuit.id!r} has neither a meter nor unmanaged_max, so load that nobody manages stays unseen"
            draft.report(path, message, "name its meter, or give unmanaged_max ('0 W' if there is none)")
    for section in ("meters", "switches"):
        ids = draft.ids(section)
        for name, index in ids.items():
            # A name that does not exist may be this one, misspelt.
            if (section, name) not in used and all(other in ids for where, other in used if where == section):
                draft.report(
                    (section, index, "id"), f"{name!r} stands on no circuit", "name it in a circuit, or remove it"
                )


def _check_limit(draft: Draft, circuit: CircuitSection, path: Path) -> None:
    usual = circuit.rating * USABLE_FRACTION
    limit = usual if circuit.limit is None else circuit.limit
    if limit > circuit.rating:
        message = f"{format_watts(limit)} is above the rating {format_watts(circuit.rating)}"
        draft.report((*path, "limit"), message, "lower the limit or raise the rating")
    elif limit > usual * (1.0 + 1e-9) and not (circuit.limit_reason or "").strip():
        message = f"{format_watts(limit)} is above 80 % of the rating ({format_watts(usual)}) without a reason"
        draft.report((*path, "limit"), message, "lower it, or say in limit_reason why more may be used")
    if circuit.failsafe_limit is not None and circuit.failsafe_limit > limit:
        message = f"{format_watts(circuit.failsafe_limit)} is above the usable limit {format_watts(limit)}"
        draft.report((*path, "failsafe_limit"), message, "lower it")
    if circuit.failsafe_limit is not None and circuit.meter is None:
        draft.report((*path, "failsafe_limit"), "needs a meter that can fall silent", "name the meter, or remove it")


def _check_thermal(draft: Draft) -> None:
    thermal, feeds = draft.section("thermal", ThermalSection), draft.section("feeds", FeedsSection)
    if thermal is None or feeds is None:
        return
    for sensor in SENSORS:
        least, most = getattr(thermal, f"{sensor}_min", None), getattr(thermal, f"{sensor}_max", None)
        given = f"{sensor}_min" if least is not None else f"{sensor}_max"
        if (least is not None or most is not None) and getattr(feeds, sensor) is None:
            advice = f"add feeds.{sensor}, or remove the limit"
            draft.report(("thermal", given), f"nothing tells it: there is no feed {sensor!r}", advice)
        if least is not None and most is not None and least >= most:
            draft.report(("thermal", f"{sensor}_max"), f"is not above {sensor}_min", "order them")


def _check_feeds(draft: Draft, known: KnownNames) -> dict[int | str, dict[str, Any]]:
    options: dict[int | str, dict[str, Any]] = {}
    feeds = draft.section("feeds", FeedsSection)
    if feeds is None:
        return options
    rates = {rate.currency for rate in feeds.fx or ()}
    for name in ("price", "limits", "hashprice", *SENSORS):
        feed: FeedSection | None = getattr(feeds, name)
        if feed is None:
            continue
        given = {"unit": SENSORS[name]} if name in SENSORS else {"currency": feed.currency or draft.currency}
        found = check_driver(draft, known.feeds, "feed", feed.driver, feed.options, ("feeds", name), given)
        options[name] = found or {}
        if feed.currency is not None and feed.currency != draft.currency and feed.currency not in rates:
            message = f"{feed.currency} is not the facility's {draft.currency}, and feeds.fx has no rate for it"
            draft.report(("feeds", name, "currency"), message, f"add a rate for {feed.currency} to feeds.fx")
        if feed.max_age <= feed.poll:
            draft.report(
                ("feeds", name, "max_age"), "is not longer than the poll period", "a feed would always be stale"
            )
    seen: set[str] = set()
    for index, rate in enumerate(feeds.fx or ()):
        if rate.currency in seen or rate.currency == draft.currency:
            draft.report(("feeds", "fx", index, "currency"), f"{rate.currency} needs no second rate", "remove it")
        seen.add(rate.currency)
    return options


def _check_settings(draft: Draft) -> None:
    economics = draft.section("economics", EconomicsSection)
    if economics is not None:
        low, high = economics.price_bounds.low, economics.price_bounds.high
        if low >= high:
            draft.report(("economics", "price_bounds"), "low is not below high")
        elif not low <= economics.fallback_price <= high:
            draft.report(("economics", "fallback_price"), "is outside price_bounds", "a fallback must be believable")
        if economics.pool_fee >= 1.0:
            draft.report(("economics", "pool_fee"), "leaves nothing", "a pool fee is a few per cent")
    leases = draft.section("leases", LeasesSection)
    if leases is not None and leases.renew >= leases.duration:
        draft.report(("leases", "renew"), "is not shorter than the lease", "renew a few times within a lease")
    pacing = draft.section("pacing", PacingSection)
    if pacing is not None and pacing.backoff_first > pacing.backoff_most:
        draft.report(("pacing", "backoff_first"), "is longer than backoff_most")
    planning = draft.section("planning", PlanningSection)
    for index, step in enumerate(planning.steps if planning is not None else []):
        if planning is not None and index and step.every < planning.steps[index - 1].every:
            draft.report(("planning", "steps", index, "every"), "is shorter than the step before", "order near to far")
    rows: set[tuple[str, str]] = set()
    for index, row in draft.items("safety", SafetySection):
        if (row.source, row.action) in rows:
            draft.report(("safety", index), f"{row.source} with action {row.action.value} is given twice")
        rows.add((row.source, row.action))


def _check_links(draft: Draft) -> None:
    api = draft.section("api", ApiSection)
    if api is not None:
        parsed = split_listen(api.listen)
        if parsed is None:
            draft.report(("api", "listen"), f"{api.listen!r} is no host:port", "write it as '127.0.0.1:8780'")
        elif not is_loopback(parsed[0]) and not api.allow_remote:
            message = f"{parsed[0]} is reachable from beyond this machine"
            draft.report(("api", "listen"), message, "listen on 127.0.0.1, or say allow_remote: true")
    mqtt = draft.section("mqtt", MqttSection)
    if mqtt is None:
        return
    address = split_listen(mqtt_authority(mqtt.url))
    if address is None:
        draft.report(("mqtt", "url"), f"{mqtt.url!r} has no usable host and port", "write it as 'mqtts://broker:8883'")
    elif mqtt.url.startswith("mqtt://") and not is_loopback(address[0]) and not mqtt.allow_plaintext:
        draft.report(("mqtt", "url"), f"commands to {address[0]} would travel in the clear", "use mqtts://")
    if (mqtt.cert is None) != (mqtt.key is None):
        draft.report(("mqtt", "key" if mqtt.key is None else "cert"), "cert and key go together")


def mqtt_authority(url: str) -> str:
    """Return host:port of a broker URL, with the usual port where it gives none."""
    authority = url.partition("://")[2]
    if ":" in authority.rpartition("]")[2]:
        return authority
    return f"{authority}:{8883 if url.startswith('mqtts') else 1883}"


def split_listen(text: str) -> tuple[str, int] | None:
    """Return (host, port) of "host:port" or "[::1]:port", or None."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65_535:
        return None
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
