"""The speeds of the CPU and the GPU are measured rightly, and compared rightly.

No test looks at a real time: the clock is a fake, or the times are given. The device
"meta" stands in for a GPU. Its tensors have no numbers, but the same operations.
"""

import re
import time

import numpy as np
import pytest
import torch
from collection import TENSOR, curve, execute
from test_bad_input_gets_one_line import assert_one_line

SPEEDUP = "tensor/gpu_speedup.py"
SIZES = [0.125, 0.25, 0.5, 1, 2, 4]
# All threads are size times as fast as one, the GPU takes the same time at all sizes.
GIVEN = "{'one thread': size**2, 'all threads': size, 'meta': 2}[way] / 1000"
GIVEN_TIMES = [
    ("times = {", "threads_seen = {}\ntimes = {"),
    ("measure(step, device))", f"{GIVEN})"),
    ("step = make_step(size", "threads_seen[way] = torch.get_num_threads(); step = make_step(size"),
]
WITH_META = re.search("devices = .*", (TENSOR and open(TENSOR).read()))[0]
