"""Renew what the pages show: code, counts of changed lines, outputs.

Without arguments, the code and the counts of all pages are renewed, and no script runs.
The name of a page renews its outputs, too, but for those that are marked as measured;
the name of a script renews all its outputs, on every page.
"""

import argparse

from collection import ROOT, SCRIPTS
from pages import PAGES, PageError, renewed, text


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="PAGE or SCRIPT",
        help="such as nn/README.md or nn/two_layer_net_nn.py",
    )
    args = parser.parse_args()
    for name in args.names:
        if name not in [*PAGES, *SCRIPTS]:
            parser.error(f"there is no page or script {name}: name it from the root")

    for page in PAGES:
        try:
            new = renewed(page, args.names)
        except PageError as error:
            parser.exit(2, f"{error}\n")
        if new != text(page):
            (ROOT / page).write_text(new, encoding="utf-8")
            print(f"renewed {page}")


if __name__ == "__main__":
    main()
