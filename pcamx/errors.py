"""The one error that a user can mend."""


class PcamxError(Exception):
    """A mistake in a file, a key or a command.

    The message is one line: it names the file, key or row and says what to do. The command
    line prints it without a traceback and exits with 2.
    """
