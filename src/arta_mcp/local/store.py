"""What the embedded service keeps in its folder: a secret, accounts, records, pictures.

Every file is written whole under another name and then renamed, so any process on the same folder
sees all of a file or none of it, and a process that is killed leaves nothing half-written.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import time
import uuid
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import jwt
from filelock import FileLock, Timeout

from arta_mcp.arta.protocol import Submit
from arta_mcp.arta.refusals import Refusal
from arta_mcp.files import make_private_folder, write_atomically, write_new
from arta_mcp.untrusted_json import is_object, json_or_none, list_or_empty, text

ID = re.compile(r"[0-9a-f]{32}")
_PICTURE = re.compile(r"[0-9a-f]{32}-[0-7]\.png")

SECRET_SIZE = 32
"""bytes of the key that signs tokens, as many as its hash has (RFC 7518, 3.2)"""

MAX_ACCOUNTS = 1000
"""in one folder: an installation has one, and tests have some"""

KEEP_BYTES = 2 * 1024**3
"""of pictures, where no setting says otherwise"""

KEEP_RECORDS = 1000
"""jobs in one folder"""

MAX_REMOVED = 2 * 1024 * 1024
"""bytes of `removed` before it becomes `removed.1`, in which 60,000 ids are"""

ABANDONED_AGE = 86400.0
"""seconds after which a job that was never drawn may be removed"""

STALE_DRAFT_AGE = 3600.0
"""seconds after which an unfinished file of a killed process is removed"""


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """An anonymous account; refresh tokens with a serial below `serial` are expired."""

    user_id: str
    serial: int = 0
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Claims:
    """What one of our tokens says, once its signature holds.

    `kind` is `id` or `refresh`; a refresh token does not heed `expires_at`, it ends by its serial.
    """

    kind: str
    user_id: str
    serial: int
    expires_at: float


@dataclass(frozen=True, slots=True)
class Record:
    """A job as it was submitted; `queue` and `draw` are the seconds that were in force then."""

    record_id: str
    user_id: str
    created_at: float
    queue: float
    draw: float
    seed: int
    submission: Submit
    engine: str = "sketch"
    """what draws it; sketches alone are removed to make room"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is drawn, as the one process that draws it writes it down.

    `begun` are the pictures that the engine was asked for; `step` of `steps` counts over all of
    them. A `failure` is the end: no further picture is begun, and those that are there stay.
    """

    begun: tuple[int, ...] = ()
    step: int | None = None
    steps: int | None = None
    model: str | None = None
    not_honoured: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    failure: str = ""
    failure_code: str = ""
    failure_hint: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job in the queue: `turn` orders it, `asked_at` is when a call last asked for it.

    `is_cancelled`: a person wants no further picture of it.
    """

    record_id: str
    turn: int
    asked_at: float
    is_cancelled: bool = False


