"""Checks of a pattern's matches: a checksum, the calendar, an age, the surrounding words."""

import calendar
import re

from datagen.privacy.words import COUNTRIES, NOT_NAMES, STATES, compiled, is_ordinary, is_owned, search

Match = re.Match[str]


def digits_of(match: Match) -> str:
    """Return the digits of an identifier."""
    return "".join(filter(str.isdigit, match["v"]))


def _before(match: Match, length: int) -> str:
    start = match.start("v")
    return match.string[max(0, start - length) : start]


# --- numbers ------------------------------------------------------------------------------------------------------


def is_luhn(digits: str) -> bool:
    """Say whether a number has the check digit of payment cards (Luhn).

    Example:
        >>> is_luhn("4111111111111111"), is_luhn("4111111111111112")
        (True, False)
    """
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def is_iban(text: str) -> bool:
    """Say whether a text has the check digits of an international bank account number (ISO 13616).

    Example:
        >>> is_iban("GB82 WEST 1234 5698 7654 32"), is_iban("GB83 WEST 1234 5698 7654 32")
        (True, False)
    """
    letters = "".join(text.split()).upper()
    return int("".join(str(int(each, 36)) for each in letters[4:] + letters[:4])) % 97 == 1


_VIN_LETTERS, _VIN_VALUES = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ", "012345678912345678123457923456789"
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def is_vehicle_number(text: str) -> bool:
    """Say whether 17 characters have the check digit of a vehicle identification number (ISO 3779).

    Example:
        >>> is_vehicle_number("1M8GDM9AXKP042788"), is_vehicle_number("1M8GDM9A1KP042788")
        (True, False)
    """
    values = [int(_VIN_VALUES[_VIN_LETTERS.index(each)]) for each in text if each in _VIN_LETTERS]
    if len(text) != len(values) or len(values) != len(_VIN_WEIGHTS):
        return False
    total = sum(weight * value for weight, value in zip(_VIN_WEIGHTS, values, strict=True))
    return text[8] == "0123456789X"[total % 11]


def _is_phone(match: Match) -> bool:
    """Refuse toll-free numbers: they are an institution's, and many answers name a help line."""
    return not compiled("toll free").match(match["v"]) and 6 < len(digits_of(match)) < 16


def is_labelled_phone(match: Match) -> bool:
    """Take a telephone number behind a label, but no span of years."""
    return _is_phone(match) and not re.fullmatch(r"(?:(?:19|20)\d\d[ -]?){2}", match["v"])


def is_labelled(match: Match) -> bool:
    """Take four digits behind "number" or a name with a colon, five behind a name alone or a noun with a colon."""
    digits, value = len(digits_of(match)), match["v"].upper()
    sure = bool(match["n"] or (match["names"] and match["c"])) or len(value) > 7
    few = 3 if match["n"] and len(value) > 5 else 4 if sure else 5
    public = value.startswith(("NCT", "ISRCTN", "EUCTR")) or (
        not match["n"] and compiled("recent year").fullmatch(value)
    )
    return digits >= few and not public


def _is_ssn(match: Match) -> bool:
    area, group, serial = match["v"].split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_ip(match: Match) -> bool:
    """Take four octets, but no enzyme (EC 3.4.21.4), version or section number."""
    octets = [int(each) for each in match["v"].split(".")]
    before = _before(match, 14)
    if max(octets) > 255 or search("no network address", before):
        return False
    return bool(re.search(r"(?i)\bip\b", before)) or sum(octet > 9 for octet in octets) >= 2


# --- dates finer than a year, and no laboratory values, scores and genes --------------------------------------------

_ENGLISH_MONTH = re.compile(compiled("english month").pattern, re.IGNORECASE)


def _before_date(match: Match) -> str:
    return match.string[max(0, match.start() - 28) : match.start()]


def _is_in_calendar(a: str, b: str, year: str) -> bool:
    """Check numbers against the calendar, in either order of day and month."""
    full = int(year) + (0 if int(year) > 99 else 1900 if int(year) > 30 else 2000)
    orders = ((int(a), int(b)), (int(b), int(a)))
    return any(1 <= month <= 12 and 1 <= day <= calendar.monthrange(full, month)[1] for day, month in orders)


