"""Stores behind a bad connection: the same answer, or soon one error that says what to do."""

import http.server
import pickle
import re
import shutil
import socket
import struct
import sys
import threading
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from cpic import data
from cpic._errors import VolumeError

SHAPE = (16, 12, 11)
MIDDLE = torch.tensor([[5, 5, 5]])


def stored():
    return np.random.default_rng(0).integers(1, 100, SHAPE).astype(np.float32)


@pytest.fixture(scope="module", params=["chunks", "shards"])
def store(request, tmp_path_factory):
    shards = (8, 8, 8) if request.param == "shards" else None
    path = tmp_path_factory.mktemp(request.param) / "v.zarr"
    return data.save_zarr(stored(), path, chunks=(4, 4, 4), shards=shards)


@pytest.fixture
def own_store(store, tmp_path):
    return Path(shutil.copytree(store, tmp_path / "v.zarr"))


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr("cpic.data.chunked._reads._PAUSE", 0.01)


@contextmanager
def served(folder, fault=lambda _: None, *, ranges=True):
    """Serve a folder; `fault(n)` names what goes wrong with request number n, if anything."""
    numbers, requests, over = count(1), [], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            kind = fault(next(numbers))
            requests.append((self.path, kind))
            if isinstance(kind, int):
                self.send_error(kind)
                return
            if kind == "hang":
                over.wait()
            if kind in ("close", "hang"):
                self.close_connection = True
                return
            path = folder.joinpath(*self.path.strip("/").split("/"))
            if not path.is_file():
                self.send_error(404)
                return
            body, status = path.read_bytes(), 200
            asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            if asked and ranges:
                first, last = asked.groups()
                status = 206
                body = body[int(first) : int(last) + 1] if first else body[-int(last) :]
            whole = body if kind != "lie" else body[:-1]
            self.send_response(status)
            if kind != "endless":
                self.send_header("Content-Length", str(len(whole)))
            else:
                self.send_header("Connection", "close")
            self.end_headers()
            cut = kind in ("cut", "reset", "endless")
            self.wfile.write(whole[: len(whole) // 2] if cut else whole)
            if cut:
                self.close_connection = True
            if kind == "reset":
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_):
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            over.set()
            server.shutdown()


def every(n, *kinds):
    """Each n-th request fails, in turn by one of `kinds`."""
    return lambda number: kinds[number // n % len(kinds)] if number % n == 0 else None


def centers(generator):
    return torch.randint(-2, 14, (40, 3), generator=generator)


@pytest.mark.parametrize(
    "kinds", [(503,), ("cut",), ("close",), ("reset",), (503, "cut", "close", "reset", 429)]
)
def test_every_tenth_request_fails_and_nothing_changes(store, generator, kinds):
    at = centers(generator)
    local = data.open_volume(store)
    twin = local.cubes(at, size=5)
    with served(store.parent, every(10, *kinds)) as (address, requests):
        volume = data.open_volume(f"{address}/v.zarr")
        assert torch.equal(volume.cubes(at, size=5), twin)
        assert torch.equal(volume.voxels(at), local.voxels(at))
    assert sum(kind is not None for _, kind in requests) >= 3
    # What came is counted, what failed is not.
    assert volume.ledger == local.ledger


def test_all_of_it_is_read_through_faults(store):
    with served(store.parent, every(4, 503, "cut")) as (address, requests):
        volume = data.open_volume(f"{address}/v.zarr")
        assert torch.equal(volume.read(), torch.from_numpy(stored()))
    assert any(kind == "cut" for _, kind in requests)


def test_opening_is_tried_again(store):
    with served(store.parent, lambda n: 503 if n <= 2 else None) as (address, requests):
        assert data.open_volume(f"{address}/v.zarr").shape == SHAPE
        assert [kind for _, kind in requests[:3]] == [503, 503, None]


@pytest.mark.parametrize("kind", [503, "close", "cut"])
@pytest.mark.parametrize("when", ["opening", "voxels", "read"])
def test_a_server_that_stays_down_is_one_error(store, kind, when):
    down = when == "opening"
    with served(store.parent, lambda _: kind if down else None) as (address, requests):

        def use():
            nonlocal down
            volume = data.ZarrVolume(f"{address}/v.zarr", retries=3)
            down = True
            volume.read() if when == "read" else volume.voxels(torch.cartesian_prod(*AXES))

        start = time.monotonic()
        with pytest.raises(VolumeError) as caught:
            use()
        assert time.monotonic() - start < 120
    message = str(caught.value)
    assert message.startswith(f"{address}/v.zarr cannot be read: ")
    assert "failed after 4 attempts" in message
    assert "check that the server is up" in message
    assert "retries= (now 3)" in message
    assert "\n" not in message
    failed = [path for path, fault in requests if fault]
    # The HTTP client may repeat an attempt at a connection that was closed. Readers of one shard
    # share its attempts; all 36 chunks are asked for at once.
    assert max(failed.count(path) for path in failed) <= 4 * 2
    assert len(failed) <= 4 * 2 * 36


AXES = [torch.arange(n) for n in SHAPE]


def test_a_port_nobody_listens_at_is_one_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(VolumeError, match=rf"http://127.0.0.1:{port}/v.zarr cannot be read: "):
        data.ZarrVolume(f"http://127.0.0.1:{port}/v.zarr", retries=1)


def test_a_server_that_comes_back_is_read_again(store):
    down = False
    with served(store.parent, lambda _: 503 if down else None) as (address, _):
        volume = data.ZarrVolume(f"{address}/v.zarr", retries=0)
        down = True
        with pytest.raises(VolumeError, match=r"failed after 1 attempt \(.*503"):
            volume.voxels(MIDDLE)
        down = False
        assert volume.voxels(MIDDLE).item() == stored()[5, 5, 5]


def test_an_answer_that_does_not_come_is_given_up(store):
    hangs = False
    with served(store.parent, lambda _: "hang" if hangs else None) as (address, _):
        volume = data.ZarrVolume(f"{address}/v.zarr", retries=1, timeout=2.0)
        hangs = True
        with pytest.raises(
            VolumeError, match=r"2 attempts \(TimeoutError\); .* timeout= \(now 2 s\)"
        ):
            volume.voxels(MIDDLE)


@pytest.mark.parametrize(
    ("status", "todo"), [(400, "check the address"), (403, "your permissions")]
)
def test_what_will_not_pass_is_not_tried_again(store, status, todo):
    refuses = False
    with served(store.parent, lambda _: status if refuses else None) as (address, requests):
        volume = data.ZarrVolume(f"{address}/v.zarr")
        refuses = True
        with pytest.raises(VolumeError, match=rf"after 1 attempt \(.*{status}.*{todo}"):
            volume.voxels(MIDDLE)
    assert sum(kind == status for _, kind in requests) == 1


@pytest.mark.parametrize("sharded", [False, True])
def test_a_chunk_that_is_not_there_stays_missing(tmp_path, sharded):
    shards = (8, 8, 8) if sharded else None
    path = data.save_zarr(stored(), tmp_path / "v.zarr", chunks=(4, 4, 4), shards=shards)
    lost = "c/0/0/0" if sharded else "c/1/1/1"
    (path / lost).unlink()
    with served(tmp_path, every(10, 503)) as (address, requests):
        volume = data.open_volume(f"{address}/v.zarr")
        with pytest.raises(VolumeError, match=rf"lacks 1 of .*{lost}.*fill_missing=True"):
            volume.voxels(MIDDLE)
        assert [asked for asked, _ in requests].count(f"/v.zarr/{lost}") == 1
        filled = data.ZarrVolume(f"{address}/v.zarr", fill_missing=True)
        assert filled.voxels(MIDDLE).item() == 0
        with pytest.raises(VolumeError, match="there is no Zarr array at http"):
            data.open_volume(f"{address}/other.zarr")


def test_fewer_bytes_than_asked_for_are_no_data(tmp_path):
    # A server that announces the short length: nothing below notices.
    path = data.save_zarr(stored(), tmp_path / "v.zarr", chunks=(4, 4, 4), shards=(16, 12, 12))
    with served(tmp_path, every(3, "lie")) as (address, requests):
        volume = data.open_volume(f"{address}/v.zarr")
        at = torch.tensor([[1, 1, 1], [5, 5, 5], [9, 9, 9], [13, 5, 5]])
        assert torch.equal(volume.voxels(at), data.open_volume(path).voxels(at))
    assert sum(kind == "lie" for _, kind in requests) >= 2


def test_a_body_cut_without_any_length_is_no_data(store):
    cuts = False
    with served(store.parent, lambda _: "endless" if cuts else None) as (address, _):
        volume = data.ZarrVolume(f"{address}/v.zarr", retries=1)
        cuts = True
        with pytest.raises(VolumeError, match=r"cannot be (decoded at \[4:8, 4:8, 4:8\]|read)"):
            volume.voxels(MIDDLE)
        cuts = False
        assert volume.voxels(MIDDLE).item() == stored()[5, 5, 5]


def test_a_server_without_ranges_is_read_all_the_same(store, generator):
    at = centers(generator)
    with served(store.parent, ranges=False) as (address, _):
        volume = data.open_volume(f"{address}/v.zarr")
        assert torch.equal(volume.cubes(at, size=5), data.open_volume(store).cubes(at, size=5))


def test_a_damaged_chunk_is_named(own_store):
    store = own_store
    for file in (store / "c").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-7] + b"damaged")
    with pytest.raises(VolumeError, match=r"v.zarr cannot be decoded at \[4:8, .*copy the store"):
        data.open_volume(store).voxels(MIDDLE)
    with pytest.raises(VolumeError, match=r"v.zarr cannot be decoded at \[0:4, .*copy the store"):
        data.open_volume(store).read()


