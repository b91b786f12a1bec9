"""``alpacare judge``: pairwise verdicts in both orders by an OpenAI-compatible judge."""


def split_fields(text: str | None) -> list[str]:
    """Split a comma-separated list of field names and drop the blanks."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]
