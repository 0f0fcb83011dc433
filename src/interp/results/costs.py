"""What a command takes, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a command takes.

    Parameters
    ----------
    forwards
        Forward passes, as `Provenance` counts them.
    flops
        Floating-point operations of matrix products, a multiplication and an addition each one.
    bytes_read
        Bytes of weights: hashed once, and read for every batch that goes through a layer.
    peak_bytes
        The most memory in use at a time, above what was in use at the start; temporary values count.
    seconds
        Wall-clock time.
    """

    forwards: int = 0
    flops: float = 0.0
    bytes_read: int = 0
    peak_bytes: int = 0
    seconds: float = 0.0

    def rows(self) -> list[tuple[str, str]]:
        """Return what is asked first, in words.

        Examples
        --------
        >>> Costs(forwards=3, flops=2.5e9, bytes_read=1000, peak_bytes=10**6, seconds=0.25).rows()[0]
        ('seconds', 'about 0.25 s')
        """
        return [
            ("seconds", f"about {lasting(self.seconds)}"),
            ("forwards", f"{self.forwards:,}"),
            ("operations", scaled(self.flops, "FLOP")),
            ("weights read", scaled(self.bytes_read, "B")),
            ("peak memory", scaled(self.peak_bytes, "B")),
        ]


def scaled(count: float, unit: str) -> str:
    """Return a number with the largest prefix that leaves it above 1.

    Examples
    --------
    >>> scaled(538_060_032, "B"), scaled(2.5e13, "FLOP"), scaled(12, "B")
    ('538 MB', '25.0 TFLOP', '12 B')
    """
    for prefix in ("", "k", "M", "G", "T"):
        if abs(count) < 1000 or prefix == "T":
            break
        count /= 1000
    return f"{count:,.0f} {prefix}{unit}" if count >= 100 or not prefix else f"{count:.1f} {prefix}{unit}"


def lasting(seconds: float) -> str:
    """Return a time in words.

    Examples
    --------
    >>> lasting(0.25), lasting(45), lasting(600), lasting(9000)
    ('0.25 s', '45 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
