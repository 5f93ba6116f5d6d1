import socket
import time

import pytest

from search.cluster import ClusterError, ray_running
from search.room import TrialResources, fit_resources, packed, room_for_trials
from search.sections import MAX_PACK, ResourcesSection


@pytest.fixture
def dead_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_a_dead_address_is_refused_at_once(
    dead_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = time.monotonic()
    with pytest.raises(ClusterError, match="--address local"), ray_running(dead_address):
        pass
    monkeypatch.setenv("RAY_ADDRESS", dead_address)
    with pytest.raises(ClusterError, match=dead_address), ray_running("auto"):
        pass
    assert time.monotonic() - begin < 10


def test_a_word_that_is_no_address_is_refused() -> None:
    with pytest.raises(ClusterError, match="nonsense"), ray_running("nonsense"):
        pass


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})


@pytest.mark.usefixtures("two_cpus")
def test_no_trial_waits_for_a_device_that_is_not_there() -> None:
    given, notice = fit_resources(TrialResources(cpus=1, gpus=0.0625))
    assert given == TrialResources(cpus=1, gpus=0)
    assert notice == "no GPU here: `gpus_per_trial` is 0 instead of 0.0625"
    assert fit_resources(TrialResources()) == (TrialResources(), None)
    with pytest.raises(ClusterError, match=r"^resources.cpus_per_trial: .* <= 2`.*=4"):
        fit_resources(TrialResources(cpus=4))


@pytest.mark.usefixtures("two_cpus")
def test_room_is_counted_by_the_scarcest() -> None:
    assert room_for_trials(TrialResources()) == 2
    assert room_for_trials(TrialResources(cpus=0.1)) == 20
    assert room_for_trials(TrialResources(cpus=4)) == 1


def test_a_trial_has_at_least_one_thread() -> None:
    given = [ResourcesSection(cpus_per_trial=cpus) for cpus in (0.1, 1.0, 3.5)]
    assert [resources.threads for resources in given] == [1, 1, 3]


@pytest.mark.usefixtures("two_cpus")
@pytest.mark.parametrize("pack", range(2, MAX_PACK + 1))
def test_a_pack_fills_its_device_and_no_more_are_placed_there(
    monkeypatch: pytest.MonkeyPatch, pack: int
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": cpus}} for cpus in (1.0, 2.0)]
    nodes.append({"Alive": False, "Resources": {"CPU": 64.0}})
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    on_gpu = packed(TrialResources(cpus=0.1, gpus=0.01), pack)
    on_cpu = packed(TrialResources(cpus=0.01), pack)
    for share, whole in ((on_gpu.gpus, 1), (on_cpu.cpus, 2)):
        counted = round(share * 10_000)  # as Ray does
        assert pack * counted <= whole * 10_000 < (pack + 1) * counted
    assert (on_gpu.cpus, on_cpu.gpus) == (0.1, 0)
    assert room_for_trials(on_cpu) == pack


@pytest.mark.usefixtures("two_cpus")
def test_a_pack_that_fits_on_no_node_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}] * 3
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    assert packed(TrialResources(), 1) == TrialResources()
    assert packed(TrialResources(), 2).pack == 2
    with pytest.raises(ClusterError, match=r"^resources.pack: .*cpus_per_trial <= 2`.*=3"):
        packed(TrialResources(), 3)


@pytest.mark.parametrize("cpus", [0.0, 8.0])
def test_a_pack_is_measured_by_the_workers_to_come_where_the_head_takes_none(
    monkeypatch: pytest.MonkeyPatch, cpus: float
) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"memory": 1.0}}])
    monkeypatch.setattr("search.room.is_of_this_host", lambda: True)
    monkeypatch.setattr("search.room.cpus_of_one_to_come", lambda: cpus)
    assert packed(TrialResources(), 1) == TrialResources()
    assert packed(TrialResources(gpus=0.5), 2).gpus == 0.5
    if cpus:
        assert packed(TrialResources(), 4) == TrialResources(cpus=2.0, pack=4)
        return
    with pytest.raises(ClusterError, match=r"^resources.pack: .* known, but got pack=4"):
        packed(TrialResources(), 4)
