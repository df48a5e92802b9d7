"""Rewrite the scripts and the counts of changed lines in the README.

And the outputs of the scripts that are named: update_readme.py nn/two_layer_net_nn.py
"""

import argparse

from collection import SCRIPTS
from readme import README, updated

if __name__ == "__main__":  # as processes are started, see forked.py
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT")
    args = parser.parse_args()
    for script in args.scripts:
        if script not in SCRIPTS:
            parser.error(f"there is no {script}: name it as nn/two_layer_net_nn.py")
    text = updated(README.read_text(encoding="utf-8"), args.scripts)
    README.write_text(text, encoding="utf-8")
