"""Run a script in this process, which is to be killed, or to find the disk full.

python dying.py os.replace 3 SCRIPT ...     killed before the third call of os.replace
python dying.py killed-at 1000 SCRIPT ...   killed when a file has so many bytes
python dying.py full-at 1000 SCRIPT ...     writing more bytes into a file fails
"""

import importlib
import os
import resource
import runpy
import signal
import sys


def die_before(name, number):
    """Let the call of this number of a function, such as os.replace, never return."""
    module, _, name = name.rpartition(".")
    module = importlib.import_module(module)
    function = getattr(module, name)
    calls = 0

    def replaced(*args, **options):
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    setattr(module, name, replaced)


sys.dont_write_bytecode = True  # not to die of a long .pyc
what, number, script, *options = sys.argv[1:]
if what in ("killed-at", "full-at"):
    # Beyond this limit the system sends a signal; who ignores it gets an OSError.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), int(number)))
    action = signal.SIG_DFL if what == "killed-at" else signal.SIG_IGN
    signal.signal(signal.SIGXFSZ, action)
else:
    die_before(what, int(number))
sys.argv = [script, *options]
runpy.run_path(script, run_name="__main__")
