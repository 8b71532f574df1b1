"""Processes of their own, one per competitor and measurement: `python -m benchmarks.workers.NAME '{"option": ...}'`."""
