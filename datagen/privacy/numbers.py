"""Patterns for numbers behind a label (``labels.yaml``), numbers with a checksum, and addresses of networks."""

import re
from importlib import resources

import yaml

from datagen.privacy.pattern import Check, Pattern
from datagen.privacy.spelling import LETTER, UNSPACED, plain

_I = re.IGNORECASE
_LABELS: dict[str, dict[str, str]] = yaml.safe_load(
    (resources.files("datagen.privacy") / "labels.yaml").read_text(encoding="utf-8")
)


def is_luhn(digits: str) -> bool:
    """Say whether a number has the check digit of payment cards (Luhn).

    Example:
        >>> is_luhn("4111111111111111"), is_luhn("4111111111111112")
        (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_iban(text: str) -> bool:
    """Say whether a text has the check digits of an international bank account number (ISO 13616).

    Example:
        >>> is_iban("GB82 WEST 1234 5698 7654 32"), is_iban("GB83 WEST 1234 5698 7654 32")
        (True, False)
    """
    letters = "".join(text.split()).upper()
    return int("".join(str(int(each, 36)) for each in letters[4:] + letters[:4])) % 97 == 1


_VIN_VALUES = dict(
    zip("0123456789ABCDEFGHJKLMNPRSTUVWXYZ", map(int, "012345678912345678123457923456789"), strict=True)
)
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def is_vehicle_number(text: str) -> bool:
    """Say whether 17 characters have the check digit of a vehicle identification number (ISO 3779).

    Example:
        >>> is_vehicle_number("1M8GDM9AXKP042788"), is_vehicle_number("1M8GDM9A1KP042788")
        (True, False)
    """
    if len(text) != 17 or any(each not in _VIN_VALUES for each in text):
        return False
    total = sum(weight * _VIN_VALUES[each] for weight, each in zip(_VIN_WEIGHTS, text, strict=True))
    return text[8] == "0123456789X"[total % 11]


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


_YEAR = re.compile(r"(?:19|20)\d\d")
_TOLL_FREE = re.compile(r"(?:\+?1[ .-]?)?\(?8(?:00|33|44|55|66|77|88)\)?")


def _is_phone(match: "re.Match[str]") -> bool:
    """Refuse toll-free numbers: they are an institution's, and many answers name a help line."""
    return not _TOLL_FREE.match(match["v"]) and 6 < len(_digits(match["v"])) < 16


def _is_labelled(match: "re.Match[str]") -> bool:
    """Take four digits behind "number" or a name with a colon, five behind a name alone or a noun with a colon."""
    digits, value = len(_digits(match["v"])), match["v"].upper()
    sure = bool(match["n"] or (match["names"] and match["c"])) or len(value) > 7
    few = 3 if match["n"] and len(value) > 5 else 4 if sure else 5
    public = value.startswith(("NCT", "ISRCTN", "EUCTR")) or (not match["n"] and _YEAR.fullmatch(value))
    return digits >= few and not public


def _is_labelled_phone(match: "re.Match[str]") -> bool:
    return _is_phone(match) and not re.fullmatch(r"(?:(?:19|20)\d\d[ -]?){2}", match["v"])


def _is_ssn(match: "re.Match[str]") -> bool:
    area, group, serial = match["v"].split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


_NO_ADDRESS = re.compile(r"(?:\bec|version|\bv|section|chapter|fig\w*\.?)[\s:]*$", _I)


def _is_ip(match: "re.Match[str]") -> bool:
    """Take four octets, but no enzyme (EC 3.4.21.4), version or section number."""
    octets = [int(each) for each in match["v"].split(".")]
    before = match.string[max(0, match.start() - 14) : match.start()]
    if any(octet > 255 for octet in octets) or _NO_ADDRESS.search(before):
        return False
    return bool(re.search(r"\bip\b", before, _I)) or sum(octet > 9 for octet in octets) >= 2


