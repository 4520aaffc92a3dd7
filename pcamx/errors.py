"""The errors that a user can mend."""


class PcamxError(Exception):
    """A mistake in a file, a key or a command.

    The message is one line: it names the file, key or row and says what to do. The command
    line prints it without a traceback and exits with ``exit_code``.
    """

    exit_code = 2


class MismatchError(PcamxError):
    """What was checked is not what it should be; the command line exits with 1."""

    exit_code = 1