class Store:
    """One folder, mode 0700, that any number of processes share.

    `keep` records of sketches and `keep_bytes` of their pictures stay in it, and some 5 % more.

    secret                    the key of every token, 32 bytes
    accounts/<user id>.json   one `ServiceAccount` each
    records/<record id>.json  one `Record` each
    images/<record id>-<i>.png
    progress/<record id>.json one `Progress` each, once a picture is begun
    queue/<engine>/<turn>-<record id>   to be drawn; its time is when a call last asked for it, and
                              it is empty, unless a person has cancelled the job
    drawing-<engine>.lock     held by the process that draws
    removed                   the ids of records that made room, one a line
    """

    def __init__(self, folder: Path, *, keep: int, keep_bytes: int = KEEP_BYTES) -> None:
        self.folder = folder
        self._keep, self._keep_bytes = keep, keep_bytes
        self._record_turns, self._account_turns = _Turns(keep), _Turns(MAX_ACCOUNTS)
        self._bytes_since_prune = 0
        self._markers: dict[str, Path] = {}
        """by record id, where it is in the queue: to be found without reading all of that"""
        for name in ("", "accounts", "records", "images", "progress", "queue"):
            make_private_folder(folder / name)
        for draft in folder.rglob(".*.draft"):
            # Younger ones belong to processes that are writing them now.
            if time.time() - _modified_at(draft) > STALE_DRAFT_AGE:
                with suppress(OSError):  # a folder that stood where the secret belongs
                    draft.unlink(missing_ok=True)
        self._secret = self._load_secret()

    # Accounts and tokens

    def open_account(self) -> ServiceAccount:
        """A new anonymous account, on disk; the ones that were longest of no use are forgotten."""
        if self._account_turns.is_due():
            paths = sorted(self.folder.glob("accounts/*.json"), key=_modified_at)
            for path in paths[: max(0, len(paths) - MAX_ACCOUNTS + 1)]:
                path.unlink(missing_ok=True)
        return self.put_account(ServiceAccount(uuid.uuid4().hex))

    def put_account(self, account: ServiceAccount) -> ServiceAccount:
        """Write the account in place of what its file said."""
        path = self.folder / f"accounts/{account.user_id}.json"
        _write(path, json.dumps(asdict(account)).encode())
        return account

    def account(self, user_id: str) -> ServiceAccount | None:
        """None for an unknown or damaged one, and for a name that is no user id."""
        found = _read_fields(self.folder / "accounts", user_id)
        serial, disabled = found.get("serial"), found.get("disabled") is True
        return ServiceAccount(user_id, serial, disabled) if isinstance(serial, int) else None

    def touch_account(self, account: ServiceAccount) -> ServiceAccount:
        """Notes that the account is in use, so that others are forgotten before it."""
        with suppress(FileNotFoundError):
            os.utime(self.folder / f"accounts/{account.user_id}.json")
        return account

    def expire_refresh_tokens(self, account: ServiceAccount) -> ServiceAccount:
        """The account with every refresh token so far expired."""
        return self.put_account(replace(account, serial=account.serial + 1))

    def sign(self, claims: Claims) -> str:
        """The claims as a JWT (HS256), different each time."""
        fields = {
            "typ": claims.kind,
            "sub": claims.user_id,
            "ser": claims.serial,
            "exp": claims.expires_at,
            "jti": secrets.token_hex(8),
        }
        return jwt.encode(fields, self._secret, algorithm="HS256")

    def read(self, token: str) -> Claims | None:
        """The claims of a token that was signed in this folder; None for any other text."""
        # Not the library's clock: the service has its own, and a refresh token heeds none.
        try:
            fields = jwt.decode(
                token, self._secret, algorithms=["HS256"], options={"verify_exp": False}
            )
        except (jwt.InvalidTokenError, UnicodeEncodeError):  # half a surrogate pair has no bytes
            return None
        # Whoever could sign other fields than `sign` does had the secret, and the folder.
        return Claims(fields["typ"], fields["sub"], fields["ser"], fields["exp"])

    # Records and pictures

    def put_record(self, record: Record) -> None:
        """Write the record, last of all, and before it remove the oldest where there are many."""
        is_due = self._record_turns.is_due()
        if is_due or self._bytes_since_prune > self._keep_bytes // 20:
            self._bytes_since_prune = 0
            self._make_room()
        fields = asdict(record)
        del fields["submission"]
        fields["order"] = record.submission.form()  # its name in files of every version so far
        _write(self.folder / f"records/{record.record_id}.json", json.dumps(fields).encode())

    def record(self, record_id: str) -> Record | None:
        """None for an unknown or damaged one, and for a name that is no record id."""
        found = _read_fields(self.folder / "records", record_id)
        form, seed = found.get("order"), found.get("seed")
        form = {name: str(value) for name, value in form.items()} if is_object(form) else {}
        submission = Submit.parse(form)
        if isinstance(submission, Refusal) or not isinstance(seed, int):
            return None
        times = (found.get(name) for name in ("created_at", "queue", "draw"))
        created_at, queue, draw = (t if isinstance(t, int | float) else 0.0 for t in times)
        user_id, engine = text(found, "user_id"), text(found, "engine") or "sketch"
        return Record(record_id, user_id, created_at, queue, draw, seed, submission, engine)

    def records(self) -> tuple[str, ...]:
        """The id of each record in the folder, by whichever process."""
        return tuple(sorted(path.stem for path in self.folder.glob("records/*.json")))

    def progress(self, record_id: str) -> Progress:
        """How far the job is drawn; nothing yet for an unknown or damaged one."""
        found = _read_fields(self.folder / "progress", record_id)
        if not found:
            return Progress()

        def count(name: str) -> int | None:
            value = found.get(name)
            return value if type(value) is int else None

        def words(name: str) -> tuple[str, ...]:
            return tuple(one for one in list_or_empty(found.get(name)) if isinstance(one, str))

        guidance = found.get("guidance_scale")
        begun = [one for one in list_or_empty(found.get("begun")) if isinstance(one, int)]
        return Progress(
            begun=tuple(begun),
            step=count("step"),
            steps=count("steps"),
            model=text(found, "model") or None,
            not_honoured=words("not_honoured"),
            notes=words("notes"),
            num_inference_steps=count("num_inference_steps"),
            guidance_scale=guidance if isinstance(guidance, int | float) else None,
            failure=text(found, "failure"),
            failure_code=text(found, "failure_code"),
            failure_hint=text(found, "failure_hint"),
        )

    def put_progress(self, record_id: str, progress: Progress) -> None:
        """Write how far the job is drawn."""
        fields = {name: value for name, value in asdict(progress).items() if value}
        _write(self.folder / f"progress/{record_id}.json", json.dumps(fields).encode())

    # The queue

    def ask_for(self, record: Record) -> bool:
        """Puts a job into the queue, or notes that it is asked for again; whether it is new."""
        folder = self.folder / "queue" / record.engine
        known = self._markers.get(record.record_id)
        known = known or next(folder.glob(f"*-{record.record_id}"), None)
        marker = known or folder / f"{time.time_ns():020}-{record.record_id}"
        if len(self._markers) > self._keep:
            self._markers.clear()
        self._markers[record.record_id] = marker
        try:
            marker.touch(0o600)
        except FileNotFoundError:
            make_private_folder(folder)
            marker.touch(0o600)
        return known is None

    def queue(self, engine: str) -> list[Waiting]:
        """The jobs that an engine is to draw, in the order of their submits."""
        found: list[Waiting] = []
        with suppress(FileNotFoundError), os.scandir(self.folder / "queue" / engine) as entries:
            for entry in entries:
                turn, _, record_id = entry.name.partition("-")
                with suppress(FileNotFoundError):
                    if turn.isdigit() and ID.fullmatch(record_id):
                        known = entry.stat()
                        is_cancelled = known.st_size > 0
                        found.append(Waiting(record_id, int(turn), known.st_mtime, is_cancelled))
        return sorted(found, key=lambda waiting: waiting.turn)

    def cancel(self, record: Record) -> None:
        """Notes that no further picture of a job is wanted, for whichever process draws it."""
        self.ask_for(record)
        for path in (self.folder / "queue" / record.engine).glob(f"*-{record.record_id}"):
            # Not made anew: it has just ended where another process took it away.
            with suppress(FileNotFoundError), path.open("r+b") as file:
                file.write(b"cancelled\n")

    def drawing_lock(self, engine: str) -> FileLock:
        """The lock of the one process that draws with an engine."""
        path = self.folder / f"drawing-{engine}.lock"
        return FileLock(path, mode=0o600, thread_local=False)

    @contextmanager
    def keeping_others_from(self, engine: str) -> Generator[bool]:
        """Whether no other process draws with an engine now; then none begins while this lasts."""
        lock = self.drawing_lock(engine)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError, NotImplementedError):  # the last two without locks: who knows
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def missing_pictures(self, record: Record) -> list[int]:
        """The pictures of the job that are not on disk yet, by their index."""
        count = record.submission.n
        return [index for index in range(count) if not self.has_picture(record.record_id, index)]

    def is_over(self, record: Record) -> bool:
        """Whether no further picture of the job will be drawn."""
        return bool(self.progress(record.record_id).failure) or not self.missing_pictures(record)

    def leave_queue(self, engine: str, record_id: str) -> None:
        """Takes a job out of the queue: it is drawn, or never will be."""
        for path in (self.folder / "queue" / engine).glob(f"*-{record_id}"):
            path.unlink(missing_ok=True)

    def put_picture(self, record_id: str, index: int, picture: bytes) -> None:
        """Write a PNG; the same again changes nothing."""
        self._bytes_since_prune += len(picture)
        _write(self.folder / "images" / picture_name(record_id, index), picture)

    def has_picture(self, record_id: str, index: int) -> bool:
        """Whether it is drawn and on disk."""
        return (self.folder / "images" / picture_name(record_id, index)).is_file()

    def picture(self, name: str) -> bytes | None:
        """The PNG of that name; None for an unknown one, and for a name that is no picture's."""
        # The name comes from a URL: nothing but this form may reach the disk.
        if not _PICTURE.fullmatch(name):
            return None
        with suppress(FileNotFoundError):
            return (self.folder / "images" / name).read_bytes()
        return None

    def was_removed(self, record_id: str) -> bool:
        """Whether there was a record of this id that made room for others."""
        for name in ("removed", "removed.1"):
            with suppress(FileNotFoundError):
                if record_id.encode() in (self.folder / name).read_bytes().split():
                    return True
        return False

    def remove(self, record_ids: Collection[str], *, pictures: Literal["sketches", "all"]) -> int:
        """Removes these jobs and their pictures, which it counts; `sketches`: those alone."""
        sizes, wanted, count = measure_pictures(self.folder), set(record_ids), 0
        for path in self.folder.glob("records/*.json"):
            if path.stem not in wanted:
                continue
            record, files = self.record(path.stem), sizes.get(path.stem, {})
            if pictures == "all" or record is None or record.engine == "sketch":
                self._remove(path, record, files)
                count += len(files)
        return count

    def _remove(self, path: Path, record: Record | None, pictures: Iterable[Path]) -> None:
        append(self.folder / "removed", path.stem, limit=MAX_REMOVED)
        for file in (*pictures, self.folder / f"progress/{path.stem}.json"):
            file.unlink(missing_ok=True)
        if record is not None:
            self.leave_queue(record.engine, path.stem)
        path.unlink(missing_ok=True)  # last: it alone says which pictures there are

    def _make_room(self) -> None:
        """Removes the oldest finished sketches beyond either limit; nothing of another engine."""
        sizes = measure_pictures(self.folder)
        paths = sorted(self.folder.glob("records/*.json"), key=_modified_at)
        total = sum(sum(size.values()) for size in sizes.values())
        if len(paths) < self._keep and total <= self._keep_bytes:
            return  # without a look into each
        records = {path: self.record(path.stem) for path in paths}
        kept = [path for path in paths if (found := records[path]) and found.engine != "sketch"]
        total -= sum(sum(sizes.get(path.stem, {}).values()) for path in kept)
        left = len(paths) - len(kept)
        for path in (path for path in paths if path not in kept):
            if left < self._keep and total <= self._keep_bytes:
                return
            pictures, record = sizes.get(path.stem, {}), records[path]
            # One that is still to be drawn stays, unless nobody has asked for it for a day.
            is_done = record is None or len(pictures) >= record.submission.n
            if not is_done and time.time() - _modified_at(path) < ABANDONED_AGE:
                continue
            self._remove(path, record, pictures)
            total, left = total - sum(pictures.values()), left - 1

    def _load_secret(self) -> bytes:
        path = self.folder / "secret"
        while True:
            if (secret := _read_secret(path)) is not None:
                return secret
            # Whatever else stands there, a draft's name takes it away, and the sweep removes it.
            aside = path.with_name(f".secret.{secrets.token_hex(6)}.draft")
            with suppress(FileNotFoundError):
                path.rename(aside)
                if _read_secret(aside) is not None:  # another process was faster: it is good now
                    aside.rename(path)
                    continue
            draft = path.with_name(f".secret.{secrets.token_hex(6)}.draft")
            write_new(draft, secrets.token_bytes(SECRET_SIZE))
            # Of processes that start together the first wins: a link, unlike a rename, never
            # replaces a file that is there.
            with suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()


