"""What the commands that read a table say of its labels alike."""

import argparse


def add_words(sub: argparse.ArgumentParser) -> None:
    """Add ``--normal`` and ``--abnormal``, a table's words for its labels."""
    sub.add_argument("--normal", metavar="WORD", help="what the table calls normal, if not 0")
    sub.add_argument("--abnormal", metavar="WORD", help="what the table calls abnormal, if not 1")
