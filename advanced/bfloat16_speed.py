"""Measure whether your processor multiplies matrices faster in bfloat16.

Processors with instructions for bfloat16 (most GPUs, some CPUs) do so several times
faster than in float32. The others emulate it, and are slower than in float32.
"""

import argparse
import timeit

import torch


def fastest(dtype, size, device, repeat=10):
    """Return the seconds of a product of two (size, size) matrices, the best of all."""
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)

    def product():
        a @ b
        if a.device.type != "cpu":
            torch.accelerator.synchronize()  # a GPU works on after the call returned

    # The first calls set things up, and other programs disturb some: hence the minimum.
    return min(timeit.repeat(product, number=1, repeat=repeat))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    args = parser.parse_args()

    # A product of two matrices of this size takes 2 size**3 operations.
    for dtype in (torch.float32, torch.bfloat16):
        seconds = fastest(dtype, args.size, args.device)
        speed = 2 * args.size**3 / seconds
        print(f"{dtype!s:14}  GFLOP/s {speed / 1e9:.0f}")


if __name__ == "__main__":
    main()
