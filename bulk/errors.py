"""How a run ends when what it was asked cannot be done."""


class BulkError(Exception):
    """Something the user can put right; the text says what, where, and what to do."""


class FailedError(Exception):
    """The run was right and stopped all the same; the same command goes on."""
