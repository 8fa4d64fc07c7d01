"""Actors in a Ray cluster that is there already, of two nodes on this machine."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import glsk
from glsk import GlskError
from glsk.estimators.population import cluster
from tests.estimators.stages import build, small_images, small_net
from tests.training.runs import config, write_data

ray = pytest.importorskip("ray")

SETTINGS = {
    "eps": 0.1, "epochs": 50, "batch_size": 6, "popsize": 20, "stdev_init": 0.05, "lr": 0.1, "milestones": (),
    "backend": "reference",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def nodes():
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 80_000_000}
    found = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        found.add_node(**size)
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def make(kind="pgpe", **settings):
    return build(kind, small_net(), small_images(), **{**SETTINGS, **settings})


def alive():
    from ray._private.state import actors

    return [{"NodeID": one["Address"]["NodeID"]} for one in actors().values() if one["State"] == "ALIVE"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pgpe-cv"])
def test_a_node_that_dies_costs_nothing_but_time(nodes, kind):
    plain, shared = make(kind), make(kind, actors=2, ray_address=nodes.address)
    assert {actor["NodeID"] for actor in alive()} == {node["NodeID"] for node in ray.nodes()}
    for index in range(300):  # the node's processes may outlive it by some steps
        plain.step(index)
        if index == 3:
            nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)
        shared.step(index)
        assert torch.equal(shared.losses(), plain.losses())
        assert len(shared.problem.actors) == 2 or index >= 3
        if index > 5 and len(shared.problem.actors) == 1:
            break
    assert len(shared.problem.actors) == 1
    shared.close()


SCRIPT = """
import sys, ray
from glsk.training import Config
from glsk.estimators.pgpe import Pgpe
step = Pgpe.step
def stepped(self, index):
    if index == 2:
        print(*ray.get([a.call.remote("process", [], {}) for a in self.problem.actors]), flush=True)
        sys.stdin.read(1)
    return step(self, index)
Pgpe.step = stepped
from glsk.training.loop import train
train(Config.from_dict(SETTINGS), OUT)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd_open")
def test_actors_do_not_outlive_a_killed_driver(nodes, tmp_path):
    data = write_data(tmp_path / "tiny.npz")
    settings = config(data, warm_epochs=0, epochs=9, actors=2)  # finds the cluster by RAY_ADDRESS
    script = SCRIPT.replace("SETTINGS", repr(settings.to_dict())).replace("OUT", repr(str(tmp_path / "out")))
    driver = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(glsk.__file__).parents[1]), "RAY_ADDRESS": nodes.address},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert select.select([driver.stdout], [], [], 120)[0]
        watched = [os.pidfd_open(int(pid)) for pid in driver.stdout.readline().split()]
        assert len(watched) == 2
        driver.kill()
        for descriptor in watched:  # readable once the process has ended
            assert select.select([descriptor], [], [], 60)[0]
            os.close(descriptor)
    finally:
        driver.kill()
        driver.communicate()


def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch):
    def refuse(address, **settings):
        raise ConnectionError("nobody\nis there")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(GlskError, match=r"^actors: no Ray cluster at '192\.0\.2\.9:6379' \(nobody\)$"):
        make(actors=2, ray_address="192.0.2.9:6379")


def test_a_cluster_that_is_too_small_is_refused(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 3.0})
    with pytest.raises(GlskError, match="actors: 2 need 4 CPUs, the Ray cluster auto has 3"):
        cluster.start(2, 2, "auto")
    assert cluster.start(3, 1, "auto")


def test_what_an_actor_raises_is_not_taken_for_its_death(monkeypatch):
    """Only actors that are gone are replaced."""
    stage = make()

    def broken(batch):
        raise ValueError("no good")

    monkeypatch.setattr(stage.problem, "_evaluate_all", broken)
    with pytest.raises(ValueError, match="no good"):
        stage.step(0)


def test_a_step_ends_when_nothing_of_the_actors_is_left(monkeypatch):
    stage, calls = make(), []

    def dead(batch):
        raise ray.exceptions.RayActorError

    def none_left(seconds, patience, at_least):
        calls.append(at_least)
        raise GlskError("actors: 0 of 2 could be started within 30 s")

    monkeypatch.setattr(stage.problem, "_evaluate_all", dead)
    monkeypatch.setattr(stage.problem, "_start", none_left)
    monkeypatch.setattr(stage.problem, "kill_actors", lambda: None)
    with pytest.raises(GlskError, match="0 of 2 could be started"):
        stage.step(0)
    assert calls == [1]
