"""What the embedded service keeps in its folder: a secret, accounts, records, pictures.

Every file is written whole under another name and then renamed, so any process on the same folder
sees all of a file or none of it, and a process that is killed leaves nothing half-written.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from arta_mcp.arta.protocol import Submit
from arta_mcp.arta.refusals import Refusal
from arta_mcp.untrusted_json import is_object, json_or_none, text

ID = re.compile(r"[0-9a-f]{32}")
_PICTURE = re.compile(r"[0-9a-f]{32}-[0-7]\.png")

_STALE_DRAFT = 3600.0
"""seconds after which an unfinished file of a killed process is removed"""


@dataclass(frozen=True, slots=True)
class Account:
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
    """A job as it was ordered; `queue` and `draw` are the seconds that were in force then."""

    record_id: str
    user_id: str
    created_at: float
    queue: float
    draw: float
    seed: int
    order: Submit


class Store:
    """One folder, mode 0700, that any number of processes share."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder = folder
        self._keep, self._unlisted = keep, 0
        for name in ("", "accounts", "records", "images"):
            _make_private(folder / name)
        folder.chmod(0o700)
        self._sweep_drafts()
        self._secret = self._shared_secret()

    # Accounts and tokens

    def open_account(self) -> Account:
        account = Account(uuid.uuid4().hex)
        self.put_account(account)
        return account

    def put_account(self, account: Account) -> None:
        write(self._account_path(account.user_id), json.dumps(asdict(account)).encode())

    def account(self, user_id: str) -> Account | None:
        found = _read_json(self._account_path(user_id)) if ID.fullmatch(user_id) else None
        if not is_object(found):
            return None
        serial = found.get("serial")
        return Account(
            user_id=user_id,
            serial=serial if isinstance(serial, int) else 0,
            disabled=found.get("disabled") is True,
        )

    def advance(self, account: Account) -> Account:
        """The account with every refresh token so far expired."""
        later = replace(account, serial=account.serial + 1)
        self.put_account(later)
        return later

    def delete_account(self, user_id: str) -> None:
        if ID.fullmatch(user_id):
            self._account_path(user_id).unlink(missing_ok=True)

    def accounts(self) -> tuple[str, ...]:
        return tuple(sorted(path.stem for path in self.folder.glob("accounts/*.json")))

    def sign(self, claims: Claims) -> str:
        """The claims as a JWT (HS256), different each time."""
        fields = {
            "typ": claims.kind,
            "sub": claims.user_id,
            "ser": claims.serial,
            "exp": claims.expires_at,
            "jti": secrets.token_hex(8),
        }
        head = _pack(b'{"alg":"HS256","typ":"JWT"}') + "." + _pack(json.dumps(fields).encode())
        return f"{head}.{self._seal(head)}"

    def read(self, token: str) -> Claims | None:
        """The claims of a token that was signed in this folder; None for any other text."""
        head, _, seal = token.rpartition(".")
        if not hmac.compare_digest(self._seal(head).encode(), seal.encode("utf-8", "replace")):
            return None
        fields = json_or_none(_unpack(head.rpartition(".")[2]))
        if not is_object(fields):
            return None
        serial, expires_at = fields.get("ser"), fields.get("exp")
        return Claims(
            kind=text(fields, "typ"),
            user_id=text(fields, "sub"),
            serial=serial if isinstance(serial, int) else 0,
            expires_at=expires_at if isinstance(expires_at, int | float) else 0.0,
        )

    # Records and pictures

    def put_record(self, record: Record) -> None:
        fields = {
            "record_id": record.record_id,
            "user_id": record.user_id,
            "created_at": record.created_at,
            "queue": record.queue,
            "draw": record.draw,
            "seed": record.seed,
            "order": record.order.form(),
        }
        write(self._record_path(record.record_id), json.dumps(fields).encode())
        self._prune()

    def record(self, record_id: str) -> Record | None:
        """None for an unknown or damaged one, and for a name that is no record id."""
        found = _read_json(self._record_path(record_id)) if ID.fullmatch(record_id) else None
        form = found.get("order") if is_object(found) else None
        if not is_object(found) or not is_object(form):
            return None
        order = Submit.parse({name: str(value) for name, value in form.items()})
        seed = found.get("seed")
        if isinstance(order, Refusal) or not isinstance(seed, int):
            return None
        return Record(
            record_id=record_id,
            user_id=text(found, "user_id"),
            created_at=_number(found.get("created_at")),
            queue=_number(found.get("queue")),
            draw=_number(found.get("draw")),
            seed=seed,
            order=order,
        )

    def records(self) -> tuple[str, ...]:
        return tuple(sorted(path.stem for path in self.folder.glob("records/*.json")))

    def put_picture(self, record_id: str, index: int, picture: bytes) -> None:
        write(self.folder / "images" / picture_name(record_id, index), picture)

    def has_picture(self, record_id: str, index: int) -> bool:
        return (self.folder / "images" / picture_name(record_id, index)).is_file()

    def picture(self, name: str) -> bytes | None:
        if not _PICTURE.fullmatch(name):
            return None
        with suppress(FileNotFoundError):
            return (self.folder / "images" / name).read_bytes()
        return None

    # The folder itself

    def _account_path(self, user_id: str) -> Path:
        return self.folder / "accounts" / f"{user_id}.json"

    def _record_path(self, record_id: str) -> Path:
        return self.folder / "records" / f"{record_id}.json"

    def _seal(self, head: str) -> str:
        message = head.encode("utf-8", "replace")
        return _pack(hmac.new(self._secret, message, hashlib.sha256).digest())

    def _shared_secret(self) -> bytes:
        """The first process makes it; a link, unlike a rename, never replaces another's."""
        path = self.folder / "secret"
        if not path.exists():
            draft = _draft(path)
            _write_new(draft, secrets.token_bytes(32))
            with suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
        return path.read_bytes()

    def _prune(self) -> None:
        """Forget the oldest records, not at every order: listing a folder takes its time."""
        self._unlisted -= 1
        if self._unlisted > 0:
            return
        self._unlisted = max(1, self._keep // 20)
        paths = sorted(self.folder.glob("records/*.json"), key=_written_at)
        oldest = paths[: max(0, len(paths) - self._keep)]
        for path in oldest:
            for index in range(8):
                name = picture_name(path.stem, index)
                (self.folder / "images" / name).unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def _sweep_drafts(self) -> None:
        for draft in self.folder.rglob(".*.draft"):
            if time.time() - _written_at(draft) > _STALE_DRAFT:
                draft.unlink(missing_ok=True)


def _make_private(folder: Path) -> None:
    """Makes a folder and what is missing above it, each for its owner alone from the start."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def picture_name(record_id: str, index: int) -> str:
    return f"{record_id}-{index}.png"


def write(path: Path, content: bytes) -> None:
    """All of it or nothing, readable by the owner alone from the first byte."""
    draft = _draft(path)
    _write_new(draft, content)
    draft.replace(path)


def append(path: Path, line: str, *, limit: int) -> None:
    """Add a line; at `limit` bytes the file becomes the older one, `<name>.1`."""
    with suppress(FileNotFoundError):
        if path.stat().st_size > limit:
            path.replace(path.with_name(path.name + ".1"))
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(opened, "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.draft")


def _write_new(path: Path, content: bytes) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "wb") as file:
        file.write(content)


def _read_json(path: Path) -> object:
    with suppress(FileNotFoundError):
        return json_or_none(path.read_bytes())
    return None


def _written_at(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _pack(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _unpack(packed: str) -> bytes:
    return urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
