"""A miner's pool list, which nothing changes unseen."""

from __future__ import annotations

import hashlib
import json
from typing import Any

DIGEST_CHARS = 16


class PoolList:
    """Whatever the device holds as its pools: what is handed out is a copy, and its content is never told in a log."""

    def __init__(self, pools: Any) -> None:
        self._text = json.dumps(pools)

    def copy(self) -> Any:
        """The list; changing it changes nothing here."""
        return json.loads(self._text)

    def replace(self, pools: Any) -> bool:
        """Hold another list: whether its content differs, be it in one password."""
        if _canonical(pools) == _canonical(self.copy()):
            return False
        self._text = json.dumps(pools)
        return True

    def told(self) -> dict[str, Any]:
        """What the truth log may tell: a digest of the content, and how many pools have a URL."""
        pools = self.copy()
        digest = hashlib.sha256(_canonical(pools).encode()).hexdigest()
        listed = pools if isinstance(pools, list) else []
        count = sum(1 for pool in listed if isinstance(pool, dict) and pool.get("url"))
        return {"digest": digest[:DIGEST_CHARS], "count": count}


def _canonical(pools: Any) -> str:
    """The same text for the same content, whatever the order of its fields."""
    return json.dumps(pools, sort_keys=True)
