"""The devices, and graphs on them."""

import tensorflow as tf

from seg.engine.tensorflow import devices


def test_no_warning_of_many_graphs_of_one_code(caplog):
    def made(number):
        return devices.graph(lambda value: value * number)

    with caplog.at_level('WARNING', logger='tensorflow'):
        assert [int(made(number)(tf.constant(2))) for number in range(8)] == [2 * number for number in range(8)]
    assert not [record for record in caplog.records if 'retracing' in record.getMessage()]
