"""Downloads from a server on this machine that drops connections, redirects and refuses."""

import hashlib
import http.server
import io
import json
import re
import shutil
import threading
import urllib.parse
import zipfile
from collections import namedtuple

import _fetch
import download
import pytest
from _fetch import FetchError, fetch
from filelock import FileLock

CONTENT = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` with range requests; `plan` is what to do to the next requests.

    A number closes the connection after so many bytes; a string is a status, or an address to
    redirect to; "page" sends a login page, "whole" ignores the range, "chunked" tells no length.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.mark, self.plan, self.seen = CONTENT, '"one"', [], []
        self.url = f"http://127.0.0.1:{self.server_port}/set"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.seen.append((self.path, dict(self.headers)))
        todo = server.plan.pop(0) if server.plan else None
        self.close_connection = True
        if isinstance(todo, str) and "://" in todo:
            self.answer(302, {"Location": todo})
        elif isinstance(todo, str) and todo.isdigit():
            self.answer(int(todo))
        elif todo == "page":
            self.answer(200, {"Content-Type": "text/html"}, b"<html>log in</html>")
        else:
            self.send(todo)

    def send(self, todo):
        content, start, status = self.server.content, 0, 200
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", self.server.mark) == self.server.mark
        if wanted and same and todo != "whole":
            start, status = int(wanted[1]), 206
            if start >= len(content):
                self.answer(416, {"Content-Range": f"bytes */{len(content)}"})
                return
        headers = {"ETag": self.server.mark}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        cut = body[:todo] if isinstance(todo, int) else body
        self.answer(status, headers, cut, length=None if todo == "chunked" else len(body))

    def answer(self, status, headers=(), body=b"", length=0):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(_fetch, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(_fetch, "_BLOCK", 2**15)
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        yield server


@pytest.fixture
def get(server, tmp_path):
    """Fetch into the file `target`; what was told is in `get.told`."""

    def get(**options):
        return fetch(server.url, get.target, tell=get.told.append, progress=False, **options)

    get.target, get.told = tmp_path / "out" / "set.zip", []
    return get


def ranges(server):
    return [headers.get("Range") for _, headers in server.seen]


def names(target):
    return sorted(p.name for p in target.parent.iterdir() if not p.name.endswith(".lock"))


def test_whole_file_with_its_hash_and_size_told_before(server, get):
    assert get() == DIGEST
    assert get.target.read_bytes() == CONTENT
    assert names(get.target) == ["set.zip", "set.zip.sha256"]
    assert (get.target.parent / "set.zip.sha256").read_text() == f"{DIGEST}  set.zip\n"
    assert re.fullmatch(r"set.zip: 500.0 KiB; .* free in .*out", get.told[0])
    assert len(get.told) == len(server.seen) == 1


def test_what_is_there_is_checked_and_not_fetched(server, get):
    get()
    assert get(sha256=DIGEST.upper()) == DIGEST
    assert len(server.seen) == 1
    with pytest.raises(FetchError, match=f"has the sha256 {DIGEST}, 0000"):
        get(sha256="0" * 64)
    assert get.target.read_bytes() == CONTENT


def test_dropped_connections_are_resumed(server, get):
    server.plan = [100_000, "503", 200_000, 0]
    assert get(sha256=DIGEST) == DIGEST
    assert ranges(server) == [
        None, "bytes=100000-", "bytes=100000-", "bytes=300000-", "bytes=300000-",
    ]  # fmt: skip
    assert server.seen[1][1]["If-Range"] == '"one"'
    assert "100,000 of 512,000 bytes" in get.told[1]


def test_a_new_process_goes_on_where_the_old_one_was_killed(server, get, monkeypatch):
    monkeypatch.setattr(_fetch, "_ATTEMPTS", 1)
    server.plan = [100_000, "500"]
    with pytest.raises(FetchError, match=r"failed 1 times in a row.*goes on after 97.7 KiB"):
        get()
    assert names(get.target) == ["set.zip.part", "set.zip.part.json"]
    with pytest.raises(FetchError, match="500 Internal Server Error"):
        get()
    assert get() == DIGEST
    assert ranges(server) == [None, "bytes=100000-", "bytes=100000-"]
    assert "97.7 KiB of it is here" in get.told[-1]


def test_it_gives_up_only_without_progress(server, get, monkeypatch):
    monkeypatch.setattr(_fetch, "_ATTEMPTS", 3)
    server.plan = [10_000] * 20
    assert get() == DIGEST
    server.plan, get.target = ["503"] * 20, get.target.with_name("other")
    with pytest.raises(FetchError, match="failed 3 times in a row"):
        get()


def test_a_file_that_changed_meanwhile_comes_whole(server, get):
    server.plan = [100_000]
    changed = CONTENT[::-1]

    def change(_):
        server.content, server.mark = changed, '"two"'

    assert fetch(server.url, get.target, tell=change, progress=False)
    assert get.target.read_bytes() == changed


def test_a_server_without_ranges(server, get):
    server.plan = [100_000, "whole"]
    assert get() == DIGEST


def test_a_part_of_something_else_is_not_continued(server, get):
    get.target.parent.mkdir()
    part, note = (get.target.with_name(f"set.zip.part{end}") for end in ("", ".json"))
    part.write_bytes(b"x" * 1000)
    assert get() == DIGEST
    get.target.unlink()
    part.write_bytes(b"x" * 1000)
    note.write_text(json.dumps({"url": "https://other/set", "mark": "", "total": 512000}))
    assert get() == DIGEST
    get.target.unlink()
    part.write_bytes(b"x" * 600_000)
    note.write_text(json.dumps({"url": server.url, "mark": "", "total": 512000}))
    assert get() == DIGEST
    assert ranges(server) == [None, None, "bytes=600000-", None]


def test_a_part_that_is_complete(server, get):
    get()
    part, note = (get.target.with_name(f"set.zip.part{end}") for end in ("", ".json"))
    get.target.rename(part)
    note.write_text(json.dumps({"url": server.url, "mark": '"one"', "total": 512000}))
    assert get() == DIGEST


def test_unknown_length(server, get):
    server.plan = ["chunked"]
    assert get() == DIGEST
    assert "unknown size" in get.told[0]


def test_wrong_hash_leaves_nothing(server, get):
    with pytest.raises(FetchError, match=f"set.zip has the sha256 {DIGEST}, {'1' * 64} is needed"):
        get(sha256="1" * 64)
    assert names(get.target) == []
    with pytest.raises(FetchError, match="64 hexadecimal digits"):
        get(sha256="abc")


def test_too_little_disk_is_known_before(server, get, monkeypatch):
    usage = namedtuple("usage", "total used free")(0, 0, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FetchError, match=r"needs 500.0 KiB, .* has 1000 B free"):
        get()
    assert get.target.with_name("set.zip.part").read_bytes() == b""


@pytest.mark.parametrize(
    ("plan", "match"),
    [
        ("401", "refused set.zip .401 .*check the token"),
        ("403", "refused set.zip .403 .*accept the terms"),
        ("404", "check the name"),
        ("page", "sent a web page instead of the file"),
        ("http://example.org/set", "needs https, got http://example.org"),
        ("file:///etc/passwd", "Redirection to url .* is not allowed"),
    ],
)
def test_refusals_are_one_sentence(server, get, plan, match):
    server.plan = [plan]
    with pytest.raises(FetchError, match=match) as caught:
        get()
    assert "\n" not in str(caught.value)
    assert len(server.seen) == 1


def test_secrets_stay_with_their_host(server, get):
    with Server() as other:
        here, there = server.url, other.url
        server.plan = [f"{here}/again", f"{there}/file"]
        other.plan = [100_000]
        secret = {"Authorization": "Basic secret"}
        assert get(secret=secret) == DIGEST
        assert [headers.get("Authorization") for _, headers in server.seen] == ["Basic secret"] * 3
        assert [path for path, _ in other.seen] == ["/set/file"]
        assert not any("Authorization" in headers for _, headers in other.seen)


def test_addresses_in_the_open_and_two_at_once(get):
    with pytest.raises(FetchError, match=r"needs https, got http://example\.org"):
        fetch("http://example.org/set", get.target)
    get.target.parent.mkdir()
    with (
        FileLock(get.target.with_name(".set.zip.lock")),
        pytest.raises(FetchError, match="another process is fetching"),
    ):
        get()


@pytest.fixture
def no_tokens(monkeypatch, tmp_path):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "SYNAPSE_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "config"))


@pytest.mark.parametrize("name", ["brats", "osic"])
@pytest.mark.parametrize("source", ["kaggle", "synapse"])
def test_without_token_steps_and_tree_are_printed(no_tokens, capsys, tmp_path, name, source):
    assert download.main(name, str(tmp_path / "out"), source=source) == 1
    said = capsys.readouterr().out
    assert {"kaggle": "KAGGLE_KEY", "synapse": "SYNAPSE_AUTH_TOKEN"}[source] in said
    assert {"brats": "survival_info.csv", "osic": "train.csv"}[name] in said
    assert not (tmp_path / "out").exists()


def archive():
    box = io.BytesIO()
    with zipfile.ZipFile(box, "w") as packed:
        packed.writestr("train.csv", "Patient,Weeks\n")
        packed.writestr("train/ID1/1.dcm", b"slice")
    return box.getvalue()


@pytest.mark.parametrize("way", ["environment", "file"])
def test_kaggle(server, no_tokens, monkeypatch, tmp_path, capsys, way):
    if way == "file":
        (tmp_path / "config").mkdir()
        known = json.dumps({"username": "me", "key": "123"})
        (tmp_path / "config" / "kaggle.json").write_text(known)
    else:
        monkeypatch.setenv("KAGGLE_USERNAME", "me")
        monkeypatch.setenv("KAGGLE_KEY", "123")
    server.content, out = archive(), tmp_path / "out"
    assert download.main("osic", str(out), base=server.url) == 0
    assert (out / "osic" / "train" / "ID1" / "1.dcm").read_bytes() == b"slice"
    path, headers = server.seen[0]
    assert path == "/set/competitions/data/download-all/osic-pulmonary-fibrosis-progression"
    assert headers["Authorization"] == "Basic bWU6MTIz"
    said = capsys.readouterr()
    assert hashlib.sha256(server.content).hexdigest() in said.out
    assert "123" not in said.out + said.err
    # Once more: nothing is fetched, and what is unpacked is not overwritten.
    with pytest.raises(SystemExit, match="osic exists"):
        download.main("osic", str(out), base=server.url)
    assert len(server.seen) == 1


def test_synapse_and_an_archive_that_is_here(server, no_tokens, monkeypatch, tmp_path):
    monkeypatch.setenv("SYNAPSE_AUTH_TOKEN", "abc")
    server.content, out = archive(), tmp_path / "out"
    options = {"source": "synapse", "base": server.url, "unpack": False}
    assert download.main("brats", str(out), entity="syn12", **options) == 0
    path, headers = server.seen[0]
    assert urllib.parse.urlsplit(path).path == "/set/entity/syn12/file"
    assert headers["Authorization"] == "Bearer abc"
    with pytest.raises(SystemExit, match="is like syn12345678"):
        download.main("brats", str(out), entity="../x", **options)
    assert download.main("brats", str(tmp_path), archive=str(out / "syn12.archive")) == 0
    assert (tmp_path / "brats" / "train.csv").is_file()


def test_a_broken_token_file_is_one_sentence(no_tokens, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "kaggle.json").write_text("[]")
    with pytest.raises(SystemExit, match=r"kaggle\.json is not what Kaggle gives out"):
        download.main("osic", str(tmp_path))
