"""Where a stalled event loop stands, told on stderr by a thread beside it.

Not by faulthandler.dump_traceback_later: it walks the frames of a thread that may run on meanwhile, which crashes the
process (python/cpython issue 140815), and a process that was only suspended does run on.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable


class StallWatch:
    """Tells the stack of the thread that last beat, once, when it has not beaten again within `after_s` seconds."""

    def __init__(self, after_s: float, tell: Callable[[str], object] | None = None) -> None:
        self._after_s = after_s
        self._tell = _to_stderr if tell is None else tell
        self._beaten = threading.Event()
        self._closed = False
        self._watched: int | None = None
        self._thread = threading.Thread(target=self._watch, name="stall watch", daemon=True)

    def beat(self) -> None:
        """Say that the calling thread gets on. The first call begins the watch."""
        first = self._watched is None
        self._watched = threading.get_ident()
        self._beaten.set()
        if first and not self._closed:
            self._thread.start()

    def close(self) -> None:
        """End the watch."""
        self._closed = True
        self._beaten.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        told = False
        while True:
            beaten = self._beaten.wait(None if told else self._after_s)
            if self._closed:
                return
            if not beaten:
                self._tell(f"no tick for {self._after_s:g} s; the control thread is at:\n{self._stack()}")
            self._beaten.clear()
            told = not beaten

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else "(it has ended)\n"


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
