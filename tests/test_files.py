"""Private folders, and files that are written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from arta_mcp.files import UnsafeFolder, make_private_folder, write_atomically, write_new


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_folder_that_had_to_be_made_is_its_owners_alone(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    make_private_folder(shared / "a" / "b")
    assert [mode_of(path) for path in (shared, shared / "a", shared / "a" / "b")] == [
        0o755,
        0o700,
        0o700,
    ]
    make_private_folder(shared)
    assert mode_of(shared) == 0o700, "all that was in it is ours"


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o750])
def test_a_folder_that_others_use_is_refused_and_stays_open(mode: int, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    (shared / "notes.txt").write_text("for all")
    (shared / "notes.txt").chmod(0o644)
    (shared / "ours").touch(mode=0o600)
    for _ in range(2):
        with pytest.raises(UnsafeFolder, match=r"open to others, and so is 'notes\.txt'"):
            make_private_folder(shared)
        assert mode_of(shared) == mode
    assert {path.name for path in shared.iterdir()} == {"notes.txt", "ours"}
    (shared / "notes.txt").unlink()
    make_private_folder(shared)
    assert mode_of(shared) == 0o700


def test_an_empty_folder_that_all_users_share_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(UnsafeFolder, match="is shared by all users"):
        make_private_folder(tmp_path)
    assert mode_of(tmp_path) == 0o1777


def test_on_a_disk_that_keeps_no_modes_a_folder_of_ours_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.mkdir

    def mkdir(path: Path, mode: int = 0o777) -> None:
        make(path, mode)
        Path(path).chmod(0o777)

    monkeypatch.setattr(os, "mkdir", mkdir)
    (tmp_path / "ours").touch()
    (tmp_path / "ours").chmod(0o777)
    tmp_path.chmod(0o777)
    make_private_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"ours"}


def test_no_link_and_no_file_is_taken_for_a_private_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(UnsafeFolder, match="is a link or no folder"):
            make_private_folder(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can chown")
def test_another_users_folder_is_not_taken(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(UnsafeFolder, match="belongs to another user"):
        make_private_folder(tmp_path)


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_file_is_replaced_whole_with_the_mode_that_was_asked_for(
    mode: int, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    before = path.with_name("before")
    path.write_bytes(b"old")
    path.chmod(0o644)
    os.link(path, before)
    umask = os.umask(0o077)
    try:
        write_atomically(path, b"new", mode=mode)
    finally:
        os.umask(umask)
    assert (path.read_bytes(), mode_of(path)) == (b"new", mode)
    assert before.read_bytes() == b"old", "whoever had it open still reads the old one"
    assert sorted(tmp_path.iterdir()) == [before, path]


def test_nothing_is_left_behind_when_a_file_cannot_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_never_overwrites_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_new(path, b"first")
    with pytest.raises(FileExistsError):
        write_new(path, b"second")
    assert (path.read_bytes(), mode_of(path)) == (b"first", 0o600)


def test_a_file_that_could_not_be_written_whole_is_taken_away(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_new(tmp_path / "file", "text is no bytes")  # pyright: ignore[reportArgumentType]  # the error is the point
    assert list(tmp_path.iterdir()) == []
