"""Formats amounts of money for people."""

import math


def usd(amount: float) -> str:
    """Format an amount for people: to the cent, or with the three digits that matter below a dollar.

    Example:
        >>> [usd(amount) for amount in (1234.5, 0.5, 0.0421, 0.00012, 0.0)]
        ['$1,234.50', '$0.50', '$0.0421', '$0.00012', '$0.00']
    """
    if amount == 0 or abs(amount) >= 1:
        return f"${amount:,.2f}"
    digits = min(2 - math.floor(math.log10(abs(amount))), 9)
    whole, _, part = f"{amount:.{digits}f}".partition(".")
    return f"${whole}.{part.rstrip('0').ljust(2, '0')}"
