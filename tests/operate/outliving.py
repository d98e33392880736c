"""A step that goes on when the command that started it is killed."""

import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    unfinished = Path(sys.argv[1] + ".new")
    unfinished.write_text(str(os.getpid()))
    unfinished.rename(sys.argv[1])
    time.sleep(60)
