"""What processes tell one another, where the exchange between them is a list."""

import jax
import numpy as np
import pytest
from flax.serialization import msgpack_serialize

from grokjax.core import hosts as hosts_lib
from grokjax.core.hosts import ALONE, Hosts
from grokjax.errors import HostLost


@pytest.fixture
def told(monkeypatch):
    """Makes a process among those with these messages; what it hands over is listed."""

    def make(index, *messages):
        longest = max(map(len, messages))
        handed = []

        def exchange(self, mine):
            handed.append(mine)
            if mine.dtype == np.int32:
                return np.array([[len(message)] for message in messages], np.int32)
            return np.stack([np.frombuffer(message.ljust(longest, b"\0"), np.uint8) for message in messages])

        monkeypatch.setattr(Hosts, "_exchange", exchange)
        return Hosts(index, len(messages)), handed

    return make


@pytest.mark.parametrize("index", [0, 1, 2])
def test_messages_of_different_lengths_come_in_the_order_of_processes(told, index):
    values = [{"é": [1, None, 0.1]}, None, np.arange(5.0)]
    messages = [msgpack_serialize(value) for value in values]
    hosts, handed = told(index, *messages)
    found = hosts.all_gather(values[index])
    assert found[:2] == values[:2]
    np.testing.assert_array_equal(found[2], values[2])
    lengths, padded = handed
    assert (lengths.tolist(), lengths.dtype) == ([len(messages[index])], np.int32)
    assert padded.tobytes() == messages[index].ljust(max(map(len, messages)), b"\0")
    assert hosts.is_first == (index == 0)


def test_a_barrier_is_a_message_of_every_process(told):
    hosts, handed = told(1, *2 * [msgpack_serialize(None)])
    assert hosts.barrier() is None
    assert len(handed) == 2


def test_one_process_tells_itself(monkeypatch):
    monkeypatch.setattr(Hosts, "_exchange", None)
    assert ALONE.all_gather({"a": [1, None]}) == [{"a": [1, None]}]
    assert ALONE.barrier() is None
    assert ALONE.is_first


def test_the_exchange_is_that_of_jax(monkeypatch):
    from jax.experimental import multihost_utils

    monkeypatch.setattr(multihost_utils, "process_allgather", lambda x: [x, x + 1])
    found = Hosts(0, 2)._exchange(np.array([3], np.int32))
    assert (type(found), found.tolist()) == (np.ndarray, [[3], [4]])


def test_a_lost_process_is_one_sentence(monkeypatch):
    from jax.experimental import multihost_utils

    def fail(_):
        raise RuntimeError("Connection closed by peer " + 300 * "x" + "\nstack\nof frames")

    monkeypatch.setattr(multihost_utils, "process_allgather", fail)
    with pytest.raises(HostLost) as caught:
        Hosts(1, 3).barrier()
    assert str(caught.value) == f"another of the 3 processes is gone (Connection closed by peer {134 * 'x'})"
    assert caught.value.__suppress_context__


def test_joining_hands_over_what_was_given(monkeypatch):
    given = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args: given.append(args))
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    assert hosts_lib.join("host:1", 4, 2) == Hosts(2, 4)
    assert hosts_lib.join() == Hosts(2, 4)
    assert given == [("host:1", 4, 2), (None, None, None)]
