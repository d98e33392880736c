"""How a command ends when what it was asked must not be done."""


class NotDoneError(Exception):
    """It was not done, for the reason in the text: exit code 1. What was live before is live."""
