"""Where learning meets the policy: what was kept is read, and the facility becomes what it was measured to be."""

from __future__ import annotations

import logging
from dataclasses import replace

from mullet.adapters.learned_file import LearnedFile
from mullet.domain.facility import Mode
from mullet.planning.learned import with_learned
from mullet.planning.learning import Learner
from mullet.policy import LoadedPolicy
from mullet.policy.automatic import problems_for_auto

logger = logging.getLogger("mullet")


def start_learner(loaded: LoadedPolicy, file: LearnedFile) -> Learner:
    """Return a learner that goes on from what the file holds; one that cannot be used is set aside."""
    kept = file.load()
    try:
        return Learner(loaded.facility, kept)
    except ValueError as error:
        file.refuse(str(error))
        return Learner(loaded.facility)


def as_learned(loaded: LoadedPolicy, learner: Learner) -> tuple[LoadedPolicy, dict[str, str], str | None]:
    """Return the policy with its facility as measured, what was taken over, and what an operator must know.

    What was taken over, or why not, is told per bank and make.

    The learner may know another policy of this facility: what it learnt of points that changed is left out.
    """
    fresh = Learner(loaded.facility, learner.kept())
    facility, notes = with_learned(loaded.facility, fresh.learned(), fresh.makes, loaded.wiring.nameplate_banks)
    for title, words in notes.items():
        logger.info("learned %s: %s", title, words)
    found = replace(loaded, facility=facility)
    problems = problems_for_auto(found) if facility.mode is Mode.AUTO else ()
    if not problems:
        return found, notes, None
    # The wires do not care what the nameplate says: what was measured counts, and somebody has to look.
    return found, notes, f"as measured, the policy would not pass for mode auto: {problems[0].message}"
