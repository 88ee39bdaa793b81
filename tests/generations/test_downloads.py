from __future__ import annotations

import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from arta_mcp.arta.client import Picture
from arta_mcp.errors import Unavailable
from arta_mcp.generations.downloads import MAX_DOWNLOADS, save_picture, save_pictures

FOX, OWL = Picture(b"a fox", "png"), Picture(b"an owl", "png")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_picture_is_saved_under_its_name_and_the_suffix_of_its_bytes(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a" / "b", "rec-0", Picture(b"a fox", "webp"))
    assert path == tmp_path / "a" / "b" / "rec-0.webp"
    assert path.read_bytes() == b"a fox"
    assert names(path.parent) == ["rec-0.webp"]


def test_the_same_picture_is_not_saved_twice(tmp_path: Path) -> None:
    first, again = save_picture(tmp_path, "rec-0", FOX), save_picture(tmp_path, "rec-0", FOX)
    assert first == again
    assert names(tmp_path) == ["rec-0.png"]


def test_another_picture_of_the_same_name_gets_a_number_and_nothing_is_overwritten(
    tmp_path: Path,
) -> None:
    mine = tmp_path / "rec-0.png"
    mine.write_text("not even a picture", encoding="utf-8")
    assert save_picture(tmp_path, "rec-0", FOX).name == "rec-0-2.png"
    assert save_picture(tmp_path, "rec-0", OWL).name == "rec-0-3.png"
    assert save_picture(tmp_path, "rec-0", FOX).name == "rec-0-2.png"
    assert mine.read_text(encoding="utf-8") == "not even a picture"


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "..",
        "",
        "C:\\x",
        "a\0b",
        "ä\u202e",
        "x" * 5000,
        ".",
    ],
)
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "pictures"
    path = save_picture(folder, name, FOX)
    assert path.resolve().parent == folder.resolve()
    assert names(tmp_path) == ["pictures"]
    assert names(folder) == [path.name]
    assert path.name.isascii()


@pytest.mark.parametrize(
    ("prompt", "begun"),
    [
        ("A red fox, in snow!", "a-red-fox-in-snow-"),
        ("one two three four five six seven", "one-two-three-four-five-six-"),
        ("../../etc/passwd", "etc-passwd-"),
        ("CON\0\u202e\n%2F", "con-2f-"),
        ("ein Hügel", "ein-hügel-"),
        ("雪中的红狐" * 10, "雪中的红狐" * 4 + "-"),
        (
            "supercalifragilistic" * 2 + " expialidociousexpialidocious",
            "supercalifragilistic" * 2 + "-",
        ),
        ("🦊 \ud83e ...", ""),
        ("", ""),
    ],
)
def test_a_name_begins_with_some_words_of_the_prompt_and_keeps_the_record_id(
    tmp_path: Path, prompt: str, begun: str
) -> None:
    path = save_picture(tmp_path, "rec-0", FOX, prompt)
    assert path == tmp_path / f"{begun}rec-0.png"
    assert save_picture(tmp_path, "rec-0", OWL, prompt).name == f"{begun}rec-0-2.png"
    assert len(path.name.encode()) < 100


def test_a_link_in_the_folder_is_not_written_through(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine", encoding="utf-8")
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "rec-0.png").symlink_to(secret)
    assert save_picture(folder, "rec-0", FOX).name == "rec-0-2.png"
    assert secret.read_text(encoding="utf-8") == "mine"


def test_many_at_once_lose_nothing_and_leave_nothing_half_done(tmp_path: Path) -> None:
    pictures = [Picture(bytes([number % 8]) * 50_000, "png") for number in range(64)]

    def save(picture: Picture) -> Path:
        return save_picture(tmp_path, "rec-0", picture)

    with ThreadPoolExecutor(16) as threads:
        paths = list(threads.map(save, pictures))
    assert [path.read_bytes() for path in paths] == [picture.content for picture in pictures]
    assert names(tmp_path) == sorted(
        ["rec-0.png", *(f"rec-0-{number}.png" for number in range(2, 9))]
    )


def test_a_folder_that_cannot_be_written_is_an_os_error_and_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        save_picture(tmp_path / "file", "rec-0", FOX)
    assert names(tmp_path) == ["file"]


def test_a_saved_picture_is_an_ordinary_file(tmp_path: Path) -> None:
    path = save_picture(tmp_path, "rec-0", FOX)
    assert stat.S_ISREG(path.lstat().st_mode)
    assert path.stat().st_nlink == 1


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk like exFAT or a network share."""

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(target))

    monkeypatch.setattr("os.link", refuse)


@pytest.mark.usefixtures("no_hard_links")
def test_a_disk_without_hard_links_is_written_to_and_nothing_is_overwritten(
    tmp_path: Path,
) -> None:
    assert save_picture(tmp_path, "rec-0", FOX).read_bytes() == b"a fox"
    assert save_picture(tmp_path, "rec-0", OWL).name == "rec-0-2.png"
    assert (tmp_path / "rec-0.png").read_bytes() == b"a fox"
    assert names(tmp_path) == ["rec-0-2.png", "rec-0.png"]


def _keep(failures: list[tuple[int, str]]) -> Callable[[int, str], None]:
    return lambda index, why: failures.append((index, why))


@pytest.mark.anyio
async def test_no_more_pictures_are_in_memory_than_allowed(tmp_path: Path) -> None:
    in_memory, most = 0, 0

    async def fetch(index: int) -> Picture:
        nonlocal in_memory, most
        in_memory += 1
        most = max(most, in_memory)
        await anyio.sleep(0.01)
        in_memory -= 1
        return Picture(b"picture %d" % index, "png")

    failures: list[tuple[int, str]] = []
    paths = await save_pictures(
        fetch, range(12), folder=tmp_path, record_id="rec", on_failure=_keep(failures)
    )
    assert sorted(paths) == list(range(12))
    assert most == MAX_DOWNLOADS
    assert failures == []


@pytest.mark.anyio
async def test_a_picture_that_cannot_be_had_stops_no_other(tmp_path: Path) -> None:
    async def fetch(index: int) -> Picture:
        if index == 1:
            raise Unavailable("a picture's host answers with 404")
        return FOX

    failures: list[tuple[int, str]] = []
    paths = await save_pictures(
        fetch, range(3), folder=tmp_path, record_id="rec", on_failure=_keep(failures)
    )
    assert sorted(paths) == [0, 2]
    assert failures == [(1, "a picture's host answers with 404")]
