"""Rewrite the scripts, the outputs and the counts of changed lines in the README."""

from readme import README, updated

if __name__ == "__main__":  # as processes are started, see forked.py
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
