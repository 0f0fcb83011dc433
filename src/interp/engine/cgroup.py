"""What the container that this process runs in may still take of the machine's memory (Linux control groups)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
# Version → limit, use; both versions have the kernel's pages of files, which it gives back when asked, in memory.stat.
_FILES = {2: ("memory.max", "memory.current"), 1: ("memory.limit_in_bytes", "memory.usage_in_bytes")}


def free_bytes() -> int | None:
    """Return how many bytes the group of this process, and those around it, have left; ``None`` without a limit."""
    left = [found for folder, version in _groups() if (found := _left(folder, version)) is not None]
    return min(left, default=None)


def _groups() -> Iterator[tuple[Path, int]]:
    """Yield the folders of the groups and their version, from the innermost outwards; some may not be visible here."""
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, kinds, name = line.split(":", 2)
        version = 2 if number == "0" and not kinds else 1
        if version == 1 and "memory" not in kinds.split(","):
            continue
        root = _ROOT if version == 2 else _ROOT / "memory"
        path = PurePosixPath(name.lstrip("/"))
        yield from ((root / part, version) for part in (path, *path.parents))


def _left(folder: Path, version: int) -> int | None:
    limit, use = _FILES[version]
    try:
        # "max" where there is none: no number.
        most, used = (int((folder / name).read_text()) for name in (limit, use))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    prefix = "total_" if version == 1 else ""
    cached = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return max(0, most - used + cached)
