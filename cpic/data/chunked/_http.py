"""Files of a web server: credentials stay with their host, and responses are bounded.

Imported when an address is opened, as fsspec and aiohttp are.
"""

import zlib
from base64 import b64encode
from http import HTTPStatus
from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFileSystem
from multidict import CIMultiDict
from yarl import URL

from cpic._outgoing import same_origin, shown_address
from cpic._trust import DoubtError
from cpic.data.chunked._reads import LIMIT
from cpic.data.chunked._unpack import inflate

_HOPS = 10
_ELSEWHERE = {301, 302, 303, 307, 308}
# Bytes of an error page to read, so that the connection can be reused.
_PAGE = 2**16
# Options of a request that reveal nothing about the caller.
_PLAIN = {"ssl", "proxy", "proxy_auth", "proxy_headers", "timeout"}


class StatusError(OSError):
    """A response without the file."""

    def __init__(self, status: int, more: str = "") -> None:
        known = {one.value: one.phrase for one in HTTPStatus}
        super().__init__(f"{status} {known.get(status, '')}".strip() + more)
        self.status = status


class BoundedHTTP(HTTPFileSystem):
    """`HTTPFileSystem` whose headers, cookies and passwords are not sent to another host."""

    bounded = True

    async def _cat_file(
        self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        given = {**self.kwargs, **kwargs}
        # A server may compress it nevertheless.
        asked = {"Accept-Encoding": "identity"}
        if start is not None or end is not None:
            asked["Range"] = await self._process_limits(url, start, end)
        plain = {**{key: given[key] for key in _PLAIN & given.keys()}, "headers": asked}
        given["headers"] = CIMultiDict(given.get("headers") or {})
        given["headers"].update(asked)
        at = self.encode_url(url)
        if at.raw_user is not None:
            pair = f"{at.user or ''}:{at.password or ''}".encode()
            given["headers"].setdefault("Authorization", f"Basic {b64encode(pair).decode()}")
            at = at.with_user(None)
        follow = given.pop("allow_redirects", True)
        session, first, home = await self.set_session(), at, True
        for _ in range(_HOPS + 1):
            # After a redirection to another host, the caller's headers are not used again.
            home = home and same_origin(str(at), str(first))
            if home:
                found = await _answer(session, at, given)
            else:
                async with _stranger(session) as other:
                    found = await _answer(other, at, plain)
            if isinstance(found, bytes):
                return found
            if not follow:
                break
            at = found
            given.pop("params", None)  # they are in the requested address
        raise StatusError(302, f" to {shown_address(str(at))}" + f", hop {_HOPS + 1}" * follow)


def _stranger(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """A session with the connections of another one, without the credentials of its owner."""
    return aiohttp.ClientSession(
        connector=session.connector,
        connector_owner=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=session.timeout,
        trust_env=session.trust_env,
    )


async def _answer(session: aiohttp.ClientSession, at: URL, options: dict) -> bytes | URL:
    """The file, or its address after a redirection."""
    async with session.get(at, allow_redirects=False, auto_decompress=False, **options) as answer:
        place = answer.headers.get("Location")
        if answer.status in _ELSEWHERE and place is not None:
            return at.join(URL(place))
        if 200 <= answer.status < 300:
            return await _body(answer)
        await answer.content.read(_PAGE)
        if answer.status == 404:
            raise FileNotFoundError(404)
        raise StatusError(answer.status)


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    left, limit, parts = LIMIT.get(), LIMIT.get(), []
    async for part in answer.content.iter_any():
        left -= len(part)
        if left < 0:
            raise DoubtError(f"has more than {limit:,} bytes")
        parts.append(part)
    raw = b"".join(parts)
    if answer.headers.get("Content-Encoding", "").strip().lower() not in ("gzip", "deflate"):
        return raw
    try:
        found = inflate(None, raw, limit, False)
    except (zlib.error, EOFError) as error:
        raise DoubtError(f"was sent compressed and is damaged ({error})") from None
    if len(found) > limit:
        raise DoubtError(f"was sent compressed, and has more than {limit:,} bytes")
    return found
