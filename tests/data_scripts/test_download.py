"""Downloads from a server on this machine that drops connections, redirects and refuses."""

import base64
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import threading
import urllib.parse
import zipfile
from collections import namedtuple

import _fetch
import _member
import _place
import download
import pytest
from _fetch import FetchError, fetch
from filelock import FileLock

CONTENT = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
# Of signs that no hash and no temporary path has.
TOKEN = "Zq9-unmistakable_Token.of~Tests-Xw7"


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` with range requests; `plan` is what to do to the next requests.

    A number closes the connection after so many bytes; a string is a status, or an address to
    redirect to; "page" sends a login page, "whole" ignores the range, "chunked" tells no length.
    Bytes are all that is sent, with the words of the header Authorization in place of {0}, {1}.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.mark, self.plan, self.seen = CONTENT, '"one"', [], []
        self.headers = {}
        self.waits, self.over = False, threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/set"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
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
        if isinstance(todo, bytes):
            for number, word in enumerate(self.headers.get("Authorization", "").split()):
                todo = todo.replace(b"{%d}" % number, word.encode())
            self.wfile.write(todo)
            if server.waits:
                server.over.wait()
        elif isinstance(todo, str) and "://" in todo:
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
        headers = {"ETag": self.server.mark, **self.server.headers}
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


def leaks(said, folder, but=()):
    """Where the token stands: in what was said, in files."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in but]
    texts = {"said": said} | {p.name: p.read_bytes().decode("latin1") for p in files}
    pair = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    return [where for where, text in texts.items() if TOKEN in text or pair in text]


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
    with pytest.raises(FetchError, match=r"failed 1 times in a row.*continues after 97.7 KiB"):
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
    known = {"url": _place.fingerprint("https://other/set"), "mark": "", "total": 512000}
    note.write_text(json.dumps(known))
    assert get() == DIGEST
    get.target.unlink()
    part.write_bytes(b"x" * 600_000)
    note.write_text(json.dumps(known | {"url": _place.fingerprint(server.url)}))
    assert get() == DIGEST
    assert ranges(server) == [None, None, "bytes=600000-", None]


def test_a_part_that_is_complete(server, get):
    get()
    part, note = (get.target.with_name(f"set.zip.part{end}") for end in ("", ".json"))
    get.target.rename(part)
    known = {"url": _place.fingerprint(server.url), "mark": '"one"', "total": 512000}
    note.write_text(json.dumps(known))
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
        ("http://example.org/set", "redirects to another address .not shown., which needs https"),
        ("file:///etc/passwd", "which needs https"),
        ("ftp://example.org/set", "which needs https"),
        ("https://me:word@example.org/set", "which needs no user and no password"),
        ("https://example.org:99999/set", "which cannot be asked"),
        ("https://[::1/set", "which cannot be asked"),
        ("https://a..b/set", "which cannot be asked"),
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
        # With a date of its own: the archive, and its hash, are the same on every day.
        packed.writestr(zipfile.ZipInfo("train.csv"), "Patient,Weeks\n")
        packed.writestr(zipfile.ZipInfo("train/ID1/1.dcm"), b"slice")
    return box.getvalue()


@pytest.mark.parametrize("way", ["environment", "file"])
def test_kaggle(server, no_tokens, monkeypatch, tmp_path, capsys, way):
    if way == "file":
        (tmp_path / "config").mkdir()
        known = json.dumps({"username": "me\n", "key": f"{TOKEN}\r\n"})
        (tmp_path / "config" / "kaggle.json").write_text(known)
    else:
        monkeypatch.setenv("KAGGLE_USERNAME", "me")
        monkeypatch.setenv("KAGGLE_KEY", f" {TOKEN}\n")
    server.content, out = archive(), tmp_path / "out"
    assert download.main("osic", str(out), base=server.url) == 0
    assert (out / "osic" / "train" / "ID1" / "1.dcm").read_bytes() == b"slice"
    path, headers = server.seen[0]
    assert path == "/set/competitions/data/download-all/osic-pulmonary-fibrosis-progression"
    pair = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    assert headers["Authorization"] == f"Basic {pair}"
    said = capsys.readouterr()
    assert hashlib.sha256(server.content).hexdigest() in said.out
    assert leaks(said.out + said.err, out) == []
    # Once more: nothing is fetched, and what is unpacked is not overwritten.
    with pytest.raises(SystemExit, match="osic exists"):
        download.main("osic", str(out), base=server.url)
    assert len(server.seen) == 1


def test_synapse_and_an_archive_that_is_here(server, no_tokens, monkeypatch, tmp_path):
    monkeypatch.setenv("SYNAPSE_AUTH_TOKEN", f"{TOKEN}\n")
    server.content, out = archive(), tmp_path / "out"
    options = {"source": "synapse", "base": server.url, "unpack": False}
    assert download.main("brats", str(out), entity="syn12", **options) == 0
    path, headers = server.seen[0]
    assert urllib.parse.urlsplit(path).path == "/set/entity/syn12/file"
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    with pytest.raises(SystemExit, match="is like syn12345678"):
        download.main("brats", str(out), entity="../x", **options)
    assert download.main("brats", str(tmp_path), archive=str(out / "syn12.archive")) == 0
    assert (tmp_path / "brats" / "train.csv").is_file()


@pytest.mark.parametrize(
    "content",
    [
        "[]", "{}", "null", '{"username": "me"}', '{"username": 1, "key": 2}', "[" * 100_000,
        f'{{"username": "me", "key": ["{TOKEN}"]}}', f'{{"username": "me", "key": "{TOKEN}"',
        "\xff",
    ],
    ids=range(9),
)  # fmt: skip
def test_a_broken_token_file_is_one_sentence(no_tokens, tmp_path, content):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "kaggle.json").write_text(content, encoding="latin1")
    with pytest.raises(SystemExit, match=r"kaggle\.json is not what Kaggle gives out") as caught:
        download.main("osic", str(tmp_path))
    assert TOKEN not in str(caught.value)


def test_a_token_file_that_is_a_pipe(no_tokens, tmp_path):
    (tmp_path / "config").mkdir()
    os.mkfifo(tmp_path / "config" / "kaggle.json")
    with pytest.raises(SystemExit, match=r"kaggle\.json is not what Kaggle gives out"):
        download.main("osic", str(tmp_path))


@pytest.mark.parametrize("sign", ["\u20ac", "\x01", " ", "\n", "\r\nX-Other: 1", "\x7f", "\udcff"])
@pytest.mark.parametrize("source", ["kaggle", "synapse"])
def test_a_token_that_no_header_can_carry(no_tokens, monkeypatch, tmp_path, source, sign):
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    for name in ("KAGGLE_KEY", "SYNAPSE_AUTH_TOKEN"):
        monkeypatch.setenv(name, f"{TOKEN}{sign}{TOKEN}")
    with pytest.raises(SystemExit, match="printable ASCII") as caught:
        download.main("osic", str(tmp_path / "out"), source=source, entity="syn1")
    assert TOKEN not in str(caught.value)
    assert not (tmp_path / "out").exists()


REPEATED = {
    "reason": (b"HTTP/1.1 403 {0} {1}\r\n\r\n", "refused .* .403 Forbidden.*"),
    "unknown status": (b"HTTP/1.1 777 {0} {1}\r\n\r\n", "refused .* .777."),
    "passing": (b"HTTP/1.1 503 {0} {1}\r\n\r\n", "503 Service Unavailable"),
    "no status line": (b"{0} {1}\r\n\r\n", "BadStatusLine"),
    "no number": (b"HTTP/1.1 {1} {1}\r\n\r\n", "BadStatusLine"),
    "other protocol": (b"HTTP/{1} 200 OK\r\n\r\n", "BadStatusLine|UnknownProtocol"),
    "path": (b"HTTP/1.1 302 {1}\r\nLocation: http://example.org/{1}\r\n\r\n", "needs https"),
    "host": (b"HTTP/1.1 302 {1}\r\nLocation: http://{1}.org/\r\n\r\n", "needs https"),
    "query": (b"HTTP/1.1 302 {1}\r\nLocation: http://a.org/?x={1}\r\n\r\n", "needs https"),
    "user": (b"HTTP/1.1 302 {1}\r\nLocation: https://{1}@a.org/\r\n\r\n", "no user"),
    "password": (b"HTTP/1.1 302 {1}\r\nLocation: https://a:{1}@a.org/\r\n\r\n", "no user"),
    "port": (b"HTTP/1.1 302 {1}\r\nLocation: https://a.org:{1}/\r\n\r\n", "cannot be asked"),
    "scheme": (b"HTTP/1.1 302 {1}\r\nLocation: {1}://a.org\r\n\r\n", "redirects more than 10"),
    "nowhere": (b"HTTP/1.1 302 {1}\r\n\r\n", "which is empty"),
    "not modified": (b"HTTP/1.1 304 {0} {1}\r\n\r\n", "304 Not Modified"),
    "type": (b"HTTP/1.1 200 OK\r\nContent-Type: text/html; a={1}\r\n\r\n{1}", "a web page"),
    "message": (
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"m": "{1}"}',
        "sent a message",
    ),
    "mark": (b"HTTP/1.1 200 {1}\r\nETag: {1}\r\nContent-Length: 99\r\n\r\nX", "failed 2 times"),
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: {1}\r\n\r\n", "sent nothing"),
    "range": (b"HTTP/1.1 206 OK\r\nContent-Range: bytes {1}\r\n\r\nX", "failed 2 times"),
    "headers": (b"HTTP/1.1 200 OK\r\n" + b"A: {1}\r\n" * 200 + b"\r\n", "HTTPException"),
    "long header": (b"HTTP/1.1 200 OK\r\nA: {1}" + b"a" * 70_000 + b"\r\n\r\n", "LineTooLong"),
}  # fmt: skip


@pytest.mark.parametrize("case", REPEATED)
@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_a_secret_that_the_server_repeats_is_not_shown(server, get, monkeypatch, case, scheme):
    monkeypatch.setattr(_fetch, "_ATTEMPTS", 2)
    word = TOKEN if scheme == "Bearer" else base64.b64encode(f"me:{TOKEN}".encode()).decode()
    raw, match = REPEATED[case]
    server.plan = [raw] * 20
    with pytest.raises(FetchError, match=match) as caught:
        get(secret={"Authorization": f"{scheme} {word}"})
    assert "\n" not in str(caught.value)
    assert leaks(f"{caught.value} {get.told}", get.target.parent) == []
    assert not get.target.exists()


def test_a_mark_that_holds_the_key_of_basic_is_not_kept(server, get, monkeypatch):
    monkeypatch.setattr(_fetch, "_ATTEMPTS", 1)
    server.mark, server.plan = f'"{TOKEN}"', [1000]
    word = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    with pytest.raises(FetchError, match="1 times in a row"):
        get(secret={"Authorization": f"Basic {word}"})
    assert leaks(str(get.told), get.target.parent) == []


def test_a_signature_of_a_redirection_is_not_shown(server, get):
    with Server() as other:
        signed = f"{other.url}/{TOKEN}?X-Amz-Signature={TOKEN}"
        server.plan, other.plan = [signed] * 9, ["403"]
        with pytest.raises(FetchError, match=r"refused set\.zip .403") as caught:
            get()
        assert leaks(f"{caught.value} {get.told}", get.target.parent) == []
        other.plan = [100_000]
        assert get() == DIGEST
    assert leaks(str(get.told), get.target.parent, but=("set.zip",)) == []


@pytest.mark.parametrize(
    "base",
    [
        f"http://me:{TOKEN}@127.0.0.1:9", f"http://{TOKEN}@127.0.0.1:9", f"me:{TOKEN}@127.0.0.1",
        f"https://me:{TOKEN}@host", f"https://me:{TOKEN}/1@host", f"https://me:{TOKEN}#1@host",
        f"https://me:?{TOKEN}@host", f"https://me:[{TOKEN}@host", f"ftp://me:{TOKEN}@host",
        f"http://example.org/?key={TOKEN}", f"http://example.org/#{TOKEN}",
    ],
    ids=range(11),
)  # fmt: skip
def test_a_password_in_the_base_is_not_shown(no_tokens, monkeypatch, tmp_path, capsys, base):
    monkeypatch.setenv("SYNAPSE_AUTH_TOKEN", "another-token-of-some-length")
    with pytest.raises(SystemExit, match=r"an address (needs|cannot)") as caught:
        download.main("osic", str(tmp_path), source="synapse", entity="syn1", base=base)
    said = capsys.readouterr()
    assert leaks(f"{caught.value} {said.out} {said.err}", tmp_path) == []


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "sent nothing"),
        (b"HTTP/1.1 204 OK\r\n\r\n", "sent nothing"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", "sent nothing"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n", "sent nothing"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999999\r\n\r\nX", "PiB|TiB"),
        (b"HTTP/1.1 206 OK\r\nContent-Range: bytes 7-9/10\r\n\r\nXX", "has changed"),
        (b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-0/1\r\n\r\nXX", "more came than the 1"),
    ],
    ids=range(7),
)
def test_answers_that_do_not_hold_together(server, get, monkeypatch, raw, match):
    monkeypatch.setattr(_fetch, "_ATTEMPTS", 2)
    server.plan = [raw] * 9
    with pytest.raises(FetchError, match=match):
        get()
    assert not get.target.exists()


def test_an_answer_without_end_leaves_room_on_the_disk(server, get, monkeypatch):
    usage = namedtuple("usage", "total used free")(0, 0, 2**28 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    server.plan = ["chunked"]
    with pytest.raises(FetchError, match=r"fetching set\.zip further needs 256\.0 MiB"):
        get()


def test_redirections_in_a_circle(server, get):
    server.plan = [server.url] * 99
    with pytest.raises(FetchError, match="redirects more than 10 times"):
        get()
    assert len(server.seen) == 10


def test_what_a_redirection_says_besides_is_not_read(server, get):
    """Its text is announced and does not come: who reads it waits."""
    answer = f"HTTP/1.1 302 Found\r\nLocation: {server.url}\r\nContent-Length: 99999\r\n\r\n"
    server.plan, server.waits = [answer.encode()], True
    assert get() == DIGEST
    assert len(get.told) == 1


@pytest.mark.parametrize("name", ["set.zip", "set.zip.part", "set.zip.part.json"])
def test_something_else_in_the_place_of_a_file(server, get, name):
    get.target.parent.mkdir()
    os.mkfifo(get.target.with_name(name))
    with pytest.raises(FetchError, match=f"{name} is a named pipe"):
        get()


@pytest.mark.parametrize(
    "known",
    [
        '{"url": 1}', '{"url": "HERE", "mark": 7, "total": 512000}',
        '{"url": "HERE", "mark": "", "total": "many"}', "[" * 9999, "[]", "\xff", "null",
    ],
    ids=range(7),
)  # fmt: skip
def test_notes_that_are_not_ours(server, get, known):
    get.target.parent.mkdir()
    get.target.with_name("set.zip.part").write_bytes(b"x" * 1000)
    known = known.replace("HERE", _place.fingerprint(server.url))
    get.target.with_name("set.zip.part.json").write_text(known, encoding="latin1")
    assert get() == DIGEST
    assert ranges(server) == [None]


def test_a_folder_that_cannot_be_made(server, get, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(FetchError, match="out cannot be written"):
        get()


@pytest.mark.parametrize("plan", [[], [300], ["chunked"], [0, 90, 200]])
@pytest.mark.parametrize("word", ["gzip", "x-gzip"])
def test_what_a_server_packs_on_the_way_is_unpacked(get, server, plan, word):
    server.content, server.headers = gzip.compress(CONTENT), {"Content-Encoding": word}
    server.plan = list(plan)
    assert get() == DIGEST
    assert get.target.read_bytes() == CONTENT
    assert names(get.target) == ["set.zip", "set.zip.sha256"]


def test_a_packed_file_that_is_wanted_as_it_is_stays_packed(get, server):
    server.content, server.headers = gzip.compress(CONTENT), {"Content-Encoding": "gzip"}
    assert get(sha256=hashlib.sha256(server.content).hexdigest())
    assert get.target.read_bytes() == server.content


@pytest.mark.parametrize(
    ("word", "content", "message"),
    [
        ("gzip", gzip.compress(CONTENT)[:-100], "was sent compressed and is damaged"),
        ("gzip", CONTENT, "was sent compressed and is damaged"),
        ("gzip", gzip.compress(bytes(2**25)), "damaged .unpacks to more than 250 times"),
        ("br", CONTENT, "sends the file compressed in an unexpected format"),
    ],
)
def test_what_cannot_be_unpacked_is_refused(get, server, word, content, message, monkeypatch):
    monkeypatch.setattr(_member, "_SMALL_BYTES", 2**20)
    server.content, server.headers = content, {"Content-Encoding": word}
    with pytest.raises(FetchError, match=message):
        get()
    assert names(get.target) == []
