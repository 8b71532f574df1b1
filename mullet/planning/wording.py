"""A plan's reasons as sentences: plain English, numbers with their units, times in UTC."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from mullet.domain.load import LoadKind
from mullet.domain.units import format_watts
from mullet.planning.explain import CIRCUIT, Armed, Binding, Certificate, Explanation
from mullet.planning.worth import DEMAND, PRICE, START, Change, GroupWorth, StepWorth, Switch

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_RULES = {
    "ramp": ("the ramp limit of {0} binds", "a MW more of it is worth {1}/h"),
    "award": ("the reserve sold at {0} binds", "a MW less to be kept droppable is worth {1}/h"),
    "peak": ("demand charge {0} binds", "a MW less of import is worth {1}/h"),
    "curtailment": ("the curtailment budget of {0} binds", "one more MWh of it is worth {1}"),
    "uptime": ("the uptime promised to {0} binds", "it costs {1} per MWh that the loads draw for it"),
}
_WAITS = "start-up cost, minimum times or pacing"


def moment(at: float) -> str:
    """Return an instant as "Tue 14:05", in UTC."""
    when = datetime.fromtimestamp(at, UTC)
    return f"{_DAYS[when.weekday()]} {when:%H:%M}"


def span(start: float, end: float) -> str:
    """Return [start, end) as "Tue 14:05-16:20", in UTC."""
    last = moment(end)
    return f"{moment(start)}-{last.split()[1] if 0.0 < end - start < 86_400.0 and _same_day(start, end) else last}"


def _same_day(start: float, end: float) -> bool:
    return datetime.fromtimestamp(start, UTC).date() == datetime.fromtimestamp(end, UTC).date()


def money(value: float) -> str:
    """Return an amount with as many decimals as its size deserves: "1,234", "41.2", "0.85"."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100.0 else f"{value:.1f}" if size >= 10.0 else f"{value:.2f}"


def binding_words(binding: Binding, currency: str) -> str:
    """Return what binds, when, and what one more MW is worth."""
    worth = f"{money(binding.mean_per_mwh)} {currency}"
    if binding.rule == CIRCUIT:
        limit = "" if binding.limit_watts is None else f" at {format_watts(binding.limit_watts)}"
        why = "" if binding.cause is None else f" ({binding.cause.value.replace('_', ' ')})"
        what, value = f"{binding.subject} binds{limit}{why}", f"one more MW is worth {worth}/h"
    else:
        subject, text = _RULES.get(binding.rule, (f"{binding.rule} {{0}} binds", "easing it by a MW is worth {1}/h"))
        what, value = subject.format(binding.subject), text.format(binding.subject, worth)
    most = binding.most_per_mwh > 1.05 * binding.mean_per_mwh
    peak = f", {money(binding.most_per_mwh)} at most" if most else ""
    return f"{what} {span(binding.start, binding.end)}, {value}{peak}"


def armed_words(armed: Armed, currency: str) -> str:
    """Return what is kept free for a service, for how long, and what that costs."""
    costs = "costs nothing" if armed.cost < 0.005 else f"costs {money(armed.cost)} {currency} of mining"
    when = span(armed.start, armed.end)
    return f"{format_watts(armed.watts)} stay free for a step in demand of {armed.service} {when}, which {costs}"


def certificate_words(found: Certificate, currency: str) -> str:
    """Return what the plan earns and how much better any plan could be."""
    earned = f"the plan earns {money(found.objective)} {currency}"
    if found.bound is None or found.gap is None:
        return f"{earned}; nothing is known of how much better a plan could be"
    percent = "" if found.gap_percent is None else f" ({found.gap_percent:.3f} %)"
    return f"{earned}; no plan earns more than {money(found.bound)}, a gap of {money(found.gap)}{percent}"


