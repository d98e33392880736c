#!/usr/bin/env python3
"""Make a key for the gateway: make_key.py FILE NAME. The secret is shown once; FILE keeps only its salted hash.

Without a restart: the gateway reads the file at every request. To take a key away, delete its line.
"""

import argparse
import base64
import hashlib
import os
import re
import secrets
import sys
from pathlib import Path


def line_for(name: str, secret: str, salt: bytes) -> str:
    """Return the line as nginx reads it. The secret has 256 random bits: a fast hash is as good as a slow one, and costs no core."""
    digest = hashlib.sha1(secret.encode() + salt).digest()
    return f"{name}:{{SSHA}}{base64.b64encode(digest + salt).decode()}\n"


def add(path: Path, name: str) -> str:
    """Put a new key into the file, in the place of an old one of that name; returns the secret."""
    secret = secrets.token_urlsafe(32)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if not line.startswith(f"{name}:")]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text("".join([*kept, line_for(name, secret, secrets.token_bytes(8))]), encoding="utf-8")
    temporary.chmod(0o644)  # the gateway's user must read it; there is no secret in it
    temporary.replace(path)
    return secret


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "file", type=Path, help="predictions.htpasswd or management.htpasswd, where the gateway finds its secrets"
    )
    parser.add_argument("name", help="who gets the key: letters, digits, dots, hyphens")
    args = parser.parse_args()
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", args.name):
        sys.exit(f"error: {args.name!r} is no name for a key; use letters, digits, dots, hyphens")
    try:
        secret = add(args.file, args.name)
    except OSError as error:
        sys.exit(f"error: cannot write {args.file}: {error.strerror}")
    print(f"{args.name}:{secret}")
    print(
        f"shown once; use it as: curl -u {args.name}:... , or PETCLF_API_KEY in the environment of scripts/predict.py",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
