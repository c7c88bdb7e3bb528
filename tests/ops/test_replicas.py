"""The context from which a replica's code learns of the other replicas."""

import threading

from seg.ops.replicas import num_replicas, running, sum_over_replicas


def test_outside_of_replicas_there_is_one():
    assert num_replicas() == 1 and sum_over_replicas([1.0, 2.0]) == [1.0, 2.0]


def test_within_it_counts_as_the_engine_says():
    with running(3, lambda x: 3 * x):
        assert num_replicas() == 3 and sum_over_replicas(2) == 6
    assert num_replicas() == 1


def test_each_thread_has_its_own():
    told = []
    with running(2, lambda x: 2 * x):
        thread = threading.Thread(target=lambda: told.append(num_replicas()))
        thread.start()
        thread.join()
    assert told == [1]