def change_words(change: Change) -> str:
    """Return when how many loads go up or down, and why."""
    up = change.watts > 0.0
    way = f"{'up' if up else 'down'} by {format_watts(abs(change.watts))}"
    if change.because == PRICE:
        why = f"the price is {change.price_per_mwh:.2f} then"
    elif change.because.startswith(f"{CIRCUIT}:"):
        why = f"{change.because.partition(':')[2]} {'has room' if up else 'binds'} then"
    elif change.because == START:
        why = f"{_WAITS} decide"
    elif change.because == DEMAND:
        why = "demand for inference"
    else:
        why = _program(change.because)
    return f"{moment(change.at)}: {_loads(change.loads)} {way}; {why}"


def switch_words(switch: Switch, currency: str, up: bool) -> str:
    """Return what would move the next load from where it stands."""
    way = f"{switch.point_from} to {switch.point_to}"
    if switch.price_per_mwh is not None:
        side, other = ("below", "above") if up else ("above", "below")
        hashprice = "" if switch.hashprice is None else f", or hashprice {other} {switch.hashprice:.2f} {currency}/PH/d"
        return f"{way} {side} {switch.price_per_mwh:.2f} {currency}/MWh{hashprice}"
    held = switch.held_by or START
    if held == START:
        return (
            f"{way}: {_loads(switch.loads)} would pay; {_WAITS} decide"
            if up
            else f"{way}: stays on at a loss; {_WAITS}"
        )
    if held == DEMAND:
        return f"{way}: follows demand, no price bends it"
    if not held.startswith(f"{CIRCUIT}:"):
        return f"{way}: {_loads(switch.loads)} would pay; {_program(held)}"
    node = held.partition(":")[2]
    if switch.limit_watts is None or switch.limit_for_next_watts is None or switch.limit_for_all_watts is None:
        return f"{way}: {_loads(switch.loads)} wait for room at {node}"
    one, everything = switch.limit_for_next_watts - switch.limit_watts, switch.limit_for_all_watts - switch.limit_watts
    rest = "" if switch.loads == 1 else f", all {switch.loads} with {format_watts(everything)} more"
    if one <= 0.0:
        return f"{way}: {node} binds at {format_watts(switch.limit_watts)} and others there earn more{rest}"
    return f"{way}: {node} holds it at {format_watts(switch.limit_watts)}; one goes with {format_watts(one)} more{rest}"


def group_words(worth: GroupWorth, currency: str) -> Iterator[str]:
    """Yield what the group's loads earn, when they change next, and what would change them now."""
    for step in worth.steps if worth.kind is LoadKind.MINER else worth.steps[-1:]:
        if worth.kind is LoadKind.GPU and step.margin_per_hour < 0.0:
            yield f"{step.point_to}: {step.loads} of {worth.loads} loads; power follows demand, no price bends it"
            continue
        side = "above" if step.margin_per_mwh >= 0.0 else "below"
        yield (
            f"{step.point_to}: {step.loads} of {worth.loads} loads; breaks even at {step.break_even_per_mwh:.2f} "
            f"{currency}/MWh, {abs(step.margin_per_mwh):.2f} {side} the price; "
            f"each {_earns(step)} "
            f"{abs(step.margin_per_hour):.3f} {currency}/h by it"
        )
    yield "next change: " + ("none expected" if worth.next_change is None else change_words(worth.next_change))
    if worth.more is not None:
        yield "next load up: " + switch_words(worth.more, currency, up=True)
    if worth.less is not None:
        yield "next load down: " + switch_words(worth.less, currency, up=False)


def _earns(step: StepWorth) -> str:
    if step.loads:
        return "earns" if step.margin_per_hour >= 0.0 else "loses"
    return "would earn" if step.margin_per_hour >= 0.0 else "would lose"


def plan_words(found: Explanation) -> Iterator[str]:
    """Yield the reasons of the whole plan, a sentence each: certificate, what binds, what is armed."""
    yield certificate_words(found.certificate, found.currency)
    if not found.bindings:
        yield "no limit binds"
    for binding in found.bindings:
        yield binding_words(binding, found.currency)
    for armed in found.armed:
        yield armed_words(armed, found.currency)


def _loads(count: int) -> str:
    return "1 load" if count == 1 else f"{count} loads"


def _program(key: str) -> str:
    rule, _, subject = key.partition(":")
    words, _ = _RULES.get(rule, (f"{rule} {{0}} binds", ""))
    return words.format(subject)
