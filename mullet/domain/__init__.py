"""Frozen values of the facility and their own arithmetic; the standard library only."""
