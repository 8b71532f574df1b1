"""The independent grader: it reads what physically happened and what was claimed, and says where they differ.

It shares nothing with the daemon or with the rest of the simulator but the wire schemas of docs/wire.md,
and imports the standard library only.
"""

from .record import Claims, Truth, UnreadableRecord, read_claims, read_truth
from .report import grade, grade_files

__all__ = ["Claims", "Truth", "UnreadableRecord", "grade", "grade_files", "read_claims", "read_truth"]
