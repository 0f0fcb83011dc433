"""The session's commands on where work runs: in this process, or in workers."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from interp.errors import InputError, closest
from interp.interface.commands import Table
from interp.interface.registry import command
from interp.spec import PoolName

if TYPE_CHECKING:
    from interp.engine.pool.protocol import Worker
    from interp.interface.session import Session

_KINDS = ("here", "processes")
_NONE = "no workers: everything runs in this process"


@command
def connect(session: Session, where: PoolName, count: int | None = None) -> Table:
    """Let workers do the sweeps of patch and path, in shards: with any number of them a result has the same bits.

    Parameters
    ----------
    where
        processes, on this machine, of one thread each; a number alone, such as 4, means so many of them; here runs the
        same shards in this process.
    count
        How many processes; as many as this machine has cores when not given.

    Returns
    -------
    Table
        The workers, as %interp workers lists them.

    Raises
    ------
    InputError
        No such kind of workers, a number that is none of theirs, or one that cannot be started.

    Notes
    -----
    Each worker loads the model from where it came from, and must find the same fingerprint; weights that you changed
    since are sent to it. Nothing listens anywhere, and no code is sent.

    Examples
    --------
    >>> interp.connect("here")
    Table(shards run in this process)
    >>> interp.disconnect()
    Table(no workers: everything runs in this process)
    """
    kind = where.strip().lower()
    if kind.isdecimal():
        if count is not None:
            raise InputError(f"{where} and {count} both say how many; type %interp connect processes {count}")
        kind, count = "processes", int(kind)
    if kind not in _KINDS:
        raise InputError(f"{where!r} is no kind of workers{closest(kind, _KINDS)}; use {', '.join(_KINDS)} or a number")
    if kind == "here" and count is not None:
        raise InputError("here is this process alone; leave the number out, or type %interp connect processes 2")
    cores = os.cpu_count() or 1
    count = cores if count is None else count
    if not 1 <= count <= max(64, 4 * cores):
        raise InputError(f"{count} is no number of workers for this machine, which has {cores} cores")
    # Before the old ones end: what is asked is known to be possible.
    from interp.engine.pool.here import Here
    from interp.engine.pool.processes import Processes

    _ended(session)
    if kind == "here":
        session.pool = Here()
        return workers(session)
    if session.on_phase is not None:
        session.on_phase(f"connect: starting {count} processes")
    pool = Processes(count)
    try:
        pool.await_ready()
    except BaseException:
        pool.close()
        raise
    session.pool = pool
    return workers(session)


@command
def workers(session: Session) -> Table:
    """Who does the work: each worker's device, the shards that it has done, and the models that it holds.

    Examples
    --------
    >>> interp.workers()
    Table(no workers: everything runs in this process)
    """
    if session.pool is None:
        return Table(title=_NONE, columns=("worker", "state"), rows=())
    return Table(
        title=f"shards run in {session.pool.name}",
        columns=("worker", "state", "process", "device", "shards", "holds", "arrays", "last heard"),
        rows=tuple(_row(worker) for worker in session.pool.workers()),
    )


@command
def disconnect(session: Session) -> Table:
    """End the workers: everything runs in this process again, as a whole.

    Examples
    --------
    >>> interp.disconnect()
    Table(no workers: everything runs in this process)
    """
    _ended(session)
    return Table(title=_NONE, columns=(), rows=())


def _ended(session: Session) -> None:
    pool, session.pool = session.pool, None
    if pool is not None:
        pool.close()


def _row(worker: Worker) -> tuple[str, ...]:
    from interp.engine.memory import readable

    held = ", ".join(f"{name} {fingerprint[:8]} ✓" for name, fingerprint in worker.held.items())
    return (
        worker.name,
        worker.state,
        str(worker.process),
        worker.device or "–",
        str(worker.shards),
        held or "nothing yet",
        readable(worker.nbytes),
        f"{max(0.0, time.monotonic() - worker.seen):.0f} s ago" if worker.seen else "–",
    )


__all__ = ["connect", "disconnect", "workers"]
