"""Patterns for numbers with a label or a checksum, and for the addresses of telephones and networks."""

import re

from datagen.privacy.pattern import Check, Pattern, pattern
from datagen.privacy.spelling import LETTER

_I = re.IGNORECASE


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
    zip(
        "0123456789ABCDEFGHJKLMNPRSTUVWXYZ",
        [int(d) for d in "012345678912345678123457923456789"],
        strict=True,
    )
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


def _has_digit(match: "re.Match[str]") -> bool:
    return any(each.isdigit() for each in match["v"])


def _is_long_number(match: "re.Match[str]") -> bool:
    """Take a code of four digits or more that is no public number of a trial."""
    public = match["v"].upper().startswith(("NCT", "ISRCTN", "EUCTR"))
    return not public and sum(each.isdigit() for each in match["v"]) >= 4


_TOLL_FREE = re.compile(r"(?:\+?1[ .-]?)?\(?8(?:00|33|44|55|66|77|88)\)?")


def _is_phone(match: "re.Match[str]") -> bool:
    """Refuse toll-free numbers: they are an institution's, and many answers name a help line."""
    return not _TOLL_FREE.match(match["v"])


def _is_ssn(match: "re.Match[str]") -> bool:
    area, group, serial = match["v"].split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_card(match: "re.Match[str]") -> bool:
    return is_luhn(re.sub(r"\D", "", match["v"]))


_NO_ADDRESS = re.compile(r"(?:\bec|version|\bv|section|chapter|fig\w*\.?)[\s:]*$", _I)


def _is_ip(match: "re.Match[str]") -> bool:
    """Take four octets, but no enzyme (EC 3.4.21.4), version or section number."""
    octets = [int(each) for each in match["v"].split(".")]
    before = match.string[max(0, match.start() - 14) : match.start()]
    if any(octet > 255 for octet in octets) or _NO_ADDRESS.search(before):
        return False
    return bool(re.search(r"\bip\b", before, _I)) or sum(octet > 9 for octet in octets) >= 2


# Runs of spaces are possessive: beside each other, they would make the search slow in a long one.
_LABEL = (
    r"[*_]{0,3}\s*+(?:(?:number|num|no|nr|id|code)\b\.?|#|№)?#?\s*+(?:\(last (?:four|4)(?: digits)?\)\s?)?"
    r"(?:(?:is|was|of|end(?:ing|s)(?:\s(?:in|with))?)\b|[:=-])?\s*+(?:(?:is|was)\s++)?[#:]?[*_]{0,3}\s*+"
)
_CODE = (
    r"(?P<v>(?-i:[A-Z]{1,5}(?:-[A-Z])?[ ](?=\d))?[A-Z\d](?:[A-Z\d]|[/-](?=[A-Z\d])){3,24}"
    r"(?:[ ]\d{3,}(?![/.\w]))*)\b"
)


def _labelled(kind: str, labels: str, needs: str, check: Check = _has_digit, value: str = _CODE) -> Pattern:
    """Recognise a code behind its label, such as "MRN: 88213" or "member ID is K-2213-9"."""
    return pattern(kind, rf"\b(?:{labels}){_LABEL}{value}", check, needs, _I, digits=1)


