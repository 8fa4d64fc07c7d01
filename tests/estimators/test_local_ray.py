"""Ray's processes hear no signals and do not outlive the run."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import glsk
from glsk.estimators.population import reaper
from glsk.training import checkpoint
from tests.training.runs import config, write_data

SCRIPT = """
import functools, sys
import ray
from glsk.training import Config
from glsk.training.metrics import Metrics
from glsk.stopping import ends_on_signals
from glsk.estimators.population.reaper import descendants, processes
import os
ray.init = functools.partial(ray.init, object_store_memory=80_000_000)
original = Metrics.write
def write(self, record):
    original(self, record)
    if record["step"] == 3:
        known = processes()
        print(*sorted(descendants({os.getpid()}, known) - {os.getpid()}), flush=True)
        sys.stdin.read(1)  # until the signal has come
Metrics.write = write
@ends_on_signals
def main():
    from glsk.training.loop import train
    train(Config.from_dict(SETTINGS), OUT)
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_with_actors_ends_alone_and_quietly(tmp_path, number):
    pytest.importorskip("ray")
    settings = config(write_data(tmp_path / "tiny.npz"), warm_epochs=0, epochs=9, actors=2, checkpoint_every=100)
    script = SCRIPT.replace("SETTINGS", repr(settings.to_dict())).replace("OUT", repr(str(tmp_path / "out")))
    driver = subprocess.Popen(
        [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{script}"],
        env={**os.environ, "PYTHONPATH": str(Path(glsk.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert select.select([driver.stdout], [], [], 120)[0]
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(pids) > 5
        watched = [os.pidfd_open(pid) for pid in pids]
        (driver.kill if number == signal.SIGKILL else lambda: os.killpg(driver.pid, number))()  # as a terminal does
        if number != signal.SIGKILL:
            driver.stdin.write("\n")
            driver.stdin.flush()
        _, said = driver.communicate(timeout=60)
        for descriptor in watched:  # readable once the process has ended
            assert select.select([descriptor], [], [], 10)[0]
            os.close(descriptor)
    finally:
        driver.kill()
        driver.communicate()
    if number == signal.SIGKILL:
        return
    assert driver.returncode == 128 + number
    lines = [line for line in said.splitlines() if not line.startswith(("glsk: bounds by", "pgpe "))]
    assert len(lines) == 1, said
    assert f"stopped by {number.name} after step 3; go on" in lines[0]
    assert checkpoint.latest(tmp_path / "out" / "checkpoints").step == 3


TREE = {1: (0, "a"), 10: (1, "b"), 11: (10, "c"), 12: (11, "d"), 20: (1, "e"), 21: (20, "f")}


def test_descendants_are_found_at_any_depth():
    assert reaper.descendants({10}, TREE) == {10, 11, 12}
    assert reaper.descendants({11, 20, 99}, TREE) == {11, 12, 20, 21}
    assert reaper.descendants(set(), TREE) == set()


def test_an_id_given_to_another_process_is_left_alone():
    assert reaper.left({10: "b", 11: "other", 99: "x"}, TREE) == {10}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_processes_know_their_parents():
    known = reaper.processes()
    assert known[os.getpid()][0] == os.getppid()
