"""The warning of every iteration that stops short of its tolerance."""


class ConvergenceWarning(UserWarning):
    """A result that misses its tolerance: the message gives what was reached, the effort spent, and what to change."""
