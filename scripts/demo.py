"""Start the server, ask it about two photos, and say what to do next: what `make demo` runs. Options are those of scripts.serve."""

import argparse
import json
import os
import signal
import subprocess
import sys
import urllib.request
import webbrowser
from pathlib import Path

from handler.model_file import Archive
from scripts.serve import parse
from serving.machine import open_here, reachable
from serving.store import find_archives
from web.build import EXAMPLES, examples


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
    """Ask about two photos, print questions and answers, and open the page where there is a desktop."""
    address = f"http://{reachable(args.host)}:{args.port}/predictions/{archive.name}"
    for photo in photos(archive.model.metadata["labels"]):
        print(f"\n$ curl -T {os.path.relpath(photo)} {address}")
        print(json.dumps(ask(address, photo.read_bytes()), ensure_ascii=False))
    opened = has_desktop() and webbrowser.open(address)
    print(f"\nYour own photo:  curl -T your.jpg {address}")
    print(f"A whole folder:  .venv/bin/petclf predict your-folder/ --server http://{reachable(args.host)}:{args.port}")
    print(f"In a browser:    {address}{' (opened)' if opened else ''}")
    print("Ctrl-C ends the server.", flush=True)


def photos(labels: list[str]) -> list[Path]:
    """Return the first example photo of each label, two at most; a model with other labels has none."""
    shown = {one["shows"][0]: EXAMPLES / one["file"] for one in reversed(examples(labels)) if len(one["shows"]) == 1}
    return [shown[label] for label in labels if label in shown][:2]


def ask(address: str, photo: bytes) -> dict[str, object]:
    request = urllib.request.Request(address, photo, {"Content-Type": "image/jpeg"})
    with open_here(request, 30) as response:
        answer: dict[str, object] = json.load(response)
    return answer


def has_desktop() -> bool:
    """Tell whether someone sits before a screen here; webbrowser would start a text browser in the terminal otherwise."""
    if not sys.stdout.isatty() or "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    main()
