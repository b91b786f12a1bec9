"""The bodies of HTTP responses: choices, log-probabilities and chunks, in OpenAI's formats."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from alpacare_jax.generate.generation import Generation, TokenScore
from alpacare_jax.generate.text import Decoder
from alpacare_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Chat:
    """The choices of a chat completion.

    Args:
        tokenizer: The tokenizer.
        generations: One for each choice.
    """

    tokenizer: Tokenizer
    generations: list[Generation]
    prefix, kind, chunk_suffix, prompt_field = "chatcmpl", "chat.completion", ".chunk", "the prompt"

    def whole(self, index: int) -> dict[str, Any]:
        """Return a choice whose reply has ended."""
        generation = self.generations[index]
        message = {"role": "assistant", "content": generation.text, "refusal": None}
        reason, logprobs = generation.finish_reason, self._logprobs(generation)
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}

    def first(self) -> Iterator[dict[str, Any]]:
        """Yield what a stream begins with."""
        for index in range(len(self.generations)):
            yield self._chunk(index, {"role": "assistant", "content": ""})

    def pieces(self, index: int, text: str, part: slice, reason: str | None) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a new piece of text and the part of the scores that belongs to it."""
        logprobs = self._logprobs(self.generations[index], part)
        if text or (logprobs and logprobs["content"]):
            yield self._chunk(index, {"content": text}, logprobs)
        if reason:
            yield self._chunk(index, {}, reason=reason)

    def _chunk(
        self, index: int, delta: dict[str, str], logprobs: Any = None, reason: str | None = None
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, generation: Generation, part: slice = slice(None)) -> dict[str, Any] | None:
        """Return the log-probabilities of a reply's tokens, the end token left out."""
        if generation.sampling.logprobs is None:
            return None

        def entry(token: int, logprob: float | None) -> dict[str, Any]:
            text = spell(self.tokenizer, token)
            return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

        content = [
            entry(score.token, score.logprob) | {"top_logprobs": [entry(*top) for top in score.top]}
            for score in generation.scores[part]
            if score.token not in self.tokenizer.eos_ids
        ]
        return {"content": content, "refusal": None}


@dataclasses.dataclass(frozen=True)
class Completion:
    """The choices of a text completion.

    Args:
        tokenizer: The tokenizer.
        generations: One for each choice.
        prompts: Their prompts as they were given, None for token ids.
    """

    tokenizer: Tokenizer
    generations: list[Generation]
    prompts: list[str | None]
    prefix, kind, chunk_suffix, prompt_field = "cmpl", "text_completion", "", "prompt"

    def whole(self, index: int) -> dict[str, Any]:
        """Return a choice whose reply has ended, behind its prompt where that is to be echoed."""
        generation, prompt = self.generations[index], self.prompts[index]
        shown, pieces, offsets = "", [], []
        if generation.echo:
            added = spell_prompt(self.tokenizer, generation.prompt, prompt is not None)
            shown = "".join(added) if prompt is None else prompt
            begins = itertools.accumulate(map(len, added), initial=0)
            offsets = [min(begin, len(shown)) for begin, _ in zip(begins, added, strict=False)]
            tokens = zip(added, generation.prompt, strict=True)
            pieces = [piece or spell(self.tokenizer, token) for piece, token in tokens]
        logprobs = None
        if generation.sampling.logprobs is not None:
            offsets += [len(shown) + begin for begin in generation.offsets]
            pieces += [spell(self.tokenizer, score.token) for score in generation.scores]
            scores = [*generation.prompt_scores, *generation.scores]
            logprobs = self._logprobs(scores, pieces, offsets)
        return self._choice(index, shown + generation.text, logprobs, generation.finish_reason)

    def first(self) -> Iterator[dict[str, Any]]:
        """Yield what a stream begins with: nothing."""
        yield from ()

    def pieces(self, index: int, text: str, part: slice, reason: str | None) -> Iterator[dict[str, Any]]:
        """Yield the chunk of a new piece of text and the part of the scores that belongs to it."""
        generation, logprobs = self.generations[index], None
        if generation.sampling.logprobs is not None:
            scores, offsets = generation.scores[part], generation.offsets[part]
            logprobs = self._logprobs(scores, [spell(self.tokenizer, s.token) for s in scores], offsets)
        if text or reason or (logprobs and logprobs["tokens"]):
            yield self._choice(index, text, logprobs, reason)

    def _choice(
        self, index: int, text: str, logprobs: dict[str, Any] | None, reason: str | None
    ) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, scores: list[TokenScore], pieces: list[str], offsets: list[int]) -> dict[str, Any]:
        """Return log-probabilities in the form of completions.

        The first token of a text has none. The token itself stands among the most probable ones even where it is
        not one of them. Where two tokens are spelled alike, as halves of characters are, the more probable is kept.
        """
        tops: list[dict[str, float] | None] = []
        for score in scores:
            top: dict[str, float] = {}
            for token, logprob in (*score.top, (score.token, score.logprob)):
                if logprob is not None:
                    top.setdefault(spell(self.tokenizer, token), logprob)
            tops.append(top or None)
        return {
            "tokens": pieces,
            "token_logprobs": [score.logprob for score in scores],
            "top_logprobs": tops,
            "text_offset": offsets,
        }


def spell(tokenizer: Tokenizer, token: int) -> str:
    """Return the text of one token; control tokens are spelled out."""
    return tokenizer.decode([token], skip_special_tokens=False)


def spell_prompt(tokenizer: Tokenizer, tokens: list[int], hide_special: bool) -> list[str]:
    """Return the text that each token of a prompt adds; an incomplete character adds nothing.

    Args:
        tokenizer: The tokenizer.
        tokens: The prompt.
        hide_special: Leave control tokens out: those that frame a text which was given as text.
    """
    decoder, special = Decoder(tokenizer), set(tokenizer.special_texts.values())
    pieces = []
    for token in tokens:
        if token in special:
            pieces.append(decoder.finish() + ("" if hide_special else spell(tokenizer, token)))
            decoder = Decoder(tokenizer)
        else:
            pieces.append(decoder.feed(token))
    return pieces