def _is_date(match: Match) -> bool:
    """Take 03/14/2023 and 2023.3.14 by the calendar; 3/4/61 behind "seen"; 03/14/23 alone, not 2/2/2 or 10-20-30."""
    a, b, c, sign = match.group("a", "b", "c", "s")
    before = _before_date(match)
    if len(a) > 2:
        return (
            len(a) == 4 and len(c) < 3 and _is_in_calendar(b, c, a) and not search("version before", before)
        )
    if len(c) == 4:
        return 1800 <= int(c) < 2100 and _is_in_calendar(a, b, c)
    if len(c) != 2 or match["t"] or not _is_in_calendar(a, b, c):
        return False
    padded = len(a) == len(b) == 2 and "0" in (a[0], b[0])
    long_month = sign == "/" and max(int(a), int(b)) > 12 and any(int(part) % 5 for part in (a, b, c))
    told = sign != "." and (padded or long_month) and len({a, b, c}) > 1
    return bool(search("surely a date", before)) or (
        told and not compiled("measure behind").match(match.string, match.end())
    )


def _is_compact_date(match: Match) -> bool:
    """Take eight digits for a day unless they count something or are a number of their own."""
    text, before = match["d"], _before_date(match)
    if search("surely a date", before) and 1800 <= int(text[4:]) < 2100:
        return _is_in_calendar(text[:2], text[2:4], text[4:])
    if text[:2] not in ("19", "20") or not 1 <= int(text[4:6]) <= 12 or not 1 <= int(text[6:]) <= 31:
        return False
    behind = match.string[match.end() : match.end() + 40].replace("\n", " ")
    counted = search("numbered", before) or compiled("measure behind").match(behind)
    return len(match.string) > 8 and _is_in_calendar(text[4:6], text[6:], text[:4]) and not counted


def _is_day_of_month(match: Match) -> bool:
    """Take "14 Mar" and "May 10" without a year unless the month is a gene, a verb or a count follows."""
    month, day, before = match["m"].rstrip("."), match["d"] or "", _before_date(match)
    if match["y"] or match["y1"] or match["y2"]:
        return True
    if compiled("measure behind").match(match.string, match.end()):
        return False
    # In capitals, short names are genes and tests as well (SEPT9, OCT); in small letters, verbs.
    english, ordinal = _ENGLISH_MONTH.fullmatch(month), day.endswith("of ")
    written = not english or month.istitle() or (month.isupper() and len(month) > 4)
    counts = search("behind in", before) or compiled("count behind").match(match.string, match.end())
    if written and (not ordinal if day else english and not counts):
        return True
    return (ordinal and day[0].isdigit()) or bool(search("surely a date", before))


# --- ages over 89, and no brackets, temperatures and doses ----------------------------------------------------------


def _is_old(match: Match) -> bool:
    """Take the age of a person over 89, not a bracket such as "90 years or older"."""
    after = match.string[match.end() : match.end() + 40]
    old = not match["n"].isdigit() or 90 <= int(match["n"]) <= 125
    return old and not compiled("open ended").match(after) and not search("no single age", _before(match, 24))


def _is_old_person(match: Match) -> bool:
    """Take "94F with cough", not 94 F in a sentence on a temperature, nor 94M cells."""
    text, end = match.string, match.end("v")
    line = _before(match, 40).rpartition("\n")[2]
    if not _is_old(match) or search("heat", line) or not search("begins a field", _before(match, 12)):
        return False
    in_cell = compiled("ends a cell").match(text, end) and not search("heat", text[end : end + 60])
    return bool(compiled("person after").match(text, end) or in_cell)


# --- places -------------------------------------------------------------------------------------------------------


def _is_place(match: Match) -> bool:
    place, words = match["v"], match["v"].split()
    if place in COUNTRIES | STATES or words[0] in NOT_NAMES or all(map(is_ordinary, words)):
        return False
    lands = ("County", "City", "Island", "Lake", "Bay", "Canyon")
    return place.endswith(lands) or not is_owned(words[-1])


CHECKS = {
    "is card": lambda match: is_luhn(digits_of(match)),
    "is compact date": _is_compact_date,
    "is date": _is_date,
    "is day of month": _is_day_of_month,
    "is iban": lambda match: is_iban(match["v"]),
    "is ip": _is_ip,
    # Ratios and times have no group of three.
    "is ip6": lambda match: any(len(group) > 2 for group in match["v"].split(":")),
    "is old": _is_old,
    "is old person": _is_old_person,
    "is phone": _is_phone,
    "is place": _is_place,
    "is ssn": _is_ssn,
    "is vehicle": lambda match: is_vehicle_number(match["v"]),
}
