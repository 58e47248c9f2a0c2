"""The one error of this package."""


class UnreadableFile(Exception):
    """A file (or one of its rows) cannot become passages; the message says why, in one line, for people."""
