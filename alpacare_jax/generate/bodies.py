"""Reading the body of a request: how much, of which type, and which fields."""

import asyncio
from typing import TypeVar

import pydantic
from starlette.exceptions import HTTPException
from starlette.requests import Request

from alpacare_jax.generate.protocol import Fields, explain, refuse
from datagen.decoding import Malformed, parse_json

READ_AS_JSON = ("", "application/json", "application/x-www-form-urlencoded")
"""Content types; curl and urllib send the last one where they are told none."""

Asked = TypeVar("Asked", bound=Fields)


async def read_body(request: Request, wanted: type[Asked], most: int) -> Asked:
    """Read a request's body.

    Args:
        request: The request.
        wanted: Its fields.
        most: Bytes that are read at most, whatever the request says of its length.

    Raises:
        HTTPException: The body is too large, or of another type.
        DataError: It is not a JSON object, or not of these fields.
        ClientDisconnect: The client left before it was whole.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in READ_AS_JSON and not kind.endswith("+json"):
        raise HTTPException(415, f"the content type {kind[:100]!r} is not supported; send application/json")
    pieces, size = [], 0
    too_large = HTTPException(413, f"the request is larger than {most:,} bytes")
    if int(request.headers.get("content-length", 0)) > most:
        raise too_large
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise too_large
    # In a thread of its own, so that a large body does not hold up the other clients.
    return await asyncio.to_thread(_parse, b"".join(pieces), wanted)


def _parse(text: bytes, wanted: type[Asked]) -> Asked:
    try:
        body = parse_json(text)
    except Malformed as error:
        raise refuse("body", f"the request is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise refuse("body", "the request must be a JSON object")
    try:
        return wanted.model_validate(body)
    except pydantic.ValidationError as error:
        raise explain(error) from None
