"""From a problem to its program.

Families of `Model.rows` (T steps, G groups, C circuits; -1 where a row is not needed):

======================  ====================================================================================
order                   (G, largest M - 1, T) loads at a step, less those at the next
start, min_on, min_off  (G, T)
start_limit             (G, most limits of one group)
demand, serve           (services, T) demand in thousands of tokens/s; what is served of it and what pools make
segment                 (pools, largest S, T)
circuit                 (C, T) balance of the most power
slack                   (C, T) limits that have a price; a hard limit is the bound of `circuit_mw`
mean, managed,          (C, T) balances of further flows, where they need variables of their own
managed_mean, mining
cooling, cooling_mean   (cooling segments of all circuits, T)
cooling_cap, ..._mean   (C, T) chords above cooling curves
energy                  (T,) balance of import
bought, left_cap        (T,) what of import is bought at the market's price; what may be left of power bought ahead
peak                    (demand charges, T); those outside the charge's steps never bind
award                   (awards, T)
ramp_up, ramp_down      (ramps, T)
account_mw,             (accounts, T) balances of what budgets count, where there are budgets
account_running
curtailment, uptime     (accounts, most budgets of one account)
======================  ====================================================================================

Families of `Model.slacks`: slack (C, T), award (awards, T), ramp (ramps, T; both ways), curtailment and uptime
(accounts, most budgets of one account).
"""

from __future__ import annotations

import numpy as np

from mullet.planning.commitment.assembly import Assembly
from mullet.planning.commitment.clusters import add_clusters
from mullet.planning.commitment.flows import Flows, Source
from mullet.planning.commitment.market import add_market
from mullet.planning.commitment.model import Model
from mullet.planning.commitment.problem import Problem
from mullet.planning.commitment.promises import add_promises
from mullet.planning.commitment.services import add_services


def build(problem: Problem) -> Model:
    """Return the problem's program and the places of everything in it.

    `program.objective(x)` is money over the horizon, of hashing above the lowest points, of tokens served, of power
    bought ahead and sold back; less starts, energy bought at price, adder and expected coincident peak (fixed draws
    included), penalties of unserved demand, demand charges above their floors, and slacks. What was paid for power
    bought ahead, and demand charges up to their floors, are not in it.

    Data are taken as they are: who asks has made sure that they are finite where they must be.
    """
    assembly = Assembly(problem.grid.origin_s + problem.grid.starts_s)
    clusters = add_clusters(assembly, problem)
    services = add_services(assembly, problem)
    mining = tuple(
        Source(g.circuit, z, np.full(len(g.most_mw), float(g.count)), g.most_mw, g.mean_mw, mining=True)
        for g, z in zip(problem.mining, clusters.at_least, strict=True)
    )
    flows = Flows(assembly, problem, mining + services.sources)
    market = add_market(assembly, problem, flows)
    promises = add_promises(assembly, problem, flows, clusters.at_least)
    return Model(
        problem=problem,
        program=assembly.program(),
        at_least=clusters.at_least,
        starts=clusters.starts,
        circuit_mw=flows.circuit_mw,
        import_mw=market.import_mw,
        sold_mw=market.sold_mw,
        active=services.active,
        segments=services.segments,
        unserved=services.unserved,
        peaks_mw=market.peaks_mw,
        rows={**clusters.rows, **services.rows, **flows.rows, **market.rows, **promises.rows},
        slacks={"slack": flows.over_mw, **promises.slacks},
    )
