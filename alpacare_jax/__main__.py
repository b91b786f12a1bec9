"""``python -m alpacare_jax``: the command ``alpacare`` of this very interpreter."""

from alpacare_jax.cli.ending import run

if __name__ == "__main__":
    run()
