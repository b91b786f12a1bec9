"""``python -m alpacare_jax``: the command ``alpacare`` of this very interpreter."""

from alpacare_jax.cli import main

if __name__ == "__main__":
    main()
