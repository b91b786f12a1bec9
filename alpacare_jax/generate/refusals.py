"""Errors as HTTP replies, in OpenAI's form."""

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
    """Return an error in OpenAI's form."""
    return {
        "error": {
            "message": message[:LONGEST_MESSAGE],
            "type": kind or "invalid_request_error",
            "param": param,
            "code": code,
        }
    }


async def on_user_error(request: Request, error: Exception) -> Response:
    """Answer what the client can mend with 400, a failed step with 500 and a server that ends with 503."""
    assert isinstance(error, UserError)
    if not isinstance(error, DataError):
        status = 500 if isinstance(error, RequestFailed) else 503
        return JSONResponse(error_body(error.what, kind="server_error"), status_code=status)
    param = error.where if isinstance(error.where, str) and error.where.isidentifier() else None
    code = "context_length_exceeded" if "longer than the context" in error.what else None
    found = [f"found: {error.found}"] if error.found is not None else []
    expected = [f"expected: {error.expected}"] if error.expected is not None else []
    message = "; ".join([error.what, *found, *expected])
    return JSONResponse(error_body(message, param=param, code=code), status_code=400)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer with the status that was raised."""
    assert isinstance(error, HTTPException)
    code = None
    if error.status_code == 404 and "no model" in error.detail:
        code = "model_not_found"
    elif error.status_code == 401:
        code = "invalid_api_key"
    return JSONResponse(
        error_body(error.detail, code=code), status_code=error.status_code, headers=error.headers
    )


async def on_client_gone(request: Request, error: Exception) -> Response:
    """End quietly where the client left in the middle of its request."""
    return Response(status_code=CLIENT_GONE)


async def on_failure(request: Request, error: Exception) -> Response:
    """Say that the server failed; the error itself goes to the log."""
    return JSONResponse(
        error_body("the server failed; its log says why", kind="server_error"), status_code=500
    )


HANDLERS: dict[Any, Any] = {
    UserError: on_user_error,
    HTTPException: on_http_error,
    ClientDisconnect: on_client_gone,
    Exception: on_failure,
}
"""Starlette's exception handlers."""
