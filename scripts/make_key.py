#!/usr/bin/env python3
"""Make a key for the gateway: make_key.py FILE NAME. The secret is shown once; FILE keeps only its salted hash.

The gateway reads the file at every request: a new key works at once, and so does deleting its line to revoke it. But a
predictions.htpasswd that did not exist when the gateway started closes port 8080 at its next start only.
"""

import argparse
import base64
import hashlib
import os
import re
import secrets
import sys
from pathlib import Path


def add(path: Path, name: str) -> str:
    """Add a key to the file, instead of an old one of that name; returns the secret."""
    secret, salt = secrets.token_urlsafe(32), secrets.token_bytes(8)
    digest = hashlib.sha1(secret.encode() + salt).digest()  # fast is enough: nobody can guess 256 random bits
    line = f"{name}:{{SSHA}}{base64.b64encode(digest + salt).decode()}\n"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if not line.startswith(f"{name}:")]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text("".join([*kept, line]), encoding="utf-8")
    temporary.chmod(0o644)  # the gateway's user must read it; there is no secret in it
    temporary.replace(path)
    return secret


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="predictions.htpasswd or management.htpasswd, where the gateway reads it")
    parser.add_argument("name", help="who gets the key: up to 64 letters, digits, dots, hyphens")
    args = parser.parse_args()
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", args.name):
        sys.exit(f"error: {args.name!r} is no name for a key; use letters, digits, dots, hyphens")
    first = args.file.name == "predictions.htpasswd" and not args.file.exists()
    try:
        secret = add(args.file, args.name)
    except OSError as error:
        sys.exit(f"error: cannot write {args.file}: {error.strerror}")
    print(f"{args.name}:{secret}")
    print(f"shown once; use it with curl -u {args.name}:... , or as PETCLF_API_KEY for scripts/predict.py", file=sys.stderr)
    if first:
        told = (
            "it is the first key for predictions: anybody may ask until the gateway starts again (docker compose restart gateway)"
        )
        print(told, file=sys.stderr)


if __name__ == "__main__":
    main()
