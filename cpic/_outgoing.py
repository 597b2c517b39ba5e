"""Guards for requests and messages: a token goes to one host only, and into no message."""

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, urlsplit, urlunsplit

_HIDDEN = "***"
_PORTS = {"http": 80, "https": 443}


def clean_token(text: str) -> str:
    """A token read from a file or the clipboard, stripped of white space.

    Raises:
        ValueError: If it is empty, or has a character not allowed in headers; it is not shown.
    """
    token = text.strip().strip("\ufeff").strip()
    if not token:
        raise ValueError("a token needs at least one character, got none; copy it again.")
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ValueError(
            "a token needs printable ASCII characters without blanks, got others (not shown); copy "
            "again."
        )
    return token


def shown_address(url: str) -> str:
    """An address without user, password, query and fragment, safe to print.

    >>> shown_address("https://me:word@host/a.zip?X-Amz-Signature=ab12")
    'https://host/a.zip?***'
    """
    # A password may hold any character, even one that ends a host: all before the last @ is hidden.
    url = re.sub(r"^([A-Za-z][\w+.-]*://)?.*@", r"\1", url, flags=re.DOTALL)
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    return urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query and _HIDDEN, ""))


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Remove secrets from a text, in all forms in which servers repeat them."""
    forms: set[str] = set()
    for secret in filter(None, secrets):
        raw = secret.encode()
        forms |= {secret, secret.strip(), quote(secret), quote(secret, safe=""), quote_plus(secret)}
        forms |= {repr(secret)[1:-1], repr(raw)[2:-1]}
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms |= {encode(raw).decode(), encode(raw).decode().rstrip("=")}
    # The longest first: one form may be part of another.
    for form in sorted(forms - {""}, key=len, reverse=True):
        text = text.replace(form, _HIDDEN)
    return text


def same_origin(one: str, other: str) -> bool:
    """Whether two addresses have the same scheme, host and port, and may share a secret."""
    try:
        return _origin(one) == _origin(other)
    except ValueError:
        return False


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, parts.hostname, parts.port or _PORTS.get(scheme)
