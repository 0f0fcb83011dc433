"""Files as a user names them: each is looked at, read and written here, and what cannot be is said in one line."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TextIO, cast

from interp.errors import InputError

# Files of texts: a word with one of these at its end is not itself a text.
_TEXTS = frozenset({".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet"})
_GZIP = b"\x1f\x8b"  # what a packed file begins with
_CHECKPOINT = re.compile(r"(checkpoint|step|epoch|global_step)[-_]?\d+")  # what a training calls its folders
_NAME_BYTES, _PATH_BYTES = 255, 4095  # the most that file systems take


def is_texts(text: str) -> bool:
    """Return whether what could be a text names a file of texts.

    Examples
    --------
    >>> is_texts("prompts.csv"), is_texts("prompts.jsonl.gz"), is_texts("The cat sat")
    (True, True, False)
    """
    return kind_of(PurePath(text)) in _TEXTS


def kind_of(path: PurePath) -> str:
    """Return the suffix that says what a file holds, which stands before a ``.gz``.

    Examples
    --------
    >>> kind_of(PurePath("a/B.CSV")), kind_of(PurePath("b.csv.gz")), kind_of(PurePath("c"))
    ('.csv', '.csv', '')
    """
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def path_of(given: Any) -> Path:
    """Return a path that a user gives, with ``~`` filled in.

    Raises
    ------
    InputError
        It is no text, blank, too long or cannot be spelled in bytes, or names a user that there is not.

    Examples
    --------
    >>> path_of("a/b.json").name
    'b.json'
    """
    text: Any = os.fspath(given) if isinstance(given, str | os.PathLike) else given
    if not isinstance(text, str):
        raise InputError(f"a path is a text, such as results/a.json, not {type(text).__name__}")
    if not text.strip():
        raise InputError("the path is blank; type the name of a file or a folder")
    if "\0" in text:
        raise InputError("a file name cannot hold a NUL character")
    try:
        path = Path(text).expanduser()
        sizes = [len(os.fsencode(part)) for part in path.parts]
    except UnicodeEncodeError:
        raise InputError(f"{text!r} holds half of a surrogate pair, which no file's name can; type it anew") from None
    except RuntimeError:
        raise InputError(f"{text!r} names a user who has no home folder here; type the full path") from None
    if max(sizes, default=0) > _NAME_BYTES or sum(sizes) + len(sizes) > _PATH_BYTES:
        raise InputError(
            f"{text!r} is too long: a file's name has at most {_NAME_BYTES} bytes, a path {_PATH_BYTES}; shorten it"
        )
    return path


def reason_of(error: OSError) -> str:
    """Return why the system refused, without the path: it is named beside it."""
    return error.strerror or str(error).partition("\n")[0] or type(error).__name__


def there(path: Path) -> str:
    """Return what is at `path`: ``"file"``, ``"folder"``, ``"other"`` (a device, a pipe), or nothing.

    Raises
    ------
    InputError
        The system does not let it be looked at.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be looked at ({reason_of(error)}); type another path") from None
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def checkpoints(folder: Path) -> list[Path]:
    """Return the folders of a training's checkpoints in `folder`, by number: ``checkpoint-500``, ``step1000`` …"""
    try:
        entries = [path for path in folder.iterdir() if _CHECKPOINT.fullmatch(path.name) and there(path) == "folder"]
    except OSError:  # there is no such folder, or it cannot be read
        return []
    return sorted(entries, key=numbered)


def numbered(path: Path) -> list[Any]:
    """Return what paths are sorted by, so that numbers in their names count as numbers.

    Examples
    --------
    >>> [path.name for path in sorted([Path("step10"), Path("step9")], key=numbered)]
    ['step9', 'step10']
    """
    parts: list[str] = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def file_at(given: Any, instead: str) -> Path:
    """Return the path of a file that is there.

    Parameters
    ----------
    instead
        What to give, where it is not.

    Raises
    ------
    InputError
        It is not, or a folder or a device is.
    """
    path = path_of(given)
    found = there(path)
    if found != "file":
        name = repr(str(given))
        what = {"": f"there is no file {name}", "folder": f"{name} is a folder", "other": f"{name} is a device"}[found]
        raise InputError(f"{what}; {instead}")
    return path


