"""All warnings are errors, but for those that no script can help.

Each of them has the version that gives it, so that it is known when it can go.
"""

import sys
import warnings

OTHERS = []
if sys.version_info[:3] == (3, 13, 0):
    # By torch.compile: the next version of Python is faster.
    OTHERS.append(("Guards may run slower on Python 3.13.0", RuntimeWarning, ""))
if sys.version_info >= (3, 13):
    # By tf.function: TensorFlow 2.21 puts attributes of its own into syntax trees.
    OTHERS.append(("", DeprecationWarning, "gast.astn"))
FILTERS = ["error"]
FILTERS += [f"ignore:{text}:{kind.__name__}:{name}" for text, kind, name in OTHERS]


def make_errors():
    """Make errors of the warnings in this process."""
    sys.warnoptions.append("error")
    warnings.resetwarnings()
    warnings.simplefilter("error")
    for text, kind, module in OTHERS:
        warnings.filterwarnings("ignore", text, kind, module)