def test_a_pickled_copy_keeps_its_options(store):
    volume = data.ZarrVolume(store, retries=7, timeout=3.0)
    copy = pickle.loads(pickle.dumps(volume))
    assert (copy._reads.retries, copy._reads.timeout) == (7, 3.0)
    assert copy.voxels(MIDDLE).item() == stored()[5, 5, 5]


class Bucket(MemoryFileSystem):
    """Stands in for S3: refuses whoever does not come as anonymous."""

    protocol = "s3"
    store = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    def __init__(self, anon=False, **options):
        super().__init__(**options)
        self.anon = anon

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("s3://", "memory://"))

    def cat_file(self, path, start=None, end=None, **options):
        if not self.anon:
            raise PermissionError("Access Denied")
        return super().cat_file(path, start, end, **options)


def test_an_anonymous_bucket_is_read(store, generator, monkeypatch):
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "s3", Bucket)
    bucket = Bucket(anon=True)
    for file in store.rglob("*"):
        if file.is_file():
            bucket.pipe(f"/bucket/v.zarr/{file.relative_to(store)}", file.read_bytes())
    at = centers(generator)
    volume = data.open_volume("s3://bucket/v.zarr", storage_options={"anon": True})
    local = data.open_volume(store)
    assert torch.equal(volume.cubes(at, size=5), local.cubes(at, size=5))
    assert volume.ledger == local.ledger
    with pytest.raises(VolumeError, match=r's3://bucket/v.zarr .*Access Denied.*\{"anon": True\}'):
        data.open_volume("s3://bucket/v.zarr")


