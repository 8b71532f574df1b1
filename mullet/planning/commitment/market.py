"""The grid connection in the program: energy imported and sold back, and what its peaks cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mullet.planning.commitment.assembly import Assembly, Places, nowhere
from mullet.planning.commitment.clusters import inside
from mullet.planning.commitment.flows import Flows
from mullet.planning.commitment.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """Where the grid connection's variables stand."""

    import_mw: Places
    sold_mw: Places
    peaks_mw: Places
    rows: dict[str, Places]


def add_market(assembly: Assembly, problem: Problem, flows: Flows) -> Market:
    """Add import, power bought at the market's price, power bought ahead and left, and billed peaks.

    What was bought ahead and is left is sold where it has a price and is lost where it has none; in both cases what is
    used of it costs nothing more.
    """
    site, hours, steps = problem.site, problem.grid.hours, problem.grid.count
    cost = (site.price_per_mwh + site.adder_per_mwh + site.coincident_per_mwh) * hours
    imported = assembly.variables((steps,))
    bought = assembly.variables((steps,), gain=-cost)
    resale = site.sell_per_mwh * hours if site.sell_per_mwh is not None else 0.0
    left = assembly.variables((steps,), 0.0, site.ppa_mw, resale)
    energy = assembly.rows((steps,), site.fixed_mw, site.fixed_mw)
    assembly.put(energy, imported, 1.0)
    for node, circuit in enumerate(problem.circuits):
        if circuit.parent < 0:
            flow = flows.mean(node)
            assembly.put(energy, flow.places, -flow.share)
    balance = assembly.rows((steps,), -site.ppa_mw, -site.ppa_mw)
    assembly.put(balance, bought, 1.0)
    assembly.put(balance, imported, -1.0)
    assembly.put(balance, left, -1.0)
    left_cap = _add_left_cap(assembly, problem, flows, imported, left)
    peaks, peak_rows = _add_peaks(assembly, problem, imported)
    sold = left if site.sell_per_mwh is not None else nowhere(steps)
    rows = {"energy": energy, "bought": balance, "left_cap": left_cap, "peak": peak_rows}
    return Market(imported, sold, peaks, rows)


def _add_left_cap(assembly: Assembly, problem: Problem, flows: Flows, imported: Places, left: Places) -> Places:
    """Bound what is left by the chord over import of max(0, bought ahead - import), where leaving more would pay.

    Nobody may buy at a price below that of resale and leave what he bought ahead; the chord is as near to that as a
    convex program gets, and exact where fixed draws alone use up what was bought ahead.
    """
    site = problem.site
    resale = site.sell_per_mwh if site.sell_per_mwh is not None else np.zeros(problem.grid.count)
    pays = site.price_per_mwh + site.adder_per_mwh + site.coincident_per_mwh < resale
    least, most = site.fixed_mw, site.fixed_mw + flows.highest_mean_mw()
    left_most, left_least = np.maximum(0.0, site.ppa_mw - least), np.maximum(0.0, site.ppa_mw - most)
    wide = most > least
    fall = np.where(pays & wide, (left_most - left_least) / np.where(wide, most - least, 1.0), 0.0)
    # Elsewhere the row says less than the bound of what is left.
    rows = assembly.rows((problem.grid.count,), -np.inf, np.where(pays, left_most + fall * least, site.ppa_mw + 1.0))
    assembly.put(rows, left, 1.0)
    assembly.put(rows, imported, fall)
    return rows


def _add_peaks(assembly: Assembly, problem: Problem, imported: Places) -> tuple[Places, Places]:
    charges, steps = problem.site.demand_charges, problem.grid.count
    if not charges:
        return nowhere(0), nowhere(0, steps)
    peaks = assembly.variables((len(charges),), gain=[-charge.per_mw for charge in charges])
    counted = np.stack([inside(steps, charge.first, charge.last) for charge in charges])
    floors = np.array([[charge.floor_mw] for charge in charges])
    # Rows outside the window stay, and say less than that a peak is not below 0: the month's end moves along the
    # grid, the pattern does not.
    rows = assembly.rows((len(charges), steps), np.where(counted > 0.0, -floors, -1.0))
    assembly.put(rows, peaks[:, np.newaxis], 1.0)
    assembly.put(rows, imported, -counted)
    return peaks, rows
