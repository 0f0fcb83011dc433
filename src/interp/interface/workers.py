"""The session's commands on where work runs: in this process, or in workers."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

from interp.errors import InputError, closest
from interp.interface.commands import Table
from interp.interface.registry import command
from interp.results.costs import lasting
from interp.spec import PoolName

if TYPE_CHECKING:
    from interp.engine.pool.protocol import Worker
    from interp.interface.session import Session

_KINDS = ("here", "processes", "ray")
_NONE = "no workers: everything runs in this process"
_ADDRESS = re.compile(r"(ray://)?[\w.-]+:\d+")


@command
def connect(
    session: Session,
    where: PoolName,
    count: int | None = None,
    *,
    gpus: float | None = None,
    name: str | None = None,
    trust: bool = False,
) -> Table:
    """Let workers do what takes long, in shards: with any number of them a result has the same bits.

    Parameters
    ----------
    where
        processes, on this machine, of one thread each; a number alone, such as 4, means so many of them; ray for those
        of a Ray that is started on this machine; ray://head:10001 or head:6379 for those of a Ray cluster; here runs
        the same shards in this process.
    count
        How many workers; as many as there are cores when not given.
    gpus
        With Ray: what part of a GPU each worker has, such as 1 or 0.5, for a model that is loaded on cuda.
    name
        With a Ray cluster: workers of this name go on when the notebook ends, with the models that they hold, and are
        found again by it; %interp disconnect --end ends them.
    trust
        Functions of yours, such as a metric, are sent to the workers, too, which run them; results say so.

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
    since are sent to it. No code is sent without --trust. Nothing listens anywhere with processes; a Ray that is
    started here listens on this machine's loopback interface, for who has its token.

    Examples
    --------
    >>> interp.connect("here")
    Table(shards run in this process)
    >>> interp.disconnect()
    Table(no workers: everything runs in this process)
    """
    kind, address = where.strip(), ""
    if _ADDRESS.fullmatch(kind):
        kind, address = "ray", kind
    kind = kind.lower()
    if kind.isdecimal():
        if count is not None:
            raise InputError(f"{where} and {count} both say how many; type %interp connect processes {count}")
        kind, count = "processes", int(kind)
    if kind not in _KINDS:
        known = f"{', '.join(_KINDS)}, ray://host:port or a number"
        raise InputError(f"{where!r} is no kind of workers{closest(kind, _KINDS)}; use {known}")
    if kind == "here" and count is not None:
        raise InputError("here is this process alone; leave the number out, or type %interp connect processes 2")
    if kind != "ray" and (gpus is not None or name is not None):
        raise InputError(f"--{'gpus' if gpus is not None else 'name'} is for workers on Ray: %interp connect ray")
    if name is not None and (not address or not name.strip()):
        raise InputError("a name is for workers that stay in a cluster: %interp connect ray://host:port --name lab")
    if gpus is not None and not 0 < gpus <= 64:
        raise InputError(f"{gpus:g} is no part of the GPUs of a worker; type 1, or 0.5 for two workers on one")
    cores = os.cpu_count() or 1
    if count is not None and not 1 <= count <= (10_000 if address else max(64, 4 * cores)):
        raise InputError(f"{count} is no number of workers for this machine, which has {cores} cores")
    many = count if address else count or cores
    return _connected(session, kind, address, many, gpus or 0.0, (name or "").strip(), trust)


def _connected(
    session: Session, kind: str, address: str, count: int | None, gpus: float, name: str, trust: bool
) -> Table:
    from interp.engine.pool import code
    from interp.engine.pool.here import Here
    from interp.engine.pool.processes import Processes
    from interp.engine.pool.ray import Ray, require

    if kind == "ray":
        require()
    if trust:
        code.require()
    _ended(session)  # not before: what is asked is known to be possible
    if kind == "here":
        session.pool = Here()
        return workers(session)
    if session.on_phase is not None:
        what = f"workers at {address}" if address else f"{count} {'Ray workers' if kind == 'ray' else 'processes'}"
        session.on_phase(f"connect: starting {what}")
    pool: Ray | Processes
    if kind == "ray":
        pool = Ray(address, count, gpus=gpus, name=name, trust=trust)
    else:
        pool = Processes(count or 1, trust=trust)
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
    known = session.pool.workers()
    lost: dict[str, list[str]] = {}
    for worker in known:
        if not worker.there:
            lost.setdefault(worker.state, []).append(worker.name)
    count = sum(map(len, lost.values()))
    return Table(
        title=f"shards run in {session.pool.name}"
        + (f", {count} of which {'takes' if count == 1 else 'take'} none any more" if count else ""),
        notes=tuple(f"{names[0] if len(names) == 1 else f'{len(names)} workers'} {why}" for why, names in lost.items()),
        columns=("worker", "state", "process", "device", "shards", "holds", "arrays", "last heard"),
        rows=tuple(_row(worker) for worker in known),
    )


@command
def disconnect(session: Session, *, end: bool = False) -> Table:
    """End the workers, or let go of those that have a name: everything runs in this process again, as a whole.

    Parameters
    ----------
    end
        End workers that have a name, too.

    Examples
    --------
    >>> interp.disconnect()
    Table(no workers: everything runs in this process)
    """
    if session.pool is not None and end:
        session.pool.lasting = False
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
        worker.state if worker.there else worker.state.removeprefix("is ").partition(":")[0].partition(" (")[0],
        str(worker.process),
        worker.device or "–",
        f"{worker.shards} ({worker.overtaken} overtaken)" if worker.overtaken else str(worker.shards),
        held or ("nothing yet" if worker.there else "–"),
        readable(worker.nbytes),
        f"{lasting(max(0, round(time.monotonic() - worker.seen)))} ago" if worker.seen else "–",
    )


__all__ = ["connect", "disconnect", "workers"]
