"""Zarr stores behind servers that lie: secrets stay with their host, answers within bounds."""

import base64
import gzip
import http.server
import json
import re
import threading
import traceback
import tracemalloc
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import zarr

from cpic import data
from cpic._errors import VolumeError

VALUES = np.arange(16**3, dtype="f4").reshape(16, 16, 16)
SECRET = "qZ7-unmistakable-token-R3x"
LITTLE = 2**25
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", params=["chunks", "shards"])
def store(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "v.zarr"
    shards = (16, 16, 16) if request.param == "shards" else None
    array = zarr.create_array(path, shape=VALUES.shape, chunks=(8,) * 3, shards=shards, dtype="f4")
    array[...] = VALUES
    return path


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.seen.append(f"{self.path} {dict(self.headers)}")
        try:
            self.server.answer(self)
        except OSError:  # the reader has gone
            self.close_connection = True

    def send(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(answer):
    """The address of a server that answers so, and what it was asked."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        server.answer, server.seen = answer, []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", server.seen
        server.shutdown()


def files(store, pack=lambda body: (body, {})):
    def answer(handler):
        path = store.parent.joinpath(*handler.path.split("?")[0].strip("/").split("/"))
        if not path.is_file():
            handler.send(404)
            return
        body, status = path.read_bytes(), 200
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", handler.headers.get("Range", ""))
        if asked:
            first, last = asked.groups()
            body, status = body[int(first) : int(last) + 1] if first else body[-int(last) :], 206
        body, headers = pack(body)
        handler.send(status, body, **headers)

    return answer


def read(address, **options):
    volume = data.ZarrVolume(address, retries=0, timeout=20, **options)
    return volume.voxels(torch.tensor([[0, 0, 1], [9, 3, 2]])).tolist()


RIGHT = [VALUES[0, 0, 1], VALUES[9, 3, 2]]
GIVEN = {
    "headers": {"headers": {"X-Api-Key": SECRET, "Cookie": f"id={SECRET}"}},
    "authorization": {"headers": {"Authorization": f"Bearer {SECRET}"}},
    "session": {"client_kwargs": {"headers": {"X-Api-Key": SECRET}}},
    "cookies": {"cookies": {"id": SECRET}},
    "cookies of the session": {"client_kwargs": {"cookies": {"id": SECRET}}},
    "nothing": {},
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("user", ["", f"me:{SECRET}@"])
def test_what_the_caller_gives_goes_to_one_host(store, given, user):
    if user and given == "authorization":
        pytest.skip("one or the other")
    with (
        served(files(store)) as (other, seen),
        served(lambda h: h.send(302, Location=f"http://localhost:{other[10:]}{h.path}")) as (
            first,
            home,
        ),
    ):
        address = f"http://{user}{first}/v.zarr"
        assert read(address, storage_options=GIVEN[given]) == RIGHT
        there = " ".join(seen)
        assert seen
        assert SECRET not in there
        assert "Authorization" not in there
        if given != "nothing" or user:
            pair = base64.b64encode(f"me:{SECRET}".encode()).decode()
            assert all(SECRET in asked or pair in asked for asked in home)


def test_a_way_back_is_no_way_home(store):
    def away(handler):
        if handler.path.startswith("/back"):
            handler.send(200, b"{}")
        else:
            handler.send(302, Location=f"http://localhost:{other[10:]}{handler.path}")

    with served(away) as (first, home):

        def back(handler):
            handler.send(302, Location=f"http://{first}/back{handler.path}")

        with served(back) as (other, _), pytest.raises(VolumeError):
            read(f"http://{first}/v.zarr", storage_options={"headers": {"X-Api-Key": SECRET}})
        backs = [asked for asked in home if asked.startswith("/back")]
        assert backs
        assert SECRET not in " ".join(backs)


def test_a_way_on_the_same_host_keeps_what_was_given(store):
    there = files(store)

    def answer(handler):
        if SECRET not in handler.headers.get("X-Api-Key", ""):
            handler.send(403)
        elif handler.path.startswith("/moved"):
            handler.path = handler.path.removeprefix("/moved")
            there(handler)
        else:
            handler.send(307, Location=f"/moved{handler.path}")

    with served(answer) as (address, _):
        options = {"headers": {"X-Api-Key": SECRET}}
        assert read(f"http://{address}/v.zarr", storage_options=options) == RIGHT


ANSWERS = {
    "nothing there": lambda h: h.send(404),
    "wrong": lambda h: h.send(401, f"{SECRET} is wrong".encode()),
    "down": lambda h: h.send(500, str(h.headers).encode()),
    "elsewhere": lambda h: h.send(302, Location=f"http://127.0.0.1:1/x?signature={SECRET}"),
    "in circles": lambda h: h.send(302, Location=h.path),
    "no address": lambda h: h.send(302, Location=f"http://[::{SECRET}"),
    "a file": lambda h: h.send(302, Location="file:///etc/hostname"),
    "no json": lambda h: h.send(200, SECRET.encode()),
    "odd json": lambda h: h.send(200, json.dumps({"node_type": SECRET, "shape": 1}).encode()),
    "odder json": lambda h: h.send(
        200, json.dumps({"node_type": "array", "shape": [1, 1, 1], "data_type": SECRET}).encode()
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_no_error_shows_what_is_secret(kind):
    options = {"headers": {"X-Api-Key": SECRET}}
    with served(ANSWERS[kind]) as (address, _):
        with pytest.raises(VolumeError) as caught:
            read(f"http://me:{SECRET}@{address}/v.zarr?token={SECRET}", storage_options=options)
        shown = "".join(traceback.format_exception(caught.value, chain=True))
        assert SECRET not in str(caught.value)
        assert "me:" not in str(caught.value)
        assert SECRET not in shown
        assert address in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        f"http://me:{SECRET}@127.0.0.1:1/v.zarr",
        f"http://me:{SECRET}@127.0.0.1:99999/v.zarr",
        f"http://me:{SECRET}@[::v/v.zarr",
        f"http://me:{SECRET}/@127.0.0.1:1/v.zarr",
        f"nosuch://me:{SECRET}@127.0.0.1/v.zarr",
        f"http://127.0.0.1:1/v.zarr?token={SECRET}#{SECRET}",
    ],
)
def test_no_error_shows_what_is_secret_in_an_address(address):
    for use in (read, lambda path: data.open_volume(path, retries=0)):
        with pytest.raises(VolumeError) as caught:
            use(address)
        assert SECRET not in "".join(traceback.format_exception(caught.value, chain=True))


@pytest.mark.parametrize(
    "options", [{"headers": 5}, {"nothing": 1}, {"client_kwargs": {"nothing": SECRET}}]
)
def test_options_that_make_no_sense(store, options):
    with (
        served(files(store)) as (address, _),
        pytest.raises(VolumeError, match=r"v\.zarr cannot be read.*check the address and storage"),
    ):
        read(f"http://{address}/v.zarr", storage_options=options)


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_what_comes_packed_all_the_same_is_read(store, coding, pack):
    answer = files(store, lambda body: (pack(body), {"Content_Encoding": coding}))
    with served(answer) as (address, seen):
        assert read(f"http://{address}/v.zarr") == RIGHT
        assert "'Accept-Encoding': 'identity'" in seen[0]


BOMB = gzip.compress(bytes(2**27))


def packed(handler):
    handler.send(200, BOMB, Content_Encoding="gzip")


def endless(handler):
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(2**16))


def announced(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(2**50))
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(2**16))


@pytest.mark.parametrize("much", [packed, endless, announced])
@pytest.mark.parametrize("what", ["all", "chunks"])
def test_answers_without_bounds(store, much, what):
    there = files(store)

    def answer(handler):
        much(handler) if what == "all" or "/c/" in handler.path else there(handler)

    with served(answer) as (address, _):
        tracemalloc.start()
        with pytest.raises(VolumeError, match=r"v\.zarr cannot be read: .*more than .* bytes"):
            read(f"http://{address}/v.zarr")
        assert tracemalloc.get_traced_memory()[1] < LITTLE
        tracemalloc.stop()


def test_any_address_is_one_of_zarr(store):
    def answer(handler):
        handler.path = handler.path.replace("/image/0", "/v.zarr")
        files(store)(handler)

    with served(answer) as (address, _):
        volume = data.open_volume(f"http://{address}/image/0")
        assert volume.voxels(torch.tensor([[9, 3, 2]])) == RIGHT[1]


def test_a_file_address_is_a_path(store):
    assert read(f"file://{store}") == RIGHT


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "npy", "raw"])
def test_only_stores_are_read_at_an_address(ending):
    with pytest.raises(VolumeError, match=r"http://host/a\..* is an address.*download") as caught:
        data.open_volume(f"http://me:{SECRET}@host/a.{ending}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("chain", ["simplecache::{}", "zip://a::{}", "filecache::{}"])
def test_a_chain_of_file_systems_is_refused_before_anything_is_asked(store, chain):
    with served(files(store)) as (address, seen):
        with pytest.raises(VolumeError, match="does not limit responses; give the address"):
            read(chain.format(f"http://me:{SECRET}@{address}/v.zarr"))
        from fsspec.implementations.cached import SimpleCacheFileSystem
        from zarr.storage import FsspecStore

        cached = SimpleCacheFileSystem(target_protocol="http")
        cached.async_impl = cached.asynchronous = True
        with pytest.raises(VolumeError, match="is a chain of file systems"):
            read(FsspecStore(cached, path=f"http://{address}/v.zarr"))
        assert not seen


def test_a_server_at_an_address_of_ipv6():
    with pytest.raises(VolumeError, match=r"http://\[::1\]:1/v.zarr cannot be"):
        read("http://[::1]:1/v.zarr")
