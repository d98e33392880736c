"""Start the server, ask it about one photo, and say what to do next: what `make demo` runs."""

import json
import signal
import subprocess
import sys
import threading
import urllib.request
from types import FrameType
from typing import IO

from handler.model_file import Archive
from scripts.serve import parse
from serving.machine import reachable
from serving.say import ServeError
from serving.store import find_archives


def main() -> None:
    args = parse(sys.argv[1:])
    try:
        newest = find_archives(args.model_store)[0]
    except ServeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print("starting TorchServe ...", flush=True)
    server = subprocess.Popen([sys.executable, "-m", "scripts.serve", *sys.argv[1:]], stdout=subprocess.PIPE, text=True)

    def stop(number: int, _frame: FrameType | None) -> None:
        server.send_signal(number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the server by itself, which ends in its own time
    signal.signal(signal.SIGTERM, stop)
    assert server.stdout is not None
    for line in server.stdout:
        if '"ready in ' in line:
            print(json.loads(line)["message"])
            show(f"http://{reachable(args.host)}:{args.port}/predictions/{newest.name}", newest)
            threading.Thread(target=copy, args=(server.stdout,), daemon=True).start()
            break
    sys.exit(server.wait())


def show(address: str, archive: Archive) -> None:
    """Ask about the photo that lies in the archive, and print question and answer."""
    request = urllib.request.Request(address, archive.model.photo, {"Content-Type": "image/png"})
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    print(f"\n$ curl -T photo.png {address}")
    print(json.dumps(answer, indent=2, ensure_ascii=False))
    print(
        f"\nThat photo was drawn by a program, so a petclf that knows itself is unsure of it. Try your own: {address} in a browser,"
    )
    print(f"or: curl -T your.jpg {address}\nCtrl-C ends the server.", flush=True)


def copy(lines: IO[str]) -> None:
    for line in lines:
        print(line, end="", flush=True)


if __name__ == "__main__":
    main()
