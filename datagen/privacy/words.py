"""The word lists of the privacy patterns, from ``words.yaml``."""

import functools
import re
from importlib import resources

import yaml

from datagen.privacy.spelling import plain

_LISTS: dict[str, str] = yaml.safe_load(
    (resources.files("datagen.privacy") / "words.yaml").read_text(encoding="utf-8")
)


def _words(name: str) -> frozenset[str]:
    return frozenset(word.strip() for word in _LISTS[name].split(","))


def one_of(name: str) -> str:
    """Return the regular expression of one of a list's words; a space stands for any single space."""
    words = sorted((plain(word).text for word in _words(name)), key=lambda word: (-len(word), word))
    return "(?:" + "|".join(map(re.escape, words)) + ")"


STATES = _words("states")
COUNTRIES = _words("countries")
GIVEN_NAMES = _words("given_names")
NOT_NAMES = _words("not_names")
OWNED_NOUNS = _words("owned_nouns")
_ORDINARY = frozenset(word.casefold() for word in NOT_NAMES) | _words("ordinary")
_SURNAMES_TOO = _words("surnames_too")
# Endings of clinical terms and, as the WHO gives them, of the names of substances.
_TERM = re.compile(
    r"(?:itis|osis|oses|a?emia|a?emic|olog(?:y|ies|ists?|ic|ical)|iatr(?:y|ics?|ists?)|path(?:y|ies|ic)|ectomy|o[ts]tomy"
    r"|plasty|scop(?:y|ic)|graph(?:y|ic|ies)|troph(?:y|ic)|pleg(?:ia|ic)|algia|uria|penia|genic|(?:ол|диол)ог|певт|хирург|иатр|(?:carcin|sarc|an|mel|lymph"
    r"|aden|gli|myel|blast|a?emat|granul|fibr|lip|neur|glauc)oma|coccus|cocci|bacter|bacillus|bacteria"
    r"|cillin|m[yi]cin|floxacin|cycline|azole|statin|olol|sartan|april|opril|parin|xaban|gatran|[aeiuz]mab|[aei]nib|ciclib|parib"
    r"|zomib|clovir|[nt]avir|[bm][iu]v[iu]r|tegravir|desivir|prazole|tidine|dipine|setron|triptan|gliptin|gliflozin|glutide"
    r"|formin|glitazone|caine|solone|[ei]sone|[ht]asone|profen|coxib|barbital|azepam|azolam|zodone|oxetine|ipramine"
    r"|triptyline|[tz]apine|peridone|azine|thiazide|semide|terol|tropium|lukast|dronate|trexate|rubicin|platin|taxel"
    r"|mustine|fungin|roquine|maquine|pentin|balin|racetam|poetin|grastim|codone|morphone|orphine|fentanil|zosin|steride"
    r"|nafil|dalafil|thyroxine|gestrel|estradiol|gestel|floxin|vudine|citabine)s?$"
)

# Endings of states, which stand behind "Patient:" as often as names do.
_CONDITION = re.compile(
    r"(?:[^m]ed|ing|ive|ous|ic|al|ent|ant|able|ible|less|ful|ly|ish|ese|tion|sion|ment|ness|ity|ance|ence|ism|ure|ory|ary"
    r"|oid|ated|ics)$"
)


@functools.lru_cache(1 << 14)
def is_ordinary(word: str) -> bool:
    """Say whether a capitalised word is one of everyday or clinical English, in any case of letters.

    Example:
        >>> is_ordinary("STABLE"), is_ordinary("Metformin"), is_ordinary("Well-Known"), is_ordinary("Okafor")
        (True, True, False, False)
    """
    word = word.casefold()
    parts = word.split("-")
    if len(parts) > 1:
        return word in _ORDINARY or all(map(is_ordinary, parts))
    return word in _ORDINARY or word.removesuffix("s") in _ORDINARY or bool(_TERM.search(word))


def is_condition(word: str) -> bool:
    """Say whether a word ends as adjectives and words for states do.

    Example:
        >>> is_condition("Relapsing"), is_condition("UNSTABLE"), is_condition("Okafor")
        (True, True, False)
    """
    return bool(_CONDITION.search(word.casefold()))


def is_surname_too(word: str) -> bool:
    """Say whether an ordinary word is a common surname."""
    return word in _SURNAMES_TOO


def is_owned(after: str, words: int = 1) -> bool:
    """Say whether a name goes on to be that of a disease, a sign, a tool or an institution.

    Args:
        after: The text behind the name.
        words: Among how many of its words to look for the noun.

    Example:
        >>> is_owned("'s disease is rare"), is_owned(" syndromes"), is_owned(" came back")
        (True, True, False)
    """
    following = after[:60].replace("’", "'").lstrip().removeprefix("'s").replace("-", " ").split()
    stripped = [word.strip('.,;:?!()"').lower() for word in following[:words]]
    return any(word in OWNED_NOUNS or word.removesuffix("s") in OWNED_NOUNS for word in stripped)
