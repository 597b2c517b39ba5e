"""What is believed of a file, and what leaves the machine."""

import io
import os

import pytest

from cpic import _outgoing, _trust

SECRET = "kq7-Secret+of/ThisTest=="


def test_regular_files_alone_are_opened(tmp_path):
    plain, pipe, folder = tmp_path / "plain", tmp_path / "pipe", tmp_path / "folder"
    plain.write_bytes(b"abc")
    os.mkfifo(pipe)
    folder.mkdir()
    (tmp_path / "link").symlink_to(pipe)
    assert _trust.read_regular(plain, 3) == b"abc"
    assert _trust.check_regular(plain) == 3
    for path in (pipe, folder, tmp_path / "link", "/dev/zero"):
        for ask in (_trust.open_regular, _trust.check_regular, _trust.read_regular):
            with pytest.raises(_trust.DoubtError, match="a file is needed"):
                ask(path)
    with pytest.raises(FileNotFoundError):
        _trust.open_regular(tmp_path / "gone")


@pytest.mark.parametrize("n_bytes", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_a_stream_is_read_to_its_limit(n_bytes):
    content = bytes(n_bytes)
    assert _trust.read_at_most(io.BytesIO(content), n_bytes) == content
    target = io.BytesIO()
    assert _trust.copy_at_most(io.BytesIO(content), target, n_bytes) == n_bytes
    assert target.getvalue() == content
    target = io.BytesIO()
    longer = content + b"x"
    with pytest.raises(_trust.DoubtError, match="a letter of more than"):
        _trust.read_at_most(io.BytesIO(longer), n_bytes, what="a letter")
    with pytest.raises(_trust.DoubtError, match="a letter of more than"):
        _trust.copy_at_most(io.BytesIO(longer), target, n_bytes, what="a letter")
    assert len(target.getvalue()) <= n_bytes


def test_an_endless_stream_ends():
    with pytest.raises(_trust.DoubtError), open("/dev/zero", "rb") as endless:
        _trust.read_at_most(endless, 10)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"[" * 100_000, "deeper"),
        (b"[" * 70 + b"]" * 70, "deeper"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "deeper"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b"\xff\xfe\xfa", "UTF-8"),
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"1" * 10_000, "not JSON"),
    ],
)
def test_json_of_a_stranger(raw, said):
    with pytest.raises(_trust.DoubtError, match=said):
        _trust.parse_json(raw)


@pytest.mark.parametrize("raw", [b"3", b"[]", b'{"a": [1, {"b": null}]}', "[" * 64 + "]" * 64])
def test_json_that_is_believed(raw):
    import json

    assert _trust.parse_json(raw) == json.loads(raw)


@pytest.mark.parametrize("around", ["", "\n", "\r\n", " \t", "\ufeff"])
def test_a_token_comes_without_what_is_around_it(around):
    assert _outgoing.clean_token(f"{around}{SECRET}{around}") == SECRET


@pytest.mark.parametrize("sign", ["\n", "\0", " ", "é", "\u2013", "\x7f"])
def test_a_token_that_no_header_can_carry_is_not_shown(sign):
    with pytest.raises(ValueError, match="not shown") as caught:
        _outgoing.clean_token(f"{SECRET}{sign}{SECRET}")
    assert SECRET not in str(caught.value)
    with pytest.raises(ValueError, match="got none"):
        _outgoing.clean_token(" \n")


def test_addresses_are_shown_without_what_is_secret_in_them():
    shown = _outgoing.shown_address
    assert shown("https://host:8/a/b.zip") == "https://host:8/a/b.zip"
    for url in (
        f"https://me:{SECRET}@host/a?b=1",
        f"https://{SECRET}@host/a",
        f"https://host/a?{SECRET}",
        f"https://host/a?key={SECRET}&more=1",
        f"https://host/a#{SECRET}",
        f"https://me:#{SECRET}@host/a",
        f"https://me:?{SECRET}@host/a",
        f"https://me:{SECRET}/{SECRET}@host/a",
        f"me:{SECRET}@host/a",
        f"me://{SECRET}//{SECRET}@host/a",
        f"https://[{SECRET}/a",
    ):
        assert SECRET.rstrip("=") not in shown(url), url


def test_no_form_of_a_secret_is_left():
    import base64
    from urllib.parse import quote

    raw = SECRET.encode()
    forms = [SECRET, quote(SECRET, safe=""), repr(raw), base64.b64encode(raw).decode()]
    found = _outgoing.without_secrets(" and ".join(forms), [SECRET, ""])
    assert [form for form in forms if form in found] == []
    assert _outgoing.without_secrets("nothing here", [SECRET]) == "nothing here"


def test_origins():
    same = _outgoing.same_origin
    assert same("https://host/a", "HTTPS://HOST:443/b?c")
    for other in ("http://host/a", "https://host:8/a", "https://host.org/a", "https://[x/a"):
        assert not same("https://host/a", other)
