"""The processes that run the tests: as many as there are cores and memory, and new ones in place of large ones."""

import psutil
from xdist.scheduler import LoadFileScheduling

from seg import cores

_BYTES = 1.5 * 2**30  # A process that takes more is replaced after its file: TensorFlow frees little of its graphs.
_NEEDED = 2.5 * 2**30  # What one takes at most, with the processes that its tests start.


def pytest_xdist_auto_num_workers(config) -> int:
    """Processes for `-n auto`: one per core that memory is left for; none of their own for a single file."""
    if len(config.args) == 1 and '.py' in config.args[0]:
        return 0
    return max(1, min(cores.usable(), int(psutil.virtual_memory().available / _NEEDED)))


def pytest_xdist_make_scheduler(config, log):
    return _Renewing(config, log) if config.getvalue('dist') == 'loadfile' else None


class _Renewing(LoadFileScheduling):
    """Gives each process a file at a time. In place of more work, a large process gets a successor."""

    def _reschedule(self, node) -> None:
        if node not in self.registered_collections:  # A successor that still collects.
            return
        work = self.assigned_work[node]
        nearly_done = work and self.workqueue and not node.shutting_down and self._pending_of(work) <= 2
        if nearly_done and _bytes(node) > _BYTES:
            node.shutdown()  # After the tests that it has.
            self.config.pluginmanager.getplugin('dsession')._clone_node(node)
        super()._reschedule(node)
        # A process runs a test once it has the next one, too. After a crash, files that were done are given out again
        # as nothing to do: a process would wait with its last test for more, and all of them for ever.
        while self.workqueue and not node.shutting_down and self._pending_of(work) < 2:
            super()._reschedule(node)

    def remove_node(self, node) -> str | None:
        crashed = super().remove_node(node)
        node.gateway.exit()  # A process that is done would keep its memory until all are.
        return crashed


def _bytes(node) -> int:
    return psutil.Process(node.gateway._io.popen.pid).memory_info().rss
