"""The engine of the scripts: workers that fail or die, and what is reported."""

import json
import os
import signal
import threading
from types import SimpleNamespace

import _engine
import pytest
from distributed import Client, Future, LocalCluster
from distributed.client import FutureCancelledError

from cpic._errors import CacheError
from cpic._files import write_json

from . import jobs

pytestmark = pytest.mark.slow


def run(function, patients, *, scheduler=None, workers=None, **options):
    with _engine.Engine(scheduler=scheduler, workers=workers, progress=False) as engine:
        return engine.map(function, patients, **options)


def test_two_processes_give_what_one_gives(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    patients = {f"p{k}": (k / 7,) for k in range(8)}
    report = run(jobs.square, patients, workers=2)
    squares = {name: value for name, (value, _, _) in report.results.items()}
    alone = run(jobs.square, patients, workers=0)
    assert squares == {name: value for name, (value, _, _) in alone.results.items()}
    assert squares == {name: k**2 for name, (k,) in patients.items()}
    assert not report.failed
    assert report.seconds.keys() == patients.keys()
    _, pids, threads = zip(*report.results.values(), strict=True)
    assert len(set(pids)) == 2
    assert os.getpid() not in pids
    assert set(threads) == {"1"}


def test_an_interrupt_that_python_dropped_is_raised_while_waiting(monkeypatch):
    def wait(futures, **options):
        stopped.set()  # as the handler does, before its exception is lost
        raise TimeoutError

    stopped = threading.Event()
    monkeypatch.setattr(_engine, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        _engine._finished(SimpleNamespace(nthreads=dict), [], stopped)


def test_an_interrupt_is_noted_and_raised_and_the_handler_put_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), _engine._interrupts() as stopped:
        signal.raise_signal(signal.SIGINT)
    assert stopped.is_set()
    assert signal.getsignal(signal.SIGINT) is before


def test_failures_are_collected_and_the_rest_goes_on(tmp_path):
    patients = {f"p{k}": (k,) for k in range(6)}
    report = run(jobs.fail_on_odd, patients, workers=0)
    assert report.results == {"p2": 0, "p4": 0}
    assert report.failed == {
        "p0": "ZeroDivisionError: integer division or modulo by zero",
        "p1": "1 is odd; choose another.",
        "p3": "3 is odd; choose another.",
        "p5": "5 is odd; choose another.",
    }
    lines = str(report).splitlines()
    assert lines[0].startswith("6 patients: 2 done, 4 failed, ")
    assert lines[3].split("  ", 1) == ["p1", "     1 is odd; choose another."]
    write_json(tmp_path / "new" / "report.json", report.failed)
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == report.failed
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report.json"]


def test_nothing_to_do_starts_nothing():
    assert str(run(jobs.square, {}, scheduler="tcp://127.0.0.1:1")).startswith("0 patients: 0 done")


def test_a_fault_of_all_ends_all(tmp_path):
    patients = {f"p{k}": (k, str(tmp_path)) for k in range(50)}
    with pytest.raises(CacheError, match="the cache is full"):
        run(jobs.full, patients, workers=0, fatal=(CacheError,))
    assert len(list(tmp_path.iterdir())) < 10


def test_a_patient_that_kills_its_workers_is_reported_and_the_rest_goes_on(tmp_path):
    names = ["a", "always", *(f"c{k}" for k in range(6))]
    patients = {name: (name, str(tmp_path), 99 * (name == "always")) for name in names}
    report = run(jobs.die, patients, workers=2)
    assert report.results.keys() == set(names) - {"always"}
    assert report.failed.keys() == {"always"}
    assert report.failed["always"].startswith("its worker process died 4 times: too little memory")
    assert (tmp_path / "always").read_text() == "xxxx"


def test_a_worker_that_ends_late_loses_no_result(monkeypatch):
    close = LocalCluster.close

    def late(self, *arguments):
        close(self, *arguments)
        raise TimeoutError

    monkeypatch.setattr(LocalCluster, "close", late)
    assert run(jobs.square, {"p": (3,)}, workers=0).results["p"][0] == 9


@pytest.fixture
def cluster():
    """A cluster that is not the engine's."""
    with LocalCluster(
        n_workers=2,
        processes=False,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
    ) as cluster:
        yield cluster


def test_existing_scheduler(cluster):
    with Client(cluster) as mine:
        patients = {f"p{k}": (k,) for k in range(6)}
        report = run(jobs.square, patients, scheduler=cluster.scheduler_address)
        assert [report.results[f"p{k}"][0] for k in range(6)] == [k**2 for k in range(6)]
        # It was there before and stays.
        assert mine.submit(jobs.square, 3).result()[0] == 9


def test_a_scheduler_that_goes_away_is_one_sentence(cluster):
    timer = threading.Timer(0.5, cluster.close)
    timer.start()
    with pytest.raises(_engine.EngineError, match="the Dask scheduler has gone away; start it"):
        run(jobs.square, {f"p{k}": (k,) for k in range(99)}, scheduler=cluster.scheduler_address)
    timer.join()


def test_a_scheduler_that_goes_away_before_a_result_comes_is_one_sentence(monkeypatch):
    def result(self):
        raise FutureCancelledError(self.key, "scheduler-connection-lost")

    monkeypatch.setattr(Future, "result", result)
    with pytest.raises(_engine.EngineError, match="the Dask scheduler has gone away; start it"):
        run(jobs.square, {"p": (1,)}, workers=0)


def test_no_scheduler_is_one_sentence(monkeypatch):
    monkeypatch.setattr(_engine, "_CONNECT_SECONDS", 0.5)
    with pytest.raises(
        _engine.EngineError, match=r"no Dask scheduler answers at tcp://127.0.0.1:1;"
    ):
        run(jobs.square, {"p": (1,)}, scheduler="tcp://127.0.0.1:1")