_TAIL = r"[^\s<>\"')\]]*[^\s<>\"')\].,;:!?]"
_CONTACTS = (
    pattern("EMAIL", rf"(?<![\w.%+-])[\w.%+-]+@[\w-]+(?:\.[\w-]+)*\.{LETTER}{{2,}}\b", needs="@"),
    pattern("URL", rf"\b(?:https?|ftp)://{_TAIL}", needs="://", flags=_I),
    pattern("URL", rf"(?<![\w@/])www\.[\w-]+(?:\.[\w-]+)+(?:/{_TAIL})?", needs="www.", flags=_I),
    pattern(
        "URL",
        r"(?<![\w@./-])[a-z\d-]+(?:\.[a-z\d-]+)*\.(?:com|org|net|gov|edu|info|io|co\.uk)\b(?:/[\w./?=&%#-]*\w)?",
        needs=".com|.org|.net|.gov|.edu|.info|.io|.co.uk",
        flags=_I,
    ),
    pattern("IP", r"(?<![\d.])(?P<v>\d{1,3}(?:\.\d{1,3}){3})(?![\d.]*\d)", _is_ip, digits=4),
    pattern(
        "IP",
        r"(?<![\w:])(?P<v>(?:[\da-f]{1,4}:){7}[\da-f]{1,4}|(?:[\da-f]{1,4}:){2,6}(?::[\da-f]{1,4}){1,5})(?![\w:])",
        # Ratios and times have no group of three.
        lambda match: any(len(group) > 2 for group in match["v"].split(":")),
        flags=_I,
        digits=1,
    ),
    pattern(
        "FAX", r"\bfax[^\d.;+(]{0,30}(?P<v>\+?\(?\d[\d().\s-]{5,17}\d)\b", needs="fax", flags=_I, digits=7
    ),
    pattern(
        "PHONE",
        r"(?<![\w.+-])(?P<v>(?:\+?1[ .-]?)?"
        r"(?:\([2-9]\d{2}\)[ .-]?\d{3}|[2-9]\d{2}[ .-][2-9]\d{2})[ .-]\d{4})(?![\w-])",
        _is_phone,
        digits=6,
    ),
    pattern(
        "PHONE",
        r"(?<![\w.])(?P<v>\+(?:[2-9]\d{0,2}|1)[ .-]?(?:\(?\d{1,4}\)?[ .-]?){2,5}\d{2,4})(?!\w)",
        _is_phone,
        needs="+",
        digits=6,
    ),
    pattern(
        "PHONE", r"(?<![\w.+-])(?P<v>\(?0\d{2,4}\)?[ -]\d{3,4}[ -]\d{3,4})(?![\w-]|\.\d)", _is_phone, digits=6
    ),
    pattern(
        "PHONE",
        r"\b(?:(?:tele)?phone|tel|mobile|mob|cell|pager|whatsapp|ph(?=[.:#])|call(?: (?:me|us|him|her|them))?"
        r"|text(?: me)?|contact|callback|reach(?:ed)?(?: (?:me|us|him|her))?"
        r"|(?:my|his|her|their|our|home|work|office|direct|best)"
        r"(?: (?:phone|cell|mobile|home|work|contact))?(?= number))"
        r"(?:\s{1,4}(?:numbers?\b|no\b\.?|phone))?(?:'s\b)?\s*+(?:(?:is|was|at|on)\b|[:#])?\s*+[:#.]?[*_]{0,3}\s*+"
        r"(?P<v>\(?\d{2,4}\)?[ .-]\d{3,4}(?:[ .-]\d{2,5})?|\d{7}|\d{10,11}|\d{5}[ .-]\d{5,6})(?![\w/%-]|\.\d)",
        _is_phone,
        needs="phone|tel|mob|cell|pager|call|reach|contact|text|number|ph|whatsapp",
        flags=_I,
        digits=6,
    ),
)
_NUMBERS = (
    pattern("SSN", r"(?<![\w-])(?P<v>\d{3}-\d{2}-\d{4})(?![\w-])", _is_ssn, digits=9),
    _labelled(
        "SSN",
        r"SSN|SS(?=#)|social security(?: number)?|social(?=(?: (?:number|no\.))? is\b)",
        "ssn|ss#|social",
        value=r"(?:ending in |last four )?(?P<v>\d{3}[ -]?\d{2}[ -]?\d{4}|[\dxX*]{3}-[\dxX*]{2}-\d{4}|\d{4})\b",
    ),
    _labelled(
        "RECORD",
        r"MRN\b|M\.R\.N\.|UHID\b|MR\s?(?=#|no\.|no:)|med(?:ical)?\.?\s+rec(?:ord)?s?\b\.?\s?(?=#|no\b|num|:)"
        r"|record\s+(?=#|no\.|number)|(?:medical|health|patient|hospital|clinic|chart)(?:'s)?\s+(?:record|chart|file|id\b|identification"
        r"|identifier|number|no\.|no(?=:)|registration)|chart\s+(?:no\.|number|#)",
        "mrn|m.r.n|uhid|mr|rec|record|chart|patient|hospital|clinic|health",
    ),
    _labelled(
        "HEALTH_PLAN",
        r"(?:health\s+plan|insurance|member(?:ship)?|policy|subscriber|beneficiary|medicare|medicaid|group|payer"
        r"|coverage)(?:\s+(?:plan|policy|card|member|beneficiary))?\s*(?=number|no\b|nr\b|id\b|#|identifier)"
        r"|(?:health|insurance|medicare|medicaid)\s+card",
        "plan|card|insurance|member|policy|subscriber|beneficiary|medicare|medicaid|group|payer|coverage",
    ),
    _labelled(
        "HEALTH_PLAN",
        r"insurance\s+policy|policy(?=:)",
        "policy",
        lambda match: sum(each.isdigit() for each in match["v"]) > 4,
    ),
    _labelled(
        "ACCOUNT",
        r"(?:account|acct|a/c)\b\.?|routing\b|(?:credit|debit)\s+card|invoice",
        "account|acct|a/c|routing|card|invoice",
        _is_long_number,
    ),
    pattern(
        "ACCOUNT",
        r"(?<![\w.-])(?P<v>[3-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{3,4}|3[47]\d{2}[ -]?\d{6}[ -]?\d{5})(?![\w-]|\.\d)",
        _is_card,
        digits=12,
    ),
    pattern(
        "ACCOUNT",
        r"\b(?P<v>[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){3,7}(?: ?[A-Z\d]{1,3})?)\b",
        lambda match: is_iban(match["v"]),
        digits=8,
    ),
    _labelled(
        "LICENCE",
        r"(?:licen[cs]e|certificate|certification|registration)\b|DEA\b|NPI\b",
        "licen|certif|registration|dea|npi",
        _is_long_number,
    ),
    pattern(
        "VEHICLE",
        rf"\b(?i:(?:licen[cs]e|number|registration)\s+plate|plate\s+number|VIN|vehicle\s+identification){_LABEL}"
        r"(?:reading\s+|marked\s+)?(?P<v>[A-Z\d]{2,17}(?:[ -][A-Z\d]{2,4}){0,2})\b",
        _has_digit,
        needs="plate|vin|vehicle",
        digits=1,
    ),
    pattern(
        "VEHICLE",
        r"\b[Pp]late\s+(?P<v>[A-Z]{1,3}-\d{2,4}(?:-[A-Z]{1,3})?|[A-Z]{3}[ -]\d{3,4})\b",
        needs="plate",
        digits=1,
    ),
    pattern(
        "VEHICLE", r"\b(?P<v>[A-HJ-NPR-Z\d]{17})\b", lambda match: is_vehicle_number(match["v"]), digits=1
    ),
    _labelled(
        "DEVICE",
        r"serial\b|S/N|IMEI\b|UDI\b|device\s+(?:id\b|identifier)|(?:pacemaker|implant|pump|device|lot|stent|prosthesis)"
        r"\s+(?:number|no\.|id\b|#)",
        "serial|s/n|imei|udi|device|pacemaker|implant|pump|lot|stent|prosthesis",
        _is_long_number,
    ),
    pattern(
        "DEVICE",
        r"(?<![\w:])(?P<v>[\da-f]{2}(?::[\da-f]{2}){5}|[\da-f]{2}(?:-[\da-f]{2}){5})(?![\w:-])",
        flags=_I,
        digits=1,
    ),
    _labelled(
        "BIOMETRIC",
        r"(?:finger\s?prints?|voice\s?prints?|retina(?:l)?\s+scans?|iris\s+scans?|face\s?prints?|facial\s+recognition"
        r"|DNA\s+profile)\s+(?:id\b|template|hash|code|number|no\.|#)",
        "print|scan|recognition|dna profile",
    ),
    pattern(
        "PHOTO",
        r"(?<![\w-])(?P<v>[\w-]+\.(?:jpe?g|png|gif|heic|tiff?|dcm))\b",
        needs=".jp|.png|.gif|.heic|.tif|.dcm",
        flags=_I,
    ),
    pattern(
        "PHOTO",
        r"\b(?P<v>(?:full[- ]face|identifying)\s+(?:photo(?:graph)?s?|images?|pictures?))\b",
        needs="full-face|full face|identifying",
        flags=_I,
    ),
    _labelled(
        "OTHER_ID",
        r"(?:passport|visa|national|NHS|national\s+insurance|tax(?:payer)?|case|accession|specimen|sample|order|claim"
        r"|study|trial|reference|encounter|visit|participant|subject|employee|student|badge|ticket|barcode|booking|wristband|bracelet)\s*"
        r"(?=(?:reads|says|(?<=passport\s)[A-Z]{0,2}\d|number|no\.|nr\.|id\b|identification|identity|#|№|(?<=accession\s)\d))(?:identification\s+|identity\s+|reads\s+|says\s+)?",
        "passport|visa|national|nhs|tax|case|accession|specimen|sample|order|claim|study|trial|reference|encounter|visit"
        "|participant|subject|employee|student|badge|ticket|barcode|booking|wristband|bracelet",
        _is_long_number,
        r"(?P<v>[A-Z\d](?:[A-Z\d]|[ /-](?=[A-Z]*\d)){3,24})\b",
    ),
    _labelled(
        "OTHER_ID",
        r"aadhaa?r|cpf|nric|dni|curp|pesel|personnummer|bsn",
        "aadha|cpf|nric|dni|curp|pesel|personnummer|bsn",
        _is_long_number,
        r"(?P<v>[A-Z]?\d(?:[ ./-]?[\dA-Z]){6,17})\b",
    ),
    pattern(
        "OTHER_ID",
        r"\b(?P<v>[\da-f]{8}-[\da-f]{4}-[1-8][\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12})\b",
        flags=_I,
        digits=4,
    ),
)

NUMBER_PATTERNS: tuple[Pattern, ...] = (*_NUMBERS, *_CONTACTS)