class _Turns:
    """When to prune: listing the folder at each file would cost more the more files there are."""

    def __init__(self, keep: int) -> None:
        self._every, self._left = max(1, keep // 20), 0

    def is_due(self) -> bool:
        """At the first time, and then at every twentieth of `keep`."""
        self._left -= 1
        if self._left >= 0:
            return False
        self._left = self._every - 1
        return True


def picture_name(record_id: str, index: int) -> str:
    """The name of a picture, on disk and in its address."""
    return f"{record_id}-{index}.png"


def measure_pictures(folder: Path) -> dict[str, dict[Path, int]]:
    """Record id -> its pictures, each with its size in bytes."""
    found: dict[str, dict[Path, int]] = {}
    for path in (folder / "images").glob("*.png"):
        with suppress(FileNotFoundError):
            found.setdefault(path.stem.partition("-")[0], {})[path] = path.stat().st_size
    return found


def measure_sketches(folder: Path) -> dict[str, dict[Path, int]]:
    """As `measure_pictures`, without those of another engine, which stay."""

    def is_sketch(record_id: str) -> bool:
        engine = text(_read_fields(folder / "records", record_id), "engine")
        return engine in ("", "sketch")  # empty: of 0.1.0

    return {name: sizes for name, sizes in measure_pictures(folder).items() if is_sketch(name)}


def picture_path(folder: Path, record_id: str, index: int) -> Path | None:
    """Where the picture lies once it is drawn; None for what is no record id of ours."""
    # The record id may be of another service: nothing but this form may reach the disk.
    name = picture_name(record_id, index)
    return folder / "images" / name if _PICTURE.fullmatch(name) else None


def append(path: Path, line: str, *, limit: int) -> None:
    """Add a line; at `limit` bytes the file becomes the older one, `<name>.1`."""
    with suppress(FileNotFoundError):
        if path.stat().st_size > limit:
            path.replace(path.with_name(path.name + ".1"))
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(opened, "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def _write(path: Path, content: bytes) -> None:
    # Not synced: a power cut may cost a sketch, which the same request draws again.
    write_atomically(path, content, sync=False)


def _read_fields(folder: Path, name: str) -> dict[str, object]:
    """The JSON object of that name; empty for an unknown or damaged one, and for no id of ours."""
    # The name comes from a URL: nothing but an id may reach the disk.
    if ID.fullmatch(name):
        with suppress(FileNotFoundError):
            found = json_or_none((folder / f"{name}.json").read_bytes())
            return found if is_object(found) else {}
    return {}


def _modified_at(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _read_secret(path: Path) -> bytes | None:
    """The key; None for what is no key of our own making: a link, another's file, another size."""
    try:
        found = path.lstat()
        is_ours = stat.S_ISREG(found.st_mode) and found.st_size == SECRET_SIZE
        if hasattr(os, "getuid"):
            is_ours = is_ours and found.st_uid == os.getuid()
        return path.read_bytes() if is_ours else None
    except FileNotFoundError:
        return None
