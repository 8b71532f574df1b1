"""CLP's own C interface, in the library that OR-Tools' wheel carries: the part of it that pywraplp does not show.

pywraplp changes a program one number at a time and neither reads nor sets a basis. The C interface hands out CLP's
arrays, so a program of 80,000 variables is changed in 2 ms and its basis is read and written as bytes.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_INFINITE = float(np.finfo(np.float64).max)
"""What CLP calls infinite."""
_MODEL = ctypes.c_void_p
_NUMBERS = ctypes.POINTER(ctypes.c_double)
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "Clp_newModel": (_MODEL, ()),
    "Clp_deleteModel": (None, (_MODEL,)),
    "Clp_setLogLevel": (None, (_MODEL, ctypes.c_int)),
    "Clp_loadProblem": (None, (_MODEL, ctypes.c_int, ctypes.c_int, *(ctypes.c_void_p,) * 8)),
    "Clp_modifyCoefficient": (None, (_MODEL, ctypes.c_int, ctypes.c_int, ctypes.c_double, ctypes.c_bool)),
    "Clp_setPerturbation": (None, (_MODEL, ctypes.c_int)),
    "Clp_setMaximumSeconds": (None, (_MODEL, ctypes.c_double)),
    "Clp_setMaximumIterations": (None, (_MODEL, ctypes.c_int)),
    "Clp_initialDualSolve": (ctypes.c_int, (_MODEL,)),
    "Clp_dual": (ctypes.c_int, (_MODEL, ctypes.c_int)),
    "Clp_primal": (ctypes.c_int, (_MODEL, ctypes.c_int)),
    "Clp_status": (ctypes.c_int, (_MODEL,)),
    "Clp_objectiveValue": (ctypes.c_double, (_MODEL,)),
    "Clp_numberIterations": (ctypes.c_int, (_MODEL,)),
    "Clp_copyinStatus": (None, (_MODEL, ctypes.c_void_p)),
    "Clp_statusArray": (ctypes.POINTER(ctypes.c_ubyte), (_MODEL,)),
    **dict.fromkeys(
        (
            "Clp_rowLower",
            "Clp_rowUpper",
            "Clp_columnLower",
            "Clp_columnUpper",
            "Clp_objective",
            "Clp_primalColumnSolution",
            "Clp_dualRowSolution",
        ),
        (_NUMBERS, (_MODEL,)),
    ),
}


@cache
def library() -> Any:
    """Return the library's functions.

    Raises:
        ValueError: OR-Tools is not where it should be, or carries no CLP.
    """
    found = importlib.util.find_spec("ortools")
    places = list(found.submodule_search_locations or ()) if found else []
    files = sorted(file for place in places for file in (Path(place) / ".libs").glob("libClp.so*"))
    if not files:
        raise ValueError("OR-Tools carries no libClp here")
    try:
        functions = ctypes.CDLL(str(files[0]))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(functions, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise ValueError(f"libClp: {error}") from error
    return functions


def numbers(pointer: Any, count: int) -> Any:
    """Return CLP's own array as one of numpy's: valid until the model is solved again or deleted."""
    return np.ctypeslib.as_array(pointer, (count,)) if count else np.zeros(0)


def sides(values: Any) -> Any:
    """Return bounds with CLP's infinity in place of numpy's."""
    return np.clip(values, -_INFINITE, _INFINITE)


def address(array: Any) -> Any:
    """Return where an array begins."""
    return array.ctypes.data_as(ctypes.c_void_p)
