"""Figures of mullet against targets, limits and peers: `python -m benchmarks NAME`."""