@pytest.mark.parametrize("address", ["s3://bucket/v.zarr", "nosuch://bucket/v.zarr"])
def test_an_address_of_an_unknown_kind_says_what_is_needed(address):
    with pytest.raises(VolumeError, match=rf"{address} cannot be opened \(.*install"):
        data.open_volume(address)


def test_the_index_of_a_shard_is_fetched_once(tmp_path):
    path = data.save_zarr(stored(), tmp_path / "v.zarr", chunks=(2, 2, 2), shards=(16, 12, 12))
    with served(tmp_path) as (address, requests):
        volume = data.open_volume(f"{address}/v.zarr")
        n_opening = len(requests)
        volume.voxels(torch.cartesian_prod(*[torch.arange(0, 12, 2)] * 3))
        # Chunks that lie side by side come in one answer: a chunk each at the most.
        n_first = len(requests) - n_opening
        assert 2 <= n_first <= 1 + 6**3
        volume.voxels(torch.tensor([[13, 9, 9]]))
        assert len(requests) - n_opening == n_first + 1
    index = 16 * 8 * 6 * 6 + 4
    assert index < volume.ledger.bytes < index + (6**3 + 1) * 60
    assert path.is_dir()


def test_indices_held_are_bounded(tmp_path, monkeypatch):
    path = data.save_zarr(stored(), tmp_path / "v.zarr", chunks=(4, 4, 4), shards=(8, 8, 8))
    monkeypatch.setattr("cpic.data.chunked._reads._INDEX_BYTES", 3 * (16 * 8 + 4))
    volume = data.open_volume(path)
    assert torch.equal(
        volume.voxels(torch.cartesian_prod(*AXES)), torch.from_numpy(stored()).flatten()
    )
    assert len(volume._reads._indices) == 3
