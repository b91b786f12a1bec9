"""A request to the engine, and its reply so far."""

import dataclasses

from alpacare_jax.generate.sampling import SamplingParams


@dataclasses.dataclass(frozen=True)
class TokenScore:
    """The log-probability of a token (None for the first of a text) and of the most probable ones at its position."""

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(eq=False)  # two requests that ask the same are two requests
class Generation:
    """A request and its reply so far.

    Args:
        prompt: Token ids.
        sampling: What to draw, and when to end.
        continues: The text goes on from the prompt, so that a space between the two belongs to it.
        echo: Score the prompt's tokens too.
        text: The reply so far; never holds a stop string, nor the beginning of one that may come.
        tokens: Tokens drawn, the end token included.
        finish_reason: "" while it runs, then "stop", "length", "cancelled" or "error".
        scores: Log-probabilities of the tokens drawn, if asked for; not of those that a stop string cut off.
        offsets: Where in the reply's text each scored token begins.
        prompt_scores: Log-probabilities of the prompt's tokens, if asked for.
    """

    prompt: list[int]
    sampling: SamplingParams
    continues: bool = False
    echo: bool = False
    text: str = ""
    tokens: list[int] = dataclasses.field(default_factory=list)
    finish_reason: str = ""
    scores: list[TokenScore] = dataclasses.field(default_factory=list)
    offsets: list[int] = dataclasses.field(default_factory=list)
    prompt_scores: list[TokenScore] = dataclasses.field(default_factory=list)

    @property
    def scores_prompt(self) -> bool:
        """Whether log-probabilities of the prompt's own tokens are asked for."""
        return self.echo and self.sampling.logprobs is not None

    @property
    def done(self) -> bool:
        """Whether the reply has ended."""
        return bool(self.finish_reason)