def read(given: Any, instead: str) -> bytes:
    """Return a file's content, of the size that the file says it has.

    Raises
    ------
    InputError
        As `file_at`; or it cannot be read, or has no size, as what /proc shows.
    """
    path = file_at(given, instead)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size)
            endless = not size and file.read(1)
    except (OSError, MemoryError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "it does not fit into memory"
        raise InputError(f"{str(given)!r} cannot be read ({reason}); {instead}") from None
    if endless:
        raise InputError(f"{str(given)!r} does not say how large it is; copy what it holds into a file")
    return content


def read_text(given: Any, instead: str) -> str:
    """Return the text of a file in UTF-8, less the mark of its byte order.

    Raises
    ------
    InputError
        As `read`; or it is not UTF-8.
    """
    try:
        return read(given, instead).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{str(given)!r} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def parsed(content: str | bytes, what: str, instead: str) -> Any:
    """Return what JSON holds.

    Raises
    ------
    InputError
        It is none, or nested too deeply.

    Examples
    --------
    >>> parsed('{"a": [1]}', "it", "")
    {'a': [1]}
    """
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} in line {error.lineno}"
    except RecursionError:
        reason = "its brackets are nested too deeply"
    except ValueError as error:  # bytes that are no text, or a number of thousands of digits
        reason = str(error).partition("\n")[0].partition(";")[0]
    raise InputError(f"{what} is not JSON: {reason}; {instead}")


def read_json(given: Any, instead: str) -> Any:
    """Return what a JSON file holds; see `read` and `parsed` for what is refused."""
    return parsed(read(given, instead), repr(str(given)), instead)


@contextmanager
def opened(given: Any, instead: str, newline: str = "") -> Generator[TextIO]:
    """Open a file of text in UTF-8 to be read a line at a time; one that gzip has packed is unpacked on the way.

    Parameters
    ----------
    instead
        What to give, where it cannot be read.
    newline
        As Python's ``open`` takes it: lines keep their ends.

    Raises
    ------
    InputError
        As `read_text`, as far as it is read.
    """
    path = file_at(given, instead)
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size and file.read(1):
                raise InputError(f"{str(given)!r} does not say how large it is; copy what it holds into a file")
            packed = file.read(2) == _GZIP
            file.seek(0)
            content = cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file
            with io.TextIOWrapper(content, "utf-8-sig", newline=newline) as text:
                yield text
    except UnicodeDecodeError:
        raise InputError(f"{str(given)!r} is not UTF-8 text (byte {_spoilt(path)}); save it as UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{str(given)!r} was not packed to its end by gzip; pack it again") from None
    except (OSError, MemoryError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "it does not fit into memory"
        raise InputError(f"{str(given)!r} cannot be read ({reason}); {instead}") from None


def _spoilt(path: Path) -> int:
    """Return the first byte of a file, as it is unpacked, that is no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    before = 0
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        content = gzip.GzipFile(fileobj=file) if packed else file
        while True:
            pending = len(decoder.getstate()[0])
            part = content.read(1 << 20)
            try:
                decoder.decode(part, final=not part)
            except UnicodeDecodeError as error:
                return before - pending + error.start
            before += len(part)
            if not part:
                return before


def writable(given: Any) -> Path:
    """Return a path that is safe to write to.

    Raises
    ------
    InputError
        What `path_of` refuses, a relative path with ``..``, a symbolic link, a folder, a device, or a folder that does
        not exist.
    """
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    if isinstance(text, str) and not text:
        raise InputError("the path is blank; type the name of a file")
    target = path_of(given)
    try:
        str(target).encode()
    except UnicodeEncodeError:
        raise InputError(f"{str(target)!r} holds half of a surrogate pair; type another name") from None
    if ".." in target.parts:
        raise InputError(f"{text!r} climbs out of its folder; type the full path instead")
    if target.is_symlink():
        raise InputError(f"{text!r} is a symbolic link; type the path of the file itself")
    found = there(target)
    if found == "folder":
        raise InputError(f"{text!r} is a folder; add a file name")
    if found == "other":
        raise InputError(f"{text!r} is a device, not a file; type the name of a file")
    if there(target.parent) != "folder":
        raise InputError(f"there is no folder {str(target.parent)!r}; make it first")
    return target


def write(target: Path, content: bytes | Callable[[Path], object]) -> Path:
    """Replace `target` with `content`, or with what it writes to a path, in one step; return `target`.

    Raises
    ------
    InputError
        The system refuses: the disk is full, or not to be written to. The old file is as it was.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
        if not isinstance(content, bytes):
            content(temporary)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(
            f"{str(target)!r} cannot be written ({reason_of(error)}); free some space, or name another place"
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target
