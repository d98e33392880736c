"""Start the server, ask it about one photo, and say what to do next: what `make demo` runs. Options are those of scripts.serve."""

import argparse
import json
import signal
import subprocess
import sys
import urllib.request

from handler.model_file import Archive
from scripts.serve import parse
from serving.machine import reachable
from serving.store import find_archives


def main() -> None:
    args = parse(sys.argv[1:], __doc__)
    print("starting TorchServe ...", flush=True)
    server = subprocess.Popen([sys.executable, "-m", "scripts.serve", *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the server by itself, which ends in its own time
    signal.signal(signal.SIGTERM, lambda number, _: server.send_signal(number))
    assert server.stdout is not None
    if ready := next((line for line in server.stdout if '"ready in ' in line), None):
        print(json.loads(ready)["message"])
        show(args, find_archives(args.model_store)[0])
        for line in server.stdout:
            print(line, end="", flush=True)
    sys.exit(server.wait())


def show(args: argparse.Namespace, archive: Archive) -> None:
    """Ask about the photo that lies in the archive, and print question and answer."""
    address = f"http://{reachable(args.host)}:{args.port}/predictions/{archive.name}"
    request = urllib.request.Request(address, archive.model.photo, {"Content-Type": "image/png"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # http_proxy is for other machines
    with direct.open(request, timeout=30) as response:
        answer = json.load(response)
    print(f"\n$ curl -T photo.png {address}")
    print(json.dumps(answer, indent=2, ensure_ascii=False))
    print("\nA program has drawn that photo, so a good model is unsure about it.")
    print(f"Try your own: open {address} in a browser, or: curl -T your.jpg {address}\nCtrl-C ends the server.", flush=True)


if __name__ == "__main__":
    main()
