"""Looking for the other processes of a run, with sockets of this machine."""

import json
import socket
import threading
import time

import pytest

from train.cli import RunError
from train.engine import partners


def cluster(index=0, kind="worker", **jobs):
    jobs = jobs or {"worker": ["a:1", "b:2"]}
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("text", "others"),
    [
        (cluster(), ["b:2"]),
        (cluster(1), ["a:1"]),
        (cluster(worker=["only:1"]), []),
        (cluster(1, chief=["a:1"], worker=["b:1", "c:1"]), ["a:1", "b:1"]),
        (cluster(worker=["[::1]:22", "host-0.x_y:65535"]), ["host-0.x_y:65535"]),
        ('{"environment": "cloud", "cluster": {}, "task": {}}', None),
    ],
)
def test_other_workers_are_those_of_the_cluster(text, others):
    received = partners.read_cluster({"TF_CONFIG": text})
    assert (received and received[1]) == others


def test_own_address_is_that_of_the_task():
    own, _ = partners.read_cluster({"TF_CONFIG": cluster(1)})
    assert own == "b:2" and partners.read_cluster({}) is None


def free_ports(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_processes_that_look_for_each_other_find_each_other():
    addresses = [f"localhost:{port}" for port in free_ports(3)]
    failures = []

    def process(own, delay):
        time.sleep(delay)
        others = [address for address in addresses if address != own]
        try:
            partners.find(own, others, 20)
            # as the server of TensorFlow listens at the same address soon
            with socket.create_server(("localhost", int(own.rpartition(":")[2]))):
                time.sleep(3)
        except Exception as error:
            failures.append(error)

    threads = [
        threading.Thread(target=process, args=(address, delay))
        for address, delay in zip(addresses, (0, 0.3, 1), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_process_that_does_not_come_is_named():
    here, there, nowhere = (f"localhost:{port}" for port in free_ports(3))
    with (
        socket.create_server(("localhost", int(there.rpartition(":")[2]))),
        pytest.raises(RunError, match=f"no answer from {nowhere}") as error,
    ):
        partners.find(here, [there, nowhere], 0.1)
    assert there not in str(error.value) and "within 0.1 s" in str(error.value)


def test_host_that_does_not_exist_is_named():
    (port,) = free_ports(1)
    with pytest.raises(RunError, match="no answer from nowhere.invalid:1"):
        partners.find(f"localhost:{port}", ["nowhere.invalid:1"], 0)


def test_process_with_two_addresses_is_named():
    (port,) = free_ports(1)
    with pytest.raises(RunError, match="lists this process twice.*127.0.0.1"):
        partners.find(f"localhost:{port}", [f"127.0.0.1:{port}"], 5)


def test_address_in_use_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=f"its own address.*port {port}"):
            partners.find(f"localhost:{port}", [], 1)
