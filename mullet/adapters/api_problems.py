"""Errors as problem documents (RFC 9457): a status, one sentence, and every field that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mullet.ports import DeviceError, JournalError, LinkError, MulletError, WriteRefused

MEDIA_TYPE = "application/problem+json"

_TITLES = {
    400: "Bad request",
    401: "Not authorised",
    403: "Not permitted",
    404: "Not found",
    405: "Method not allowed",
    409: "Refused",
    413: "Too large",
    415: "Not JSON",
    422: "Invalid",
    500: "Internal error",
    502: "The device did not answer as it should",
    503: "Not available now",
}


class Problem(Exception):
    """An answer that is no success; `fields` are (field, what is wrong with it)."""

    def __init__(self, status: int, detail: str, fields: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fields = tuple(fields)


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return `problem` as an HTTP answer."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": _TITLES.get(problem.status, "Error"),
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.fields:
        body["problems"] = [{"field": field, "detail": detail} for field, detail in problem.fields]
    return JSONResponse(body, problem.status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


@contextmanager
def as_problems() -> Iterator[None]:
    """Turn what `ports.Operations` raises into problems."""
    try:
        yield
    except KeyError as error:
        raise Problem(404, str(error.args[0]) if error.args else "not found") from error
    except PermissionError as error:
        raise Problem(403, str(error)) from error
    except ValueError as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or ["invalid"]
        detail = lines[0] if len(lines) == 1 else f"{len(lines)} problems, of which the first: {lines[0]}"
        raise Problem(422, detail, [_split(line) for line in lines]) from error
    except WriteRefused as error:
        raise Problem(409, str(error)) from error
    except (JournalError, OSError, RuntimeError) as error:
        raise Problem(503, str(error)) from error
    except (DeviceError, LinkError) as error:
        raise Problem(502, str(error)) from error
    except MulletError as error:
        raise Problem(409, str(error)) from error


async def on_problem(_: Request, error: Exception) -> JSONResponse:
    """Answer a `Problem`."""
    return problem_response(error if isinstance(error, Problem) else Problem(500, "internal error"))


async def on_invalid(_: Request, error: Exception) -> JSONResponse:
    """Answer a request whose parameters or body are wrong, with all that is wrong."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    fields = []
    for item in found:
        # The first part only says where the field was looked for: body, query or path.
        parts = [str(part) for part in item["loc"]]
        named = parts[1:] if len(parts) > 1 else parts
        fields.append((".".join(named), str(item["msg"])))
    detail = "; ".join(f"{field}: {text}" for field, text in fields) or "the request is invalid"
    return problem_response(Problem(422, detail, fields))


async def on_http_error(_: Request, error: Exception) -> JSONResponse:
    """Answer what the framework itself refuses: unknown paths and methods."""
    if not isinstance(error, HTTPException):
        return problem_response(Problem(500, "internal error"))
    return problem_response(Problem(error.status_code, str(error.detail)), error.headers)


async def on_bug(_: Request, error: Exception) -> JSONResponse:
    """Answer an error that nobody foresaw without telling the outside what it was; the log has it."""
    return problem_response(Problem(500, f"internal error ({type(error).__name__}); the log has the details"))


def _split(line: str) -> tuple[str, str]:
    """Return (field, text) of "field: text" or of "file:line:column: field: text"."""
    for part in (parts := line.split(": ")):
        if part is not parts[-1] and " " not in part and not part[-1:].isdigit():
            return part, line
    return "", line
