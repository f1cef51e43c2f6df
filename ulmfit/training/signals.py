"""Ctrl-C and SIGTERM. In training the step that runs is finished and the run saved; elsewhere a command just ends.

Either way it says so in one line, its status is 130 or 143, and a second signal ends it at once.
"""
import os, signal, sys, threading
from contextlib import contextmanager

NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def heed():
    "From here on a signal ends the process; `finally` and `with` undo on the way out what was half done."
    for n in NAMES: signal.signal(n, leave)


def leave(number: int, frame):
    for n in NAMES: signal.signal(n, signal.SIG_DFL)
    os.write(2, f"{NAMES[number]}\n".encode())  # `print` may be what was interrupted
    raise SystemExit(128 + number)


class Stop(Exception): "What is going on is not to be finished."


class Signals:
    "While it lasts, the first signal is only noted in `number`, or stops what runs under `at_once`."
    def __init__(self): self.number, self.stops = None, False

    def __enter__(self):
        # elsewhere than in the main thread Python takes no handler
        here = threading.current_thread() is threading.main_thread()
        self.before = {n: signal.signal(n, self.note) for n in NAMES} if here else {}
        return self

    def __exit__(self, *_):
        for n, handler in self.before.items(): signal.signal(n, handler)

    def note(self, number: int, frame):
        if self.number is not None: os._exit(128 + number)
        self.number = number
        if self.stops: raise Stop

    @contextmanager
    def at_once(self):
        "For what may take long and can be begun again."
        self.stops = True
        try:
            if self.number is not None: raise Stop
            yield
        finally: self.stops = False


def end_by(number: int, what: str):
    "End the process as a signal asks, with what was reached."
    print(f"{NAMES[number]}: {what}", file=sys.stderr)
    raise SystemExit(128 + number)
