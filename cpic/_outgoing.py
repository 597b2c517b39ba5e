"""What leaves the machine, or is shown: tokens go to one host, and into no message."""

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, urlsplit, urlunsplit

_HIDDEN = "***"
_PORTS = {"http": 80, "https": 443}


def clean_token(text: str) -> str:
    """A token as files and clipboards give it, without the white space around it.

    Raises:
        ValueError: If nothing is left, or a sign that no header can carry; it is not shown.
    """
    token = text.strip().strip("\ufeff").strip()
    if not token:
        raise ValueError("a token needs at least one sign, got none; copy it again.")
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ValueError(
            "a token needs printable ASCII signs without blanks, got others (not shown); copy it "
            "again."
        )
    return token


def shown_address(url: str) -> str:
    """An address without user, password, query and fragment: fit to be printed.

    >>> shown_address("https://me:word@host/a.zip?X-Amz-Signature=ab12")
    'https://host/a.zip?***'
    """
    # A password may hold any sign, also those that end a host: all before the last @ is hidden.
    url = re.sub(r"^([A-Za-z][\w+.-]*://)?.*@", r"\1", url, flags=re.DOTALL)
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    return urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query and _HIDDEN, ""))


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """A text in which no secret is left, in none of the forms that servers repeat it in."""
    forms: set[str] = set()
    for secret in filter(None, secrets):
        raw = secret.encode()
        forms |= {secret, secret.strip(), quote(secret), quote(secret, safe=""), quote_plus(secret)}
        forms |= {repr(secret)[1:-1], repr(raw)[2:-1]}
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms |= {encode(raw).decode(), encode(raw).decode().rstrip("=")}
    # The longest first: one form may be a part of another.
    for form in sorted(forms - {""}, key=len, reverse=True):
        text = text.replace(form, _HIDDEN)
    return text


def same_origin(one: str, other: str) -> bool:
    """Whether two addresses have one scheme, host and port, so that a secret may go to both."""
    try:
        return _origin(one) == _origin(other)
    except ValueError:
        return False


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, parts.hostname, parts.port or _PORTS.get(scheme)