# Between a label and its number: a word for "number", a colon, a verb, in this order and each of them at will.
_SPACE = r"\s{0,9}"
_NUMBER = (
    r"(?:[#№]|(?:(?:identification|identity|registration|reference|file|record|phone)\s)?(?:numbers?|num|nr|no|n[º°]|id"
    rf"|identifier|identification|code|pin|nummer|numéro|número|号码|号|號|番号|번호)(?!{LETTER})[.:]?)"
)
_ASIDE = rf"(?:\((?!\d)[^()\n]{{1,20}}\){_SPACE})?"
_LINK = (
    rf"(?:\(s\))?[.*_\"]{{0,3}}{_SPACE}{_ASIDE}"
    rf"(?P<n>(?:{_NUMBER}{_SPACE}){{1,2}}|(?:end(?:ing|s)|reads|says|reading|marked|last[ ](?:4|four))"
    r"(?:\s(?:in|with|digits))?\s)?"
    rf"{_ASIDE}(?P<c>[:=|#-]|\t)?{_SPACE}(?:(?:is|was|at|on|end(?:ing|s)|reads|says)(?:\s(?:in|with))?\b{_SPACE})?"
    rf"(?:\*\*(?!\*)|[#:_|,.\"]){{0,4}}{_SPACE}"
)
# Groups of digits, perhaps with letters among or before them. What follows must be no fraction and no measure.
_ENDS = rf"(?![^\W_]|[/.-]\d|%|[ -]?(?:y/?o|y|(?:yea|y)rs?|m?g|mcg|kg|ml|(?:unit|hour|day|week|month)s?)(?!{LETTER}))"
_CODE = (
    r"(?P<v>(?-i:[A-Z]{1,5}(?:-[A-Z])?[ ](?=[A-Z]?\d)|[A-Z]{1,5}[-/](?=[A-Z\d]))?(?:[x*#]{2,4}[ -]){0,2}"
    r"(?=[^\W\d_]{0,9}\d)"
    rf"(?:[^\W_]{{1,4}}[ ]\d{{2,6}}(?:[ ]\d{{1,6}}){{0,6}}{_ENDS}(?:[ ](?-i:[A-D])(?!\w))?"
    r"|[^\W_]{1,26}(?:[/.-](?=[^\W_]{0,9}\d)[^\W_]{1,20}|-[A-Z]{1,3}(?![^\W_])"
    rf"|[ ]\d{{3,}}{_ENDS}){{0,8}}))(?![^\W_])"
)
_PHONE = (
    rf"(?:(?:{LETTER}{{1,15}}\s){{0,4}}(?:to|at|on)\s{{1,3}})?"
    r"(?P<v>\+?\(?\d(?:[ .-]{0,2}[(/]?\d|\)[ .-]{0,2}\d){5,14})(?![\w/%]|-\w|\.\d)"
)
_PLATE = r"(?P<v>(?-i:[A-Z\d]{2,17}(?:[ -][A-Z\d]{2,4}){0,2}))(?!\w)"
_SHAPES: dict[str, tuple[str, Check]] = {
    "SSN": (_CODE, lambda match: len(_digits(match["v"])) in (4, 9, 13, 15)),
    "PHONE": (_PHONE, _is_labelled_phone),
    "FAX": (_PHONE, _is_labelled_phone),
    "VEHICLE": (_PLATE, lambda match: len(_digits(match["v"])) > 1),
}


def _behind_labels(kind: str) -> Pattern:
    """Recognise a number behind one of the kind's labels: "MRN: 88213", "member ID is K-2213-9"."""
    value, check = _SHAPES.get(kind, (_CODE, _is_labelled))
    names, nouns = (
        sorted(
            filter(None, (plain(each.strip()).text for each in _LABELS[kind].get(sort, "").split(","))),
            key=len,
        )
        for sort in ("names", "nouns")
    )
    either = [
        "|".join(re.escape(label).replace(r"\ ", r"(?:'?s)?[\s_-]{1,3}") for label in reversed(labels))
        or "(?!)"
        for labels in (names, nouns)
    ]
    label = rf"(?:(?P<names>{either[0]})|{either[1]})(?:'?s)?(?:(?!{LETTER})|(?<=[{UNSPACED}]))"
    start = rf"(?:(?<![^\W_])|(?<=[{UNSPACED}]))"

    def is_told(match: "re.Match[str]") -> bool:
        return bool(match["names"] or match["n"] or match["c"]) and check(match)

    return Pattern(kind, f"(?i){start}{label}{_LINK}{value}", is_told, digits=True, labelled=True)


