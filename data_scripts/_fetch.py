"""Fetch one large file over HTTPS: resumable, verified, complete or absent."""

import base64
import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from _ask import FetchError, answered, check_address, failure_text, status_text
from _place import check_place, check_space, fingerprint, recall, size_of, size_text
from _tar import GZIP, Unpacked
from filelock import FileLock, Timeout
from tqdm import tqdm

from cpic._outgoing import without_secrets
from cpic._trust import DoubtError, open_regular

_BLOCK = 2**20
# Consecutive failures without any progress before giving up; pauses double.
_ATTEMPTS, _PAUSE_SECONDS, _LONGEST_SECONDS = 6, 1.0, 30.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
# Content types of a page or a message, whatever the status of the response.
_WORDS = {
    **dict.fromkeys(("text/html", "application/xhtml+xml"), "web page"),
    **dict.fromkeys(("application/json", "application/xml", "text/xml"), "message"),
}
_GZIP = ("gzip", "x-gzip")
_NUMBER = "[0-9]{1,18}"
# Space kept free on the disk if a server does not declare the size.
_RESERVE_BYTES = 2**28


def fetch(
    url: str,
    target: Path,
    *,
    secret: Mapping[str, str] | None = None,
    sha256: str | None = None,
    tell: Callable[[str], None] = print,
    progress: bool = True,
) -> str:
    """Fetch `url` into the file `target`.

    Received bytes are kept in `target.part`, and a broken or killed fetch is resumed by a range
    request. The file appears under its name when it is complete and verified. Its hash is written
    to `target.sha256`, in the format of `sha256sum`.

    Args:
        url: https, or http on this machine.
        target: path of the file; an existing file is only verified.
        secret: headers that no other host gets, not even by a redirection.
        sha256: required hash; None only records it.
        tell: called with the size before the transfer begins, and with later events.
        progress: show a progress bar.

    Returns:
        The SHA-256 of the file.

    Raises:
        FetchError: if the server refuses, the disk is too small, or the hash differs; without text
            from the server, which may repeat the secret.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise FetchError(f"a sha256 has 64 hexadecimal digits, got {sha256!r}; correct it.")
    check_address(url)
    job = _Transfer(url, target, dict(secret or {}), tell, progress)
    with contextlib.ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(target.with_name(f".{target.name}.lock"), timeout=0))
            for file in (target, job.part, job.note):
                check_place(file)
            if target.exists():
                tell(f"{target} is there; checking it")
                return _checked(target, job, sha256)
            _transfer(job)
            whole = _unpacked(job, sha256)
            digest = _checked(whole, job, sha256)
            os.replace(whole, target)
            job.forget()
        except Timeout:
            raise FetchError(f"another process is fetching {target}; wait until it ends.") from None
        except OSError as error:
            raise FetchError(
                f"{target.parent} cannot be written ({error.strerror or type(error).__name__}); "
                "free space there or allow writing, or choose another folder; the same "
                "command continues."
            ) from None
        return digest


@dataclasses.dataclass
class _Transfer:
    """A download; the received bytes are in `part`, its metadata in `note`."""

    url: str
    target: Path
    secret: dict[str, str]
    tell: Callable[[str], None]
    progress: bool
    told: bool = False

    def __post_init__(self) -> None:
        self.host = urllib.parse.urlsplit(self.url).netloc
        self.part = self.target.with_name(f"{self.target.name}.part")
        self.note = self.target.with_name(f"{self.target.name}.part.json")

    def forget(self) -> None:
        """Start again, or give up."""
        for file in (self.part, self.note):
            file.unlink(missing_ok=True)


class _ShortError(ConnectionError):
    """The connection was closed early."""


def _transfer(job: _Transfer) -> None:
    """Retry until the part is complete; only failures without progress count."""
    failures = 0
    while True:
        before = size_of(job.part)
        try:
            return _attempt(job)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416:
                    # The server has fewer bytes than the part: the file has changed.
                    job.forget()
                elif error.code not in _PASSING:
                    raise FetchError(_refusal(job, error)) from None
            reason = status_text(error.code)
        except _ShortError as error:
            reason = str(error)
        except _BROKEN as error:
            reason = failure_text(error)
        here = size_of(job.part)
        failures = 1 if here > before else failures + 1
        if failures >= _ATTEMPTS:
            raise FetchError(
                f"{job.host} failed {failures} times in a row, the last time with: {reason}; run "
                f"the same command later: it continues after {size_text(here)}."
            )
        job.tell(f"interrupted ({reason}); continuing")
        time.sleep(min(_LONGEST_SECONDS, _PAUSE_SECONDS * 2 ** (failures - 1)))


def _attempt(job: _Transfer) -> None:
    note = recall(job.note, job.url)
    offset = size_of(job.part) if note else 0
    headers = {"User-Agent": "cpic"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if note.get("mark"):
            # A file that has changed is then sent whole, not as the remainder of another one.
            headers["If-Range"] = note["mark"]
    with answered(job.url, headers, job.secret) as response:
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if refused := _WORDS.get(response.headers.get_content_type()):
            raise FetchError(
                f"{job.host} sent a {refused} instead of the file; check that the address "
                "and the token are right and that the terms of the set are accepted."
            )
        if encoding not in ("", "identity", *_GZIP):
            raise FetchError(
                f"{job.host} sends the file compressed in an unexpected format; "
                "download it in a browser."
            )
        start, total = _extent(response)
        if start not in (0, offset) or (start and total != note.get("total")):
            job.note.unlink(missing_ok=True)
            raise _ShortError("the file at the server has changed")
        if not start:
            job.part.write_bytes(b"")
            known = {"url": fingerprint(job.url), "mark": _mark(response, job), "total": total}
            known["packed"] = encoding in _GZIP
            job.note.write_text(json.dumps(known), encoding="utf-8")
        if not job.told:
            size = size_text(total) if total else "unknown size"
            free = size_text(shutil.disk_usage(job.part.parent).free)
            have = f", {size_text(start)} of it is here" if start else ""
            job.tell(f"{job.target.name}: {size}{have}; {free} free in {job.part.parent}")
            job.told = True
        check_space(job.part.parent, (total or 0) - start, f"fetching {job.target.name}")
        _pour(response, start, total, job)


def _pour(response: Any, start: int, total: int | None, job: _Transfer) -> None:
    """Append the received bytes; raise _ShortError if they end early."""
    part = job.part
    bar = tqdm(
        initial=start, total=total, unit="B", unit_scale=True, desc=job.target.name,
        disable=not job.progress,
    )  # fmt: skip
    at = start
    with part.open("r+b") as file, bar:
        file.seek(start)
        while block := _read(response):
            try:
                file.write(block)
                file.flush()
            except OSError as error:
                raise FetchError(
                    f"{part} cannot be written ({error.strerror}); free space and run the same "
                    "command again: it goes on."
                ) from error
            at += len(block)
            bar.update(len(block))
            if total is None:
                check_space(part.parent, _RESERVE_BYTES, f"fetching {job.target.name} further")
            elif at > total:
                job.note.unlink(missing_ok=True)
                raise _ShortError(f"more came than the {total:,} bytes declared")
        file.truncate()
    if total is not None and at < total:
        raise _ShortError(f"the connection closed after {at:,} of {total:,} bytes")
    if not at:
        raise FetchError(
            f"{job.host} sent nothing; check the name of the set and the address, or try later."
        )


def _read(response: Any) -> bytes:
    try:
        return response.read(_BLOCK)
    except OSError as error:  # not of the disk that is written to
        raise _ShortError(failure_text(error)) from None


def _mark(response: Any, job: _Transfer) -> str:
    """The validator of this version of the file, if it can be stored and sent back."""
    mark = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    fit = re.fullmatch("[\x20-\x7e]{1,200}", mark) and not mark.startswith("W/")
    return mark if fit and without_secrets(mark, _words(job.secret)) == mark else ""


def _words(secret: Mapping[str, str]) -> Iterator[str]:
    """Parts of a secret that a server may repeat: header, token, and decoded Basic credentials."""
    for value in secret.values():
        token = value.split()[-1]
        yield from (value, token)
        with contextlib.suppress(ValueError):
            yield from base64.b64decode(token, validate=True).decode().split(":")


def _extent(response: Any) -> tuple[int, int | None]:
    """First byte of the response, and size of the whole file if the server declares it."""
    if response.status == 206:
        found = re.fullmatch(
            rf"bytes ({_NUMBER})-{_NUMBER}/({_NUMBER}|\*)",
            response.headers.get("Content-Range", "").strip(),
        )
        if not found:
            return -1, None
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch(_NUMBER, length) else None


def _unpacked(job: _Transfer, sha256: str | None) -> Path:
    """A file to append to; decompresses if the server compressed the response unasked."""
    if not recall(job.note, job.url).get("packed") or _digest(job.part) == (sha256 or "").lower():
        return job.part
    whole = job.target.with_name(f"{job.target.name}.part.whole")
    try:
        with open_regular(job.part) as file, whole.open("wb") as out:
            shutil.copyfileobj(Unpacked(file, GZIP), out)
    except (DoubtError, EOFError, zlib.error) as error:
        whole.unlink()
        job.forget()
        raise FetchError(
            f"{job.target.name} was sent compressed and is damaged ({error}); what had come is "
            "removed, fetch it again."
        ) from None
    job.part.unlink()
    return whole


def _digest(file: Path) -> str:
    with open_regular(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _checked(file: Path, job: _Transfer, sha256: str | None) -> str:
    """The hash of a file, which is recorded; a file with a wrong hash is removed."""
    target, digest = job.target, _digest(file)
    if sha256 is not None and digest != sha256.lower():
        gone = ""
        if file != target:
            file.unlink()
            job.forget()
            gone = "what had come is removed, "
        raise FetchError(
            f"{target.name} has the sha256 {digest}, {sha256} is needed; {gone}check the value or "
            "fetch it again."
        )
    record = target.with_name(f"{target.name}.sha256")
    record.write_text(f"{digest}  {target.name}\n", encoding="utf-8")
    return digest


def _refusal(job: _Transfer, error: urllib.error.HTTPError) -> str:
    advice = {
        401: "check the token",
        403: "accept the terms of the set with this account, and check the token",
        404: "check the name of the set and the address",
    }.get(error.code, "look at the set's page in a browser")
    return f"{job.host} refused {job.target.name} ({status_text(error.code)}); {advice}."
