"""SIGTERM and Ctrl-C: a training that is asked to stop saves its state, and says what is on disk.

While steps run, the main thread is within TensorFlow, where Python calls no signal handler. The command line therefore
has a thread that receives signals at once: it answers the first one, and ends the process at the second Ctrl-C, or at
the first signal as long as no step is finished.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from absl import logging

from seg.run import train_log

_GRACE = 1.0  # Seconds for the main thread to clean up after the second Ctrl-C.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Whether this process was asked to stop.

    Attributes:
      asked: the first signal, to this or another process of the run; None before.
      saves_first: whether there may be unsaved steps: a signal is then only noted. Otherwise it ends the process at
        once, by an exception in the main thread.
      first_step: whether the first step runs, which may be long, and before which there is nothing to save.
      saved: the last step on disk; None while it is unknown.
    """

    def __init__(self, command: bool = False, trains: bool = True):
        """Makes an object that does not listen yet.

        Args:
          command: whether this process is a command, which may end at any moment.
          trains: whether it trains; then the message says what is saved, and SIGTERM ends it with status 0.
        """
        self.asked: int | None = None
        self.saves_first = self.first_step = False
        self.saved: int | None = None
        self._command, self._trains = command, trains
        self._ended = threading.Event()

    def follow(self) -> None:
        """Stops as after SIGTERM, because another process was asked to stop; no change if this one was asked."""
        self.asked = self.asked or signal.SIGTERM

    def save_first(self) -> None:
        """States that from now on there may be unsaved steps."""
        self.saves_first, self.first_step = True, False

    def begin_first_step(self) -> None:
        """States that the first step runs."""
        self.first_step = not self.saves_first

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Context in which a signal ends the process at once, as all steps are saved; used for evaluations."""
        self.saves_first = False
        if self.asked:
            self.leave()
        yield
        self.saves_first = True

    def leave(self) -> None:
        """Ends the process: raises KeyboardInterrupt for Ctrl-C, SystemExit for SIGTERM."""
        self.saves_first = False
        if not self._command:
            logging.warning('Asked to stop. %s', self.state())
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(0 if self._trains else 128 + signal.SIGTERM)

    def state(self) -> str:
        """A sentence on what is on disk; empty without training."""
        if not self._trains:
            return ''
        if self.saved is None:
            return 'No step was taken. The same command starts again.'
        if not self.saved:
            return 'Nothing was saved, because there was no checkpoint yet. The same command starts again.'
        return f'Step {self.saved} is saved. The same command continues from there.'

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Receives signals; restores the earlier handlers at the end."""
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        watcher = threading.Thread(target=self._watch, args=(reader,), name='signals', daemon=True)
        if self._command:
            wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            watcher.start()
        try:
            yield
        finally:
            self.saves_first = False
            self._ended.set()
            if self._command:
                signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            os.close(writer)
            if self._command:
                watcher.join()
            os.close(reader)

    def _handle(self, number: int, _) -> None:
        """Runs in the main thread, as soon as it executes Python again."""
        first, self.asked = self.asked is None, self.asked or number
        if number == signal.SIGINT and not first:
            raise KeyboardInterrupt
        if first and not self.saves_first:
            self.leave()
        if first and not self._command:
            self._answer(number)

    def _watch(self, reader: int) -> None:
        """Runs in its own thread."""
        heard: list[int] = []
        while numbers := os.read(reader, 1):
            number = numbers[0]
            if number == signal.SIGINT and heard and not self._ended.wait(_GRACE):
                _say(f'Interrupted again. {self.state()}')
                os._exit(128 + signal.SIGINT)
            if number in _SIGNALS and not heard and self.first_step:
                _say(f'{"Interrupted" if number == signal.SIGINT else "Asked to terminate"}. {self.state()}')
                os._exit(0 if number == signal.SIGTERM else 128 + number)
            if number in _SIGNALS and not heard and self.saves_first:
                self._answer(number)
            heard.append(number)

    def _answer(self, number: int) -> None:
        again = ' A second Ctrl-C ends the process at once.' if number == signal.SIGINT else ''
        _say(f'Asked to stop: the current steps are finished and saved first.{again}')


_active: Stopping | None = None


@contextlib.contextmanager
def listening(command: bool = False, trains: bool = True) -> Iterator[Stopping]:
    """Receives SIGTERM and Ctrl-C for the whole command, or for a training if no command does; see `Stopping`.

    Outside the main thread, as in some notebooks, signals cannot be received.
    """
    global _active
    if _active is not None:
        yield _active
        return
    stop = Stopping(command, trains)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    _active = stop
    try:
        with stop.listening():
            yield stop
    finally:
        _active = None


def _say(text: str) -> None:
    train_log.add(f'seg_main: {text.strip()}')
    with contextlib.suppress(OSError):
        os.write(2, f'{os.linesep if sys.stderr.isatty() else ""}seg_main: {text.strip()}\n'.encode())