_TAIL = r"[^\s<>\"')\]]*[^\s<>\"')\].,;:!?]"
_CONTACTS = (
    Pattern("EMAIL", rf"(?<![\w.%+-])[\w.%+-]+@[\w-]+(?:\.[\w-]+)*\.{LETTER}{{2,}}\b", needs="@"),
    Pattern(
        "EMAIL",  # spelt out
        r"(?i)(?<![\w.+-])(?:\w[\w+-]{0,40}(?:\.|\sdot\s)){0,3}\w[\w+-]{0,40}(?:\s?[\[({](?:at|@)[\])}]\s?|\sat\s)[\w-]{1,40}"
        r"(?:(?:\s?[\[({](?:dot|\.)[\])}]\s?|\sdot\s)(?:[\w-]{2,40}(?=\sdot|\s?[\[({])|com|org|net|edu|gov|info|co|io|uk|de|fr)){1,3}(?!\w)"
        r"|(?<![\w.+-])[\w.+-]{1,60}\s?[\[({](?:at|@)[\])}]\s?[\w-]{1,40}(?:\.\w{2,40}){1,3}(?!\w)",
        needs=" dot |dot]|dot)|dot}|at]|at)|at}|@]|@)",
    ),
    Pattern("URL", rf"(?i)\b(?:https?|ftp)://{_TAIL}", needs="://"),
    Pattern("URL", rf"(?i)(?<![\w@/])www\.[\w-]+(?:\.[\w-]+)+(?:/{_TAIL})?", needs="www."),
    Pattern(
        "URL",
        r"(?i)(?<![\w@./-])[a-z\d-]+(?:\.[a-z\d-]+)*\.(?:com|org|net|gov|edu|info|io|co\.uk)\b(?:/[\w./?=&%#-]*\w)?",
        needs=".com|.org|.net|.gov|.edu|.info|.io|.co.uk",
    ),
    Pattern("IP", r"(?<![\d.])(?P<v>\d{1,3}(?:\.\d{1,3}){3})(?![\d.]*\d)", _is_ip, digits=True),
    Pattern(
        "IP",
        r"(?i)(?<![\w:])(?P<v>(?:[\da-f]{1,4}:){7}[\da-f]{1,4}|(?:[\da-f]{1,4}:){2,6}(?::[\da-f]{1,4}){1,5})(?![\w:])",
        # Ratios and times have no group of three.
        lambda match: any(len(group) > 2 for group in match["v"].split(":")),
        digits=True,
    ),
    Pattern(
        "PHONE",
        r"(?<![\w.+-])(?P<v>(?:\+?1[ .-]?)?"
        r"(?:\([2-9]\d{2}\)[ .-]?\d{3}|[2-9]\d{2}[ .-][2-9]\d{2})[ .-]\d{4})(?![\w-])",
        _is_phone,
        digits=True,
    ),
    Pattern(
        "PHONE",
        r"(?<![\w.])(?P<v>(?:\+|00(?=[1-9]\d[ .-]))[1-9]\d{0,2}[ .-]?(?:\(?\d{1,4}\)?[ .-]?){2,5}\d{2,4})(?!\w)",
        _is_phone,
        digits=True,
    ),
    Pattern(
        "PHONE",
        r"(?<![\w.+-])(?P<v>\(?0\d{2,4}\)?[ -]\d{3,4}[ -]\d{3,4})(?![\w-]|\.\d)",
        _is_phone,
        digits=True,
    ),
)
_SHAPED = (
    Pattern("SSN", r"(?<![\w-])(?P<v>\d{3}-\d{2}-\d{4})(?![\w-])", _is_ssn, digits=True),
    Pattern(
        "ACCOUNT",
        r"(?<![\w.-])(?P<v>[3-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{3,4}|3[47]\d{2}[ -]?\d{6}[ -]?\d{5})(?![\w-]|\.\d)",
        lambda match: is_luhn(_digits(match["v"])),
        digits=True,
    ),
    Pattern(
        "ACCOUNT",
        r"\b(?P<v>[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){3,7}(?: ?[A-Z\d]{1,3})?)\b",
        lambda match: is_iban(match["v"]),
        digits=True,
    ),
    Pattern(
        "VEHICLE", r"\b(?P<v>[A-HJ-NPR-Z\d]{17})\b", lambda match: is_vehicle_number(match["v"]), digits=True
    ),
    Pattern(
        "DEVICE",
        r"(?i)(?<![\w:])(?P<v>[\da-f]{2}(?::[\da-f]{2}){5}|[\da-f]{2}(?:-[\da-f]{2}){5})(?![\w:-])",
        digits=True,
    ),
    Pattern(
        "PHOTO",
        r"(?i)(?<![\w-])(?P<v>[\w-]+\.(?:jpe?g|png|gif|heic|tiff?|dcm))\b|\b(?:full[- ]face|identifying)\s+"
        r"(?:photo(?:graph)?s?|images?|pictures?)\b",
        needs=".jp|.png|.gif|.heic|.tif|.dcm|full-face|full face|identifying",
    ),
    Pattern(
        "OTHER_ID",
        r"(?i)\b(?P<v>[\da-f]{8}-[\da-f]{4}-[1-8][\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12})\b",
        digits=True,
    ),
)

NUMBER_PATTERNS: tuple[Pattern, ...] = (*_SHAPED, *map(_behind_labels, _LABELS), *_CONTACTS)
