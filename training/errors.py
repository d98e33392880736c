"""The user's mistakes: one clear sentence on stderr and exit code 2, never a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right; the message says what, where and how."""


def run_cli(main: Callable[[], None]) -> None:
    """Run a command's main; the entry point of every `python -m training.*`."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
