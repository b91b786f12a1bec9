"""Errors as HTTP responses, in OpenAI's format."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from alpacare_jax.errors import DataError, UserError
from alpacare_jax.generate.worker import RequestFailed

CLIENT_GONE = 499
"""Status of a reply that nobody reads any more."""
LONGEST_MESSAGE = 1000
"""Characters of an error's message; what a request holds may be quoted in it."""


def error_body(
    message: str, *, param: str | None = None, code: str | None = None, kind: str = ""
) -> dict[str, Any]:
    """Return an error in OpenAI's format."""
    said = {"message": message[:LONGEST_MESSAGE], "type": kind or "invalid_request_error"}
    return {"error": said | {"param": param, "code": code}}


async def on_user_error(request: Request, error: Exception) -> Response:
    """Answer errors of the request with 400, a failed step with 500, and a server that is ending with 503."""
    assert isinstance(error, UserError)
    if not isinstance(error, DataError):
        status = 500 if isinstance(error, RequestFailed) else 503
        return JSONResponse(error_body(error.what, kind="server_error"), status)
    param = error.where if isinstance(error.where, str) and error.where.isidentifier() else None
    code = "context_length_exceeded" if "longer than the context" in error.what else None
    named = {"found": error.found, "expected": error.expected}
    details = [f"{name}: {value}" for name, value in named.items() if value is not None]
    return JSONResponse(error_body("; ".join([error.what, *details]), param=param, code=code), 400)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer with the status of the exception."""
    assert isinstance(error, HTTPException)
    missing_model = error.status_code == 404 and "no model" in error.detail
    code = "model_not_found" if missing_model else {401: "invalid_api_key"}.get(error.status_code)
    return JSONResponse(error_body(error.detail, code=code), error.status_code, headers=error.headers)


async def on_client_gone(request: Request, error: Exception) -> Response:
    """End without an error if the client disconnects before its request is complete."""
    return Response(status_code=CLIENT_GONE)


async def on_failure(request: Request, error: Exception) -> Response:
    """Say that the server failed; the error itself goes to the log."""
    return JSONResponse(error_body("the server failed; its log says why", kind="server_error"), 500)


HANDLERS: dict[Any, Any] = {
    UserError: on_user_error,
    HTTPException: on_http_error,
    ClientDisconnect: on_client_gone,
    Exception: on_failure,
}
"""Starlette's exception handlers."""
