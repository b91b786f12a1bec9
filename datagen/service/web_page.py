"""Telling a web page from an API's words: a wrong base URL, a login page in between, a proxy's error page."""

import html
import re

_BEGINNING = re.compile(r"\ufeff?\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title\b[^<>]{0,1000}>([^<]{0,1000})</title", re.IGNORECASE)
#: What a page's title may be looked for in, in characters.
_LOOKED_THROUGH = 100_000

#: What to do where a page came instead of an API's reply.
REMEDY = (
    "check the base URL: it is the address of the API, which usually ends in /v1, not that of a web site; "
    "and look for a proxy or a login page in between"
)

#: What the sender of a page means by it, whoever the sender is: it passes.
_MAY_PASS = ("server-error", "rate-limited")


def remedy_for(code: str, usual: str) -> str:
    """Return what to do where a page came: to look at the address, or where it may pass, the usual first."""
    return f"{usual}; if that does not help, {REMEDY}" if code in _MAY_PASS else REMEDY


def page_words(text: str) -> str | None:
    """Describe a body that is a web page, with its title if it has one; None for any other body.

    Example:
        >>> page_words("<!DOCTYPE html><title> Please log&nbsp;in </title>...")
        'a web page (HTML) with the title "Please log in"'
        >>> page_words('{"error": "<html>"}') is None
        True
    """
    beginning = text[:_LOOKED_THROUGH]
    if not _BEGINNING.match(beginning):
        return None
    found = _TITLE.search(beginning)
    title = " ".join(html.unescape(found.group(1)).split()) if found else ""
    return f'a web page (HTML) with the title "{title}"' if title else "a web page (HTML) without a title"
