"""Fetch one large file over HTTPS: resumed when interrupted, checked, whole or not there."""

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
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

_BLOCK = 2**20
_TIMEOUT_SECONDS = 60
# Failures in a row, without a byte between them, before giving up; pauses double.
_ATTEMPTS, _PAUSE_SECONDS, _LONGEST_SECONDS = 6, 1.0, 30.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


class FetchError(RuntimeError):
    """A file cannot be fetched; the message says why and what to do."""


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

    What has come is kept in `target.part`, and a broken or killed fetch goes on there by a range
    request. The file appears under its name when it is complete and checked. Its hash is written
    to `target.sha256`, in the format of `sha256sum`.

    Args:
        url: https, or http on this machine.
        target: not there yet; a file that is there is only checked.
        secret: headers that no other host gets, also not by a redirection.
        sha256: what the file must have; None only records what it has.
        tell: called with the size before the transfer begins, and with what happens later.
        progress: show a bar.

    Returns:
        The SHA-256 of the file.

    Raises:
        FetchError: if the server refuses, the disk is too small, or the hash is another.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise FetchError(f"a sha256 has 64 hexadecimal digits, got {sha256!r}; correct it.")
    _check_address(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(target.with_name(f".{target.name}.lock"), timeout=0))
        except Timeout:
            raise FetchError(f"another process is fetching {target}; wait until it ends.") from None
        if target.exists():
            tell(f"{target} is there; checking it")
            return _checked(target, target, sha256)
        _transfer(_Transfer(url, target, dict(secret or {}), tell, progress))
        digest = _checked(_part(target), target, sha256)
        os.replace(_part(target), target)
        _note(target).unlink(missing_ok=True)
        return digest


def check_space(folder: Path, n_bytes: int, what: str) -> None:
    """Raises FetchError if `folder` has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise FetchError(
            f"{what} needs {size_text(n_bytes)}, {folder} has {size_text(free)} free; free space "
            "there or choose another folder."
        )


def size_text(n_bytes: int) -> str:
    """For example 4.2 GiB."""
    value, unit = float(n_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


@dataclasses.dataclass
class _Transfer:
    url: str
    target: Path
    secret: dict[str, str]
    tell: Callable[[str], None]
    progress: bool
    told: bool = False

    @property
    def host(self) -> str:
        return urllib.parse.urlsplit(self.url).netloc


class _ShortError(ConnectionError):
    """The connection was closed before all had come."""


def _transfer(job: _Transfer) -> None:
    """Try until the part is complete; only failures without progress count."""
    failures = 0
    while True:
        before = _size(_part(job.target))
        try:
            return _attempt(job)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416:
                    # The server has less than is here: it is not the same file any more.
                    _part(job.target).unlink(missing_ok=True)
                    _note(job.target).unlink(missing_ok=True)
                elif error.code not in _PASSING:
                    raise FetchError(_refusal(job, error)) from None
            reason = f"{error.code} {error.reason}"
        except _BROKEN as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        failures = 1 if _size(_part(job.target)) > before else failures + 1
        if failures >= _ATTEMPTS:
            raise FetchError(
                f"{job.host} failed {failures} times in a row, the last time with: {reason}; run "
                f"the same command later: it goes on after {size_text(_size(_part(job.target)))}."
            )
        job.tell(f"interrupted ({reason}); going on")
        time.sleep(min(_LONGEST_SECONDS, _PAUSE_SECONDS * 2 ** (failures - 1)))


def _attempt(job: _Transfer) -> None:
    part, note = _part(job.target), _recall(_note(job.target), job.url)
    offset = _size(part) if note else 0
    request = urllib.request.Request(job.url, headers={"User-Agent": "cpic"})
    for name, value in job.secret.items():
        request.add_unredirected_header(name, value)
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        if note.get("mark"):
            # A file that changed meanwhile then comes whole, not as the rest of another one.
            request.add_header("If-Range", note["mark"])
    opener = urllib.request.build_opener(_Redirections)
    with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
        if response.headers.get_content_type() == "text/html":
            raise FetchError(
                f"{job.host} sent a web page instead of the file; check that the address and the "
                "token are right and that the terms of the set are accepted."
            )
        start, total = _extent(response)
        if start not in (0, offset) or (start and total != note.get("total")):
            _note(job.target).unlink(missing_ok=True)
            raise _ShortError("the file at the server has changed")
        if not start:
            mark = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            mark = "" if mark.startswith("W/") else mark
            part.write_bytes(b"")
            _note(job.target).write_text(
                json.dumps({"url": job.url, "mark": mark, "total": total}), encoding="utf-8"
            )
        left = (total or 0) - start
        if not job.told:
            size = size_text(total) if total else "unknown size"
            free = size_text(shutil.disk_usage(part.parent).free)
            have = f", {size_text(start)} of it is here" if start else ""
            job.tell(f"{job.target.name}: {size}{have}; {free} free in {part.parent}")
            job.told = True
        check_space(part.parent, left, f"fetching {job.target.name}")
        _pour(response, part, start, total, job)


def _pour(response: Any, part: Path, start: int, total: int | None, job: _Transfer) -> None:
    """Append what comes; raises _ShortError if the end does not."""
    bar = tqdm(
        initial=start, total=total, unit="B", unit_scale=True, desc=job.target.name,
        disable=not job.progress,
    )  # fmt: skip
    at = start
    with part.open("r+b") as file, bar:
        file.seek(start)
        while block := response.read(_BLOCK):
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
        file.truncate()
    if total is not None and at < total:
        raise _ShortError(f"the connection closed after {at:,} of {total:,} bytes")


def _extent(response: Any) -> tuple[int, int | None]:
    """First byte that comes, and bytes of the whole file if the server tells."""
    if response.status == 206:
        found = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        if not found:
            return -1, None
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _checked(file: Path, target: Path, sha256: str | None) -> str:
    """The hash of a file, recorded; what is fetched wrongly is removed."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 is not None and digest != sha256.lower():
        gone = ""
        if file != target:
            file.unlink()
            _note(target).unlink(missing_ok=True)
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
    return f"{job.host} refused {job.target.name} ({error.code} {error.reason}); {advice}."


def _check_address(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    here = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.scheme != "https" and not (parts.scheme == "http" and here):
        raise FetchError(
            f"an address needs https, got {parts.scheme}://{parts.netloc}; a token or a file must "
            "not travel in the open."
        )


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follow to safe addresses; secrets stay with the host they are for."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_address(newurl)
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        old = urllib.parse.urlsplit(req.full_url)
        if new is not None and urllib.parse.urlsplit(newurl)[:2] == old[:2]:
            for name, value in req.unredirected_hdrs.items():
                if name == "Authorization":
                    new.add_unredirected_header(name, value)
        return new


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _note(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _recall(note: Path, url: str) -> dict[str, Any]:
    """What is known of the part; empty if it belongs to something else."""
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        return known if known["url"] == url else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
