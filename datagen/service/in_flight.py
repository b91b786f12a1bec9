"""How many requests a service without limits bears at once."""


class InFlight:
    """How many requests may be in flight, found out by additive increase and multiplicative decrease.

    Args:
        most: Upper bound, and the start where ``limits_known``.
        first: The start elsewhere.
        limits_known: Other limits are known. Then a single overload says nothing about the number in flight; only
            one that concerns the whole service counts.
    """

    def __init__(self, most: int, *, first: int, limits_known: bool) -> None:
        self._most = most
        self._limits_known = limits_known
        self._limit = float(most if limits_known else min(most, first))
        self._doubling = True
        self._decreased_before = 0

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return int(self._limit)

    def limits_are_known(self) -> None:
        """Rely on other limits from now on."""
        if not self._limits_known:
            self._limits_known, self._limit = True, float(self._most)

    def answered(self, in_flight: int) -> None:
        """Allow more, where what is allowed is in use: twice as many a round at first, later one more."""
        if in_flight + 1 >= self.limit:
            self._limit = min(float(self._most), self._limit + (1.0 if self._doubling else 1.0 / self._limit))

    def overloaded(self, number: int, next_number: int, *, whole: bool) -> None:
        """Halve, once for all that was in flight together.

        Args:
            number: Of the try that met the overload.
            next_number: Of the try that will be sent next.
            whole: Whether the service as a whole seems overloaded.
        """
        if number >= self._decreased_before and (whole or not self._limits_known):
            self._limit = max(1.0, self._limit / 2)
            self._doubling = False
            self._decreased_before = next_number
