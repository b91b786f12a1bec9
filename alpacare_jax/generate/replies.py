"""What the HTTP server answers: choices, log-probabilities and chunks, in OpenAI's forms."""

from typing import Any

from alpacare_jax.generate.generation import Generation, TokenScore
from alpacare_jax.generate.text import Decoder
from alpacare_jax.tokenizer import Tokenizer


def chat_choice(index: int, generation: Generation, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a choice of a chat completion."""
    return {
        "index": index,
        "message": {"role": "assistant", "content": generation.text, "refusal": None},
        "logprobs": chat_logprobs(generation, tokenizer),
        "finish_reason": generation.finish_reason,
    }


def chat_logprobs(
    generation: Generation, tokenizer: Tokenizer, part: slice = slice(None)
) -> dict[str, Any] | None:
    """Return the log-probabilities of a chat reply's tokens, the end token left out."""
    if generation.sampling.logprobs is None:
        return None
    scores = [score for score in generation.scores[part] if score.token not in tokenizer.eos_ids]

    def entry(token: int, logprob: float | None) -> dict[str, Any]:
        text = spell(tokenizer, token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    content = [
        entry(score.token, score.logprob) | {"top_logprobs": [entry(*top) for top in score.top]}
        for score in scores
    ]
    return {"content": content, "refusal": None}


def completion_choice(
    index: int, generation: Generation, tokenizer: Tokenizer, prompt_text: str | None
) -> dict[str, Any]:
    """Return a choice of a completion; ``prompt_text`` is the prompt as it was given, None for token ids."""
    text, offset, scores, offsets, pieces = generation.text, 0, [], [], []
    if generation.echo:
        prompt_pieces = spell_prompt(tokenizer, generation.prompt, prompt_text is not None)
        shown = "".join(prompt_pieces) if prompt_text is None else prompt_text
        text, scores = shown + generation.text, list(generation.prompt_scores)
        for piece in prompt_pieces:
            offsets.append(min(offset, len(shown)))
            offset += len(piece)
        offset = len(shown)
        pieces = [
            piece or spell(tokenizer, token)
            for piece, token in zip(prompt_pieces, generation.prompt, strict=True)
        ]
    logprobs = None
    if generation.sampling.logprobs is not None:
        scores += generation.scores
        offsets += [offset + begin for begin in generation.offsets]
        pieces += [spell(tokenizer, score.token) for score in generation.scores]
        logprobs = completion_logprobs(tokenizer, scores, pieces, offsets)
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": generation.finish_reason}


def completion_logprobs(
    tokenizer: Tokenizer, scores: list[TokenScore], pieces: list[str], offsets: list[int]
) -> dict[str, Any]:
    """Return log-probabilities in the form of completions.

    The first token of a text has none. The token itself stands among the most probable ones even where it is not
    one of them. Where two tokens are spelled alike, as halves of characters are, the more probable one is kept.
    """
    tops: list[dict[str, float] | None] = []
    for score in scores:
        if score.logprob is None:
            tops.append(None)
            continue
        top: dict[str, float] = {}
        for token, logprob in score.top:
            top.setdefault(spell(tokenizer, token), logprob)
        top.setdefault(spell(tokenizer, score.token), score.logprob)
        tops.append(top)
    return {
        "tokens": pieces,
        "token_logprobs": [score.logprob for score in scores],
        "top_logprobs": tops,
        "text_offset": offsets,
    }


def spell(tokenizer: Tokenizer, token: int) -> str:
    """Return a token's text by itself; control tokens are spelled out."""
    return tokenizer.decode([token], skip_special_tokens=False)


def spell_prompt(tokenizer: Tokenizer, tokens: list[int], hide_special: bool) -> list[str]:
    """Return the text that each token of a prompt adds; what is not a whole character yet adds nothing.

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
