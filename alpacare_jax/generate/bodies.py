"""Reading the body of a request: how much, of which type, and one JSON object."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from alpacare_jax.generate.protocol import refuse
from datagen.decoding import Malformed, parse_json

READ_AS_JSON = ("", "application/json", "application/x-www-form-urlencoded")
"""Content types; curl and urllib send the last one where they are told none."""


async def read_object(request: Request, most: int) -> dict[str, Any]:
    """Read a request's body.

    Args:
        request: The request.
        most: Bytes that are read at most, whatever the request says of its length.

    Raises:
        HTTPException: The body is too large, or of another type.
        DataError: It is not one JSON object.
        ClientDisconnect: The client left before it was whole.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in READ_AS_JSON and not kind.endswith("+json"):
        raise HTTPException(415, f"the content type {kind[:100]!r} is not supported; send application/json")
    pieces, size = [], 0
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise HTTPException(413, f"the request is larger than {most:,} bytes")
    try:
        body = parse_json(b"".join(pieces))
    except Malformed as error:
        raise refuse("body", f"the request is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise refuse("body", "the request must be a JSON object")
    return body
