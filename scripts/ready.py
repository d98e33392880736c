"""Exit code 0 when the server on this machine is ready: what a container's health check runs."""

import sys
import urllib.request

try:
    with urllib.request.urlopen(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8083/ready", timeout=4):
        pass
except OSError as error:  # urllib.error.HTTPError is one
    sys.exit(f"not ready: {error}")
