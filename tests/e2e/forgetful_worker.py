"""`python -P forgetful_worker.py FD PARENT`: the miners' worker, but that it reads one pool of an Antminer where it has
several. Its guards find nothing wrong, for what it writes is what it has read: only the truth can tell.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from typing import Any

from mullet_hardware.asic.worker import main

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mullet_hardware.asic.firmware.antminer import GuardedWeb
_root.handlers[:], _root.level = _before

whole = GuardedWeb.send_command


async def forget_all_but_one(self: GuardedWeb, command: str, *arguments: Any, **parameters: Any) -> dict[str, Any]:
    """Answer as the device did, but for its pools."""
    found = await whole(self, command, *arguments, **parameters)
    if command == "get_miner_conf":
        found["pools"] = found["pools"][:1]
        self._pools_read = json.dumps(found["pools"])
    return found


if __name__ == "__main__":
    GuardedWeb.send_command = forget_all_but_one  # type: ignore[method-assign]
    main(sys.argv[1:])
