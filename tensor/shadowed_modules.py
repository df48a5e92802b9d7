"""Hide a module behind a file of the same name, and see how `import torch` fails.

The file lies beside the program and is empty. Python looks for modules in the folder of
the program first, so it finds this file instead. Notice that the errors blame torch and
random, as if PyTorch or Python were broken.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.parse_args()

PROGRAM = "import torch\nprint(torch.tensor([1.0, 2.0]))\n"


def last_line(neighbour):
    """Run the program beside an empty file of this name."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "first_steps.py").write_text(PROGRAM, encoding="utf-8")
        Path(folder, neighbour).touch()
        done = subprocess.run(
            [sys.executable, "first_steps.py"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    line = (done.stdout or done.stderr).splitlines()[-1]
    # Some messages end with a path in brackets, which differs between versions.
    return line.partition(" (")[0]


print("torch.py        ", last_line("torch.py"))  # wrong
print("tensor_basics.py", last_line("tensor_basics.py"))  # right
print("random.py       ", last_line("random.py"))  # wrong
print("random_walk.py  ", last_line("random_walk.py"))  # right
