"""A policy file's text -> LoadedPolicy, or every reason why not, at once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from mullet.domain.facility import Mode
from mullet.policy.automatic import bank_warnings, barred_problems, problems_for_auto, unenforced_problems
from mullet.policy.build import build_facility, build_wiring
from mullet.policy.checks import check
from mullet.policy.document import read_document
from mullet.policy.draft import draft_of
from mullet.policy.loaded import LoadedPolicy, derive
from mullet.policy.problems import PolicyErrors
from mullet.policy.settings import PolicyModel
from mullet.policy.wiring import KnownNames


def load_policy(text: str, filename: str, known: KnownNames) -> LoadedPolicy:
    """Return what the policy `text` describes; `filename` is for messages only.

    A policy in mode auto must pass `problems_for_auto` as well; in advise and observe, fields without an engine
    and banks that could not be written to are warnings.

    Raises:
        PolicyErrors: everything that is wrong, each with line, column and field.
    """
    document = read_document(text, filename)
    draft = draft_of(document)
    options = check(draft, known)
    if draft.problems:
        in_auto = unenforced_problems(document, draft.unenforced) if draft.mode is Mode.AUTO else ()
        raise PolicyErrors([*draft.problems, *in_auto])
    given = {name: value for name, value in document.data.items() if value is not None}
    model = PolicyModel.model_validate(given, context={"currency": draft.currency})
    content = model.model_dump(mode="json")
    digest = hash_content(content)
    facility = build_facility(model, options, known, digest)
    loaded = LoadedPolicy(
        facility=facility,
        wiring=build_wiring(model, options, facility),
        hash=digest,
        warnings=(),
        derived=derive(facility),
        content=content,
        document=document,
        unenforced=tuple(draft.unenforced),
        # An agent has options and credentials of its own: what drivers say of those, it says itself.
        notes={
            bank.id: known.notes_of(bank.driver, options["banks"][index])
            for index, bank in enumerate(model.banks)
            if bank.agent is None
        },
    )
    if facility.mode is Mode.AUTO:
        problems = problems_for_auto(loaded)
        if problems:
            raise PolicyErrors(problems)
        return replace(loaded, warnings=bank_warnings(loaded))
    unenforced = unenforced_problems(document, loaded.unenforced)
    return replace(loaded, warnings=(*unenforced, *barred_problems(loaded), *bank_warnings(loaded)))


def hash_content(content: Any) -> str:
    """Return the sha256 of plain data in canonical form (sorted keys, no spaces)."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
