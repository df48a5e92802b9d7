"""Crash Python by importing TensorFlow before Triton, then change the order.

Triton is the compiler that torch.compile uses for GPUs. It comes with PyTorch for CUDA
on Linux, and is imported by torch.compile even if it is not used. Both libraries bring
their own copy of LLVM, and TensorFlow's hides Triton's if it is loaded first.
"""

import argparse
import signal
import subprocess
import sys
from importlib.util import find_spec


def end_of(program):
    """Run a program in a new Python process and say how that ends."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    if -done.returncode in (signal.SIGSEGV, signal.SIGABRT):
        return "Segmentation fault or Aborted"
    return f"exit status {done.returncode}"


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    if not (find_spec("tensorflow") and find_spec("triton")):
        print("This can only be tried where both TensorFlow and Triton are installed.")
        return

    program = "import tensorflow, triton"  # wrong
    print(f"{program}  {end_of(program)}")

    program = "import triton, tensorflow"  # right
    print(f"{program}  {end_of(program)}")


if __name__ == "__main__":
    main()
