"""The one exception root: what a user can cure, said in one line."""


class VslamError(Exception):
    """A mistake in input or settings. The message is one line: file or key, value, cure.

    The command line prints it and exits with code 2; library callers may catch it.
    """


class FrameError(VslamError):
    """One frame of a sequence cannot be read; the run goes on without it and counts it."""
