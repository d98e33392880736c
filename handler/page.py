"""The page to try the model, as a reply with a policy that lets nothing but its own script and style run."""

import base64
import hashlib
import re
from pathlib import Path

from handler.batch import Reply


def load_page(path: Path, model: str) -> Reply | None:
    """Return the page for this model; nothing where the archive has none."""
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8").replace(
        'name="petclf-model" content="petclf"', f'name="petclf-model" content="{model}"'
    )
    headers = {"content-security-policy": policy(text), "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
    return Reply(text.encode(), "text/html; charset=utf-8", headers=headers)


def policy(text: str) -> str:
    """Return the Content-Security-Policy that allows exactly the page's own script and style."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {hashes(text, 'script')}",
            f"style-src {hashes(text, 'style')}",
            "img-src 'self' blob: data:",
            "media-src blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def hashes(text: str, tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in found]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
