"""Change a global variable, and find its old value in a new process.

On macOS and Windows, and since Python 3.14 on Linux as well, a new process does not
copy the variables of its parent: it imports the script, which gives them their first
values again.
"""

import argparse
import multiprocessing

settings = {"learning_rate": 0.1}


def train(given=None):
    """Print the learning rate of the settings given, or else of the global variable."""
    used = given or settings
    print("learning rate", used["learning_rate"])


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    settings["learning_rate"] = 0.5  # for example from the command line
    context = multiprocessing.get_context("spawn")

    process = context.Process(target=train)  # wrong: the global variable
    process.start()
    process.join(60)

    process = context.Process(target=train, args=(settings,))  # right
    process.start()
    process.join(60)


if __name__ == "__main__":
    main()
