"""Measure how fast the generator draws tokens, by the number of slots.

    python benchmarks/generation.py MODEL [--slots 1,4,8,16] [--prompt 100] [--tokens 100]

For each number of slots that many prompts of the same length are answered at the same time, once to compile and once
to measure. The rate counts the tokens of all slots; reading the prompts is timed apart.
"""

import argparse
import statistics
import time

from alpacare_jax.generate import Engine, Generation, SamplingParams
from alpacare_jax.inference import open_engine


def measure(engine: Engine, prompt: int, tokens: int) -> tuple[float, list[float]]:
    """Answer one prompt a slot.

    Returns:
        Seconds to the first token of all, and the seconds of every later step.
    """
    wish = SamplingParams(max_tokens=tokens, ignore_eos=True)
    for slot in range(engine.slots):
        engine.submit(Generation([100 + slot, *range(100, 99 + prompt)], wish))
    seconds = []
    while engine.busy:
        started = time.perf_counter()
        engine.step()
        seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1:-1]


def main() -> None:
    """Print one line for each number of slots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--slots", default="1,4,8,16")
    parser.add_argument("--prompt", type=int, default=100, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=100, help="tokens of each reply")
    asked = parser.parse_args()
    print("slots | ms a step (median, best) | tokens/s (median, best) | s to read the prompts")
    for slots in map(int, asked.slots.split(",")):
        engine, _ = open_engine(asked.model, slots=slots)
        measure(engine, asked.prompt, asked.tokens)
        first, steps = measure(engine, asked.prompt, asked.tokens)
        middle, best = statistics.median(steps), min(steps)
        print(
            f"{slots:5} | {middle * 1e3:8.1f} {best * 1e3:8.1f} | {slots / middle:8.0f} {slots / best:8.0f}"
            f" | {first:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
