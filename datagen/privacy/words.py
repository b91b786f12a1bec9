"""The word lists of the privacy patterns, from ``words.yaml``."""

from importlib import resources

import yaml

_LISTS: dict[str, str] = yaml.safe_load(
    (resources.files("datagen.privacy") / "words.yaml").read_text(encoding="utf-8")
)


def _words(name: str) -> frozenset[str]:
    return frozenset(word.strip() for word in _LISTS[name].split(","))


STATES = _words("states")
COUNTRIES = _words("countries")
GIVEN_NAMES = _words("given_names")
NOT_NAMES = _words("not_names")
OWNED_NOUNS = _words("owned_nouns")


def is_owned(after: str, words: int = 1) -> bool:
    """Say whether a name goes on to be that of a disease, a sign, a tool or an institution.

    Args:
        after: The text behind the name.
        words: Among how many of its words to look for the noun.

    Example:
        >>> is_owned("'s disease is rare"), is_owned(" syndromes"), is_owned(" came back")
        (True, True, False)
    """
    following = after[:60].lstrip().removeprefix("'s").removeprefix("’s").replace("-", " ").split()
    stripped = [word.strip('.,;:?!()"').lower() for word in following[:words]]
    return any(word in OWNED_NOUNS or word.removesuffix("s") in OWNED_NOUNS for word in stripped)
