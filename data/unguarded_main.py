"""Start a worker in a program without a main guard, and see both fail.

A worker that is not forked imports the program. Without a guard, the import reaches the
line that starts workers, and Python refuses to start any from there.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = """
from torch.utils.data import DataLoader

def main():
    options = dict(num_workers=1, multiprocessing_context="spawn")
    print(list(DataLoader(range(3), batch_size=None, **options)))

"""


def run(program):
    """Run a program as a file; return what it prints, or the error in its worker."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "program.py")
        file.write_text(program)
        done = subprocess.run(
            [sys.executable, file],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    # Of two long tracebacks, this is the sentence to search for.
    error = re.search("An attempt .*?phase", done.stderr, re.DOTALL)
    return " ".join((error[0] if error else done.stdout).split())


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()

    printed = run(PROGRAM + "main()\n")  # wrong
    print("wrong:", printed)

    printed = run(PROGRAM + 'if __name__ == "__main__":\n    main()\n')  # right
    print("right:", printed)


if __name__ == "__main__":
    main()
