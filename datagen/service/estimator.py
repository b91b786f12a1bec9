"""How many tokens a request will take, learned from those before it."""

#: Replies over which the tokens of a request are averaged.
_REMEMBERED = 200


class TokenEstimator:
    """Learns how many tokens requests take.

    Example:
        >>> estimator = TokenEstimator()
        >>> estimator.of(400, 1000)  # nothing is known yet: every byte a token, and the longest reply
        1400.0
        >>> estimator.learn(400, 100, 200)
        >>> round(estimator.of(800, 1000))
        420
    """

    def __init__(self) -> None:
        self._seen = 0
        self._tokens_per_byte = 0.0
        self._completion_tokens = 0.0

    def of(self, prompt_bytes: int, max_tokens: int) -> float:
        """Return what a request with a prompt of so many bytes is thought to take, in tokens."""
        worst = float(prompt_bytes + max_tokens)
        if not self._seen:
            return worst
        return min(worst, 1.05 * (prompt_bytes * self._tokens_per_byte + self._completion_tokens))

    def learn(self, prompt_bytes: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Take in what a request took."""
        self._seen += 1
        part = max(1 / self._seen, 1 / _REMEMBERED)
        self._tokens_per_byte += part * (prompt_tokens / max(prompt_bytes, 1) - self._tokens_per_byte)
        self._completion_tokens += part * (completion_tokens - self._completion_tokens)
