"""The tests are given to processes to the last one, whatever their files hold, and when processes are replaced."""

from types import SimpleNamespace

import pytest

from tests import workers


class _Process:
    """Runs a test once it has another one after it or is told to shut down, as xdist's processes do."""

    def __init__(self, name: str):
        self.gateway = SimpleNamespace(id=name, spec=name, exit=lambda: None)
        self.shutting_down, self.given = False, []

    def send_runtest_some(self, indices):
        self.given += indices

    def shutdown(self):
        self.shutting_down = True

    def next(self) -> int | None:
        return self.given.pop(0) if len(self.given) > 1 or (self.given and self.shutting_down) else None


@pytest.mark.parametrize('crash_at', [None, 3, 7])
@pytest.mark.parametrize('all_large', [False, True])
@pytest.mark.parametrize('tests_of_files', [(1,) * 12, (3, 1, 1, 1, 1, 1, 4), (5, 4, 1, 1, 1), (2, 2, 2, 1, 1, 3, 1)])
def test_every_test_runs(tests_of_files, all_large, crash_at, monkeypatch):
    monkeypatch.setattr(workers, '_bytes', lambda node: 2 * workers._BYTES * all_large)
    collected = [f'tests/test_{i}.py::test_{j}' for i, count in enumerate(tests_of_files) for j in range(count)]
    collecting, ran = [_Process('a'), _Process('b')], []

    def start(node):
        collecting.append(_Process(node.gateway.spec))

    config = SimpleNamespace(
        getvalue={'dist': 'loadfile', 'tx': ['popen', 'popen']}.get,
        pluginmanager=SimpleNamespace(getplugin=lambda name: SimpleNamespace(_clone_node=start)),
        option=SimpleNamespace(loadscopereorder=False),
    )
    monkeypatch.setattr('xdist.scheduler.loadscope.parse_tx_spec_config', lambda config: config.getvalue('tx'))
    scheduler = workers.pytest_xdist_make_scheduler(config, None)
    while not (scheduler.collection is not None and scheduler.tests_finished):
        before = len(ran), len(collecting), len(scheduler.nodes)
        for node in scheduler.nodes:
            if crash_at is not None and len(ran) >= crash_at and node.given:
                assert scheduler.remove_node(node) == collected[node.given[0]]
                start(node)
                crash_at = None
            elif (test := node.next()) is not None:
                ran.append(collected[test])
                scheduler.mark_test_complete(node, test)
            elif node.shutting_down and not node.given:
                scheduler.remove_node(node)
        if len(ran) == before[0]:  # Successors collect while others run what they have.
            for node in collecting:
                scheduler.add_node(node)
                scheduler.add_node_collection(node, collected)
                if scheduler.collection_is_completed:
                    scheduler.schedule()
            collecting.clear()
        assert (len(ran), len(collecting), len(scheduler.nodes)) != before, f'all processes wait after {ran}'
    ran += [collected[test] for node in scheduler.nodes for test in node.given]  # They run when all are shut down.
    assert sorted(ran) == sorted(collected)
