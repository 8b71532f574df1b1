"""From a problem to its program.

Families of `Model.rows` (T steps, G groups, C circuits; -1 where a row is not needed):

======================  ====================================================================================
order                   (sum over groups of M - 1, T), groups in order: loads at a step, less those at the next
start, min_on, min_off  (G, T)
start_limit             (limits of all groups,)
circuit                 (C, T) balance of the most power; `slack` (C, T) limits that have a price
mean, managed,          (C, T) balances of further flows, where they need variables of their own
managed_mean, mining
cooling, cooling_mean   (cooling segments of all circuits, T)
cooling_cap, ..._mean   (C, T) chords above cooling curves
energy, bought          (T,) import, and what of it is bought at the market's price
peak                    (demand charges, T), without sides outside the charge's steps
======================  ====================================================================================
"""

from __future__ import annotations

import numpy as np

from mullet.planning.commitment.assembly import Assembly
from mullet.planning.commitment.clusters import add_clusters
from mullet.planning.commitment.flows import Flows, Source
from mullet.planning.commitment.market import add_market
from mullet.planning.commitment.model import Model
from mullet.planning.commitment.problem import Problem


def build(problem: Problem) -> Model:
    """Return the problem's program and the places of everything in it.

    `program.objective(x)` is money over the horizon: hashing above the lowest points, less starts, less energy bought.
    """
    assembly = Assembly()
    clusters = add_clusters(assembly, problem)
    mining = tuple(
        Source(g.circuit, z, np.full(len(g.most_mw), float(g.count)), g.most_mw, g.mean_mw, True)
        for g, z in zip(problem.mining, clusters.at_least, strict=True)
    )
    flows = Flows(assembly, problem, mining)
    market = add_market(assembly, problem, flows)
    return Model(
        problem=problem,
        program=assembly.program(),
        at_least=clusters.at_least,
        starts=clusters.starts,
        circuit_mw=flows.circuit_mw,
        import_mw=market.import_mw,
        sold_mw=market.sold_mw,
        active=(),
        segments=(),
        unserved=(),
        peaks_mw=market.peaks_mw,
        rows={**clusters.rows, **flows.rows, **market.rows},
    )
