"""The one error of the command line."""


class CommandFailed(Exception):
    """An expected failure: the message is printed as one line, and the exit code is 1."""
