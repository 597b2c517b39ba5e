"""One request of a download: allowed addresses, headers, and messages about refusals.

The secret is sent only to its host, and no text of a server is shown or stored: it may repeat the
secret, or hold the signature of an address.
"""

import contextlib
import http
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from cpic._outgoing import same_origin, shown_address

_TIMEOUT_SECONDS = 60
_HOPS = 10
_MOVED = {301, 302, 303, 307, 308}
_SIGNS = "".join(map(chr, range(0x21, 0x7F)))
_HERE = ("127.0.0.1", "::1", "localhost")


class FetchError(RuntimeError):
    """A file cannot be fetched; the message has the reason and a remedy."""


@contextlib.contextmanager
def answered(url: str, headers: Mapping[str, str], secret: Mapping[str, str]) -> Iterator[Any]:
    """The response to a request, with redirections followed.

    Args:
        url: as required by `check_address`.
        headers: for every host.
        secret: headers for the first host only.

    Raises:
        FetchError: if a redirection leads to a forbidden address.
        urllib.error.URLError, http.client.HTTPException, OSError: as in urllib; an HTTPError is
            left open.
    """
    first, opener = url, urllib.request.build_opener(_Unmoved)
    for _ in range(_HOPS):
        request = urllib.request.Request(url, headers=dict(headers))
        for name, value in secret.items():
            request.add_unredirected_header(name, value)
        try:
            response = opener.open(request, timeout=_TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            if error.code not in _MOVED:
                raise
            with error:  # not read: its text may be endless
                there = _moved(url, error.headers.get("Location") or "", first)
            secret = secret if same_origin(url, there) else {}
            url = there
            continue
        with response:
            yield response
        return
    raise FetchError(
        f"{shown_address(first)} redirects more than {_HOPS} times; look at the set's page in a "
        "browser."
    )


class _Unmoved(urllib.request.HTTPRedirectHandler):
    """Follows no redirection, which is then an HTTPError."""

    def http_error_302(self, req, fp, code, msg, headers):
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _moved(url: str, location: str, first: str) -> str:
    # Headers are decoded as Latin 1, whatever they are.
    location = urllib.parse.quote(location, safe=_SIGNS, encoding="latin1", errors="replace")
    try:
        there = urllib.parse.urljoin(url, location)
        fault = _fault(there) if location else "is empty"
    except ValueError:
        there, fault = "", "cannot be asked"
    if there.startswith("http:") and not url.startswith("http:"):
        fault = fault or "needs https"
    if fault:
        raise FetchError(
            f"{shown_address(first)} redirects to another address (not shown), which {fault}; look "
            "at the set's page in a browser."
        )
    return there


def check_address(url: str) -> None:
    """Raise FetchError for an address that is unencrypted, has a password, or is invalid."""
    # Anywhere in it: what looks like a host and a query may be a user and a password.
    if fault := "needs no user and no password" if "@" in url else _fault(url):
        raise FetchError(
            f"an address {fault}, got {shown_address(url)}; correct it: a token or a file must "
            "not be sent unencrypted."
        )


def _fault(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        fit = re.fullmatch(r"[\x21-\x7e]+", url) and parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:
        return "cannot be asked"
    if "@" in parts.netloc:
        return "needs no user and no password"
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HERE)
    if not (safe and parts.hostname):
        return "needs https"
    return "" if fit else "cannot be asked"


def status_text(code: int) -> str:
    """A status with the standard phrase, not that of the server."""
    try:
        return f"{code} {http.HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def failure_text(error: BaseException) -> str:
    """The reason that this machine gives for a failed connection."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(cause if isinstance(cause, Exception) else error).__name__
