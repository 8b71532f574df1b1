"""What was learnt becomes the facility at start and at a reload, unless the policy says no."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mullet.adapters.learned_file import LearnedFile
from mullet.app.build import read_policy
from mullet.app.learned import as_learned, start_learner
from mullet.control.record import facility_body
from mullet.domain.codec import decode
from mullet.domain.facility import Facility, Mode
from mullet.domain.load import LoadKind
from mullet.planning.learning import Learner
from mullet.planning.sketch import Sketch
from mullet.policy import LoadedPolicy
from mullet.registry import Registry

POLICY = Path(__file__).parents[3] / "policies" / "west-texas.yaml"


@pytest.fixture(scope="module")
def loaded() -> LoadedPolicy:
    return read_policy(POLICY, Registry())


def taught(site: Facility, factor: float) -> Learner:
    """Return a learner that goes on from every miner having drawn `factor` times its nameplate at full."""
    kept = Learner(site).kept()
    for bank, (body,) in kept["banks"].items():
        full = site.banks[bank][0].highest
        drawn = Sketch()
        for _ in range(100):
            drawn.add(factor * full.watts)
        bins = {str(index): count for index, count in drawn.bins().items()}
        body["points"][full.name].update(watts=bins, loads=50, most_watts=factor * full.watts)
    return Learner(site, kept)


def measuring(loaded: LoadedPolicy) -> str:
    return next(load.bank for load in loaded.facility.of_kind(LoadKind.MINER) if load.capability.measures_watts)


def test_a_restart_plans_with_what_was_measured_and_records_it(loaded: LoadedPolicy, tmp_path: Path) -> None:
    bank = measuring(loaded)
    file = LearnedFile(tmp_path / "learned.json")
    asyncio.run(file.save(taught(loaded.facility, 0.95).kept()))
    found, notes, _ = as_learned(loaded, start_learner(loaded, file))
    before, after = loaded.facility.banks[bank][0], found.facility.banks[bank][0]
    assert bank in notes
    assert after.highest.watts == pytest.approx(0.95 * before.highest.watts, rel=0.01)
    assert after.highest.asked_watts == before.highest.watts
    # What a replay reads is the facility as it was decided with.
    assert decode(Facility, facility_body(found.facility)["facility"]).load_by_id[after.id] == after


def test_a_file_from_before_makes_is_gone_on_from(loaded: LoadedPolicy, tmp_path: Path) -> None:
    bank, path = measuring(loaded), tmp_path / "learned.json"
    known = taught(loaded.facility, 0.95).kept()["banks"]
    old = {name: {key: value for key, value in body.items() if key != "make"} for name, (body,) in known.items()}
    path.write_text(json.dumps({"version": 1, "banks": old}))
    file = LearnedFile(path)
    found, notes, _ = as_learned(loaded, start_learner(loaded, file))
    assert file.problem is None
    assert bank in notes
    assert found.facility.banks[bank][0].highest.watts < loaded.facility.banks[bank][0].highest.watts


def test_a_bank_keeps_its_nameplate_where_the_policy_says_so(loaded: LoadedPolicy) -> None:
    bank = measuring(loaded)
    kept = replace(loaded, wiring=replace(loaded.wiring, nameplate_banks=frozenset(loaded.facility.banks)))
    found, notes, _ = as_learned(kept, taught(loaded.facility, 0.95))
    assert notes == {}
    assert found.facility.banks[bank] == loaded.facility.banks[bank]


def test_what_draws_more_than_its_nameplate_counts_more_and_is_told(loaded: LoadedPolicy) -> None:
    automatic = replace(loaded, facility=replace(loaded.facility, mode=Mode.AUTO))
    found, _, doubt = as_learned(automatic, taught(loaded.facility, 1.45))
    load = found.facility.banks[measuring(loaded)][0]
    assert load.worst_watts >= load.highest.watts
    assert doubt is not None
    assert doubt.startswith("as measured, the policy would not pass for mode auto")


def test_a_file_of_another_shape_is_set_aside(loaded: LoadedPolicy, tmp_path: Path) -> None:
    file = LearnedFile(tmp_path / "learned.json")
    asyncio.run(file.save({"makes": {}, "banks": {measuring(loaded): [{"make": None, "points": 5}]}}))
    learner = start_learner(loaded, file)
    assert file.problem is not None
    assert (tmp_path / "learned.json.damaged").exists()
    assert all(point.samples == 0 for found in learner.learned() for point in found.points)
