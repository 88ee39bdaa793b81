"""A batch: one prompt a line, each ordered once however often the batch is run."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio

from arta_mcp.cli import entry as cli
from arta_mcp.cli.generate import (
    MOST_HISTORY,
    is_there,
    max_wait,
    output_folder,
    print_pictures,
    with_files,
    with_generations,
)
from arta_mcp.cli.progress import Bar, Line, counted, in_words, is_terminal
from arta_mcp.config import Settings
from arta_mcp.errors import (
    ArtaError,
    AuthError,
    ConfigError,
    InvalidRequest,
    RateLimited,
    UnknownStyle,
)
from arta_mcp.generations.values import Generation, GenerationRequest, Update
from arta_mcp.matching import normalize

if TYPE_CHECKING:
    from arta_mcp.generations.service import Generations

TRIES = 3
"""how often a line is ordered that the service has no room for"""

LONGEST_PAUSE = 120.0
"""seconds that the service may ask for before such a line is given up"""

HOPELESS = (AuthError, ConfigError, UnknownStyle)
"""errors that every further line would meet too"""

Sleep = Callable[[float], Awaitable[None]]

Fate = Literal["drawn", "drawn before", "pending", "failed", "not tried"]


@dataclass(frozen=True, slots=True)
class Wish:
    """One line of a batch; `copy` counts the lines before it that are the same."""

    line: int
    prompt: str
    copy: int


@dataclass(slots=True)
class Standing:
    """How far a batch is; times are in seconds of a clock that only goes forward."""

    total: int
    places: int
    fates: Counter[Fate] = field(default_factory=Counter["Fate"])
    begun: dict[int, float] = field(default_factory=dict[int, float])
    """when each line in flight began"""
    usual: float | None = None

    @property
    def ended(self) -> int:
        return sum(self.fates.values())

    async def hear(self, update: Update) -> None:
        self.usual = update.usual or self.usual

    def line(self) -> Line:
        """One line for a bar: what is in flight counts by its age."""
        after = [f"{self.ended} of {self.total}"]
        after += [f"{self.fates['failed']} failed"] if self.fates["failed"] else []
        if not self.usual:
            return Line("drawing", ", ".join(after), self.ended / self.total)
        now = time.monotonic()
        flown = [min(0.98, (now - begun) / self.usual) for begun in list(self.begun.values())]
        done = self.ended + sum(flown)
        after.append(in_words((self.total - done) * self.usual / self.places))
        return Line("drawing", ", ".join(after), done / self.total)


def run(
    settings: Settings,
    options: argparse.Namespace,
    source: str,
    given: Mapping[str, str],
    *,
    sleep: Sleep = anyio.sleep,
) -> int:
    """Draws every line; exit code 1 when one failed, 3 when one is still being drawn."""
    name = given.get("idempotency_key", "")
    shared = {key: value for key, value in given.items() if key != "idempotency_key"}
    GenerationRequest.of(prompt="what all lines share", **shared)
    folder = output_folder(options, settings)
    wishes = read_wishes(_read(source))
    if not wishes:
        cli.talk(f"nothing to draw: no line of {source} is a prompt")
        return cli.OK
    batch = Batch(wishes, shared, name, settings, options, folder, sleep)
    try:
        with_generations(settings, folder, batch.draw)
    except KeyboardInterrupt:
        batch.close()
        cli.talk(f"{batch.summary()}; run it again to go on, nothing is ordered twice")
        raise
    return batch.conclude()


def read_wishes(text: str) -> list[Wish]:
    """The lines that are prompts: blank ones and those that begin with # are not."""
    seen = Counter[str]()
    wishes: list[Wish] = []
    for number, line in enumerate(text.splitlines(), 1):
        prompt = line.strip()
        if prompt and not prompt.startswith("#"):
            wishes.append(Wish(number, prompt, seen[prompt]))
            seen[prompt] += 1
    return wishes


def key_for(request: GenerationRequest, copy: int, name: str, attempt: int) -> str:
    """The same for the same picture of the same batch, whatever its line number is by now."""
    arguments = request.model_dump(exclude={"idempotency_key"}) | {
        "model": normalize(request.model)
    }
    content = json.dumps([arguments, copy, name, attempt], sort_keys=True)
    return f"batch-{hashlib.sha256(content.encode()).hexdigest()[:32]}"


class Batch:
    """The lines of one batch on their way."""

    def __init__(
        self,
        wishes: Sequence[Wish],
        shared: Mapping[str, str],
        name: str,
        settings: Settings,
        options: argparse.Namespace,
        folder: Path | None,
        sleep: Sleep,
    ) -> None:
        self._sleep = sleep
        self._wishes, self._shared, self._name = wishes, shared, name
        self._options, self._folder = options, folder
        self._wait = max_wait(options, settings)
        self._places = min(settings.max_concurrency, len(wishes))
        self._standing = Standing(len(wishes), self._places)
        self._hopeless: ArtaError | None = None
        self._bar = Bar(self._standing.line) if is_terminal() else None

    async def draw(self, generations: Generations) -> None:
        earlier = {
            key: found
            for found in await generations.history(MOST_HISTORY)
            if (key := found.request.idempotency_key)
        }
        waiting = iter(self._wishes)
        async with anyio.create_task_group() as group:
            for _ in range(self._places):
                group.start_soon(self._work, generations, waiting, earlier)

    def conclude(self) -> int:
        """The last words, and the exit code."""
        self.close()
        cli.talk(self.summary())
        fates = self._standing.fates
        if self._hopeless is not None:
            cli.tell_error(self._hopeless)
        if fates["drawn before"]:
            cli.talk("hint: --idempotency-key NAME draws them anew, as another batch")
        if fates["failed"] or fates["not tried"]:
            cli.talk("hint: run it again to try those that failed; nothing is ordered twice")
            return cli.FAILED
        return cli.PENDING if fates["pending"] else cli.OK

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def summary(self) -> str:
        told = [f"{count} {fate}" for fate, count in self._standing.fates.items() if count]
        left = self._standing.total - self._standing.ended
        told += [f"{left} to come"] if left else []
        return f"{counted(self._standing.total, 'prompt')}: {', '.join(told)}"

    async def _work(
        self,
        generations: Generations,
        waiting: Iterator[Wish],
        earlier: Mapping[str, Generation],
    ) -> None:
        for wish in waiting:
            if self._hopeless is not None:
                self._standing.fates["not tried"] += 1
                continue
            self._standing.begun[wish.line] = time.monotonic()
            try:
                await self._draw_one(generations, wish, earlier)
            except HOPELESS as exc:
                self._hopeless = exc
                self._standing.fates["not tried"] += 1
            except ArtaError as exc:
                self._failed(wish, exc)
            finally:
                del self._standing.begun[wish.line]

    async def _draw_one(
        self, generations: Generations, wish: Wish, earlier: Mapping[str, Generation]
    ) -> None:
        request = GenerationRequest.of(prompt=wish.prompt, **self._shared)
        key = _fresh_key(request, wish, self._name, earlier)
        before = earlier.get(key)
        if before is None or before.status != "done" or not all(map(is_there, before.images)):
            keyed = request.model_copy(update={"idempotency_key": key})
            generation = await self._ordered(generations, keyed)
        else:
            generation = before
        generation = await with_files(generations, generation, self._folder)
        self._told(wish, generation, was_done=before is not None and before.status == "done")

    async def _ordered(self, generations: Generations, request: GenerationRequest) -> Generation:
        """Waits and orders again while the service has no room; no job exists by then."""
        for tries_left in reversed(range(TRIES)):
            try:
                return await generations.generate(request, self._standing.hear, max_wait=self._wait)
            except RateLimited as exc:
                pause = 30.0 if exc.retry_after is None else exc.retry_after
                if not tries_left or pause > LONGEST_PAUSE:
                    raise
            await self._sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _told(self, wish: Wish, generation: Generation, *, was_done: bool) -> None:
        is_done = generation.status == "done"
        fate: Fate = "drawn before" if was_done else "drawn" if is_done else "pending"
        self._standing.fates[fate] += 1
        if self._options.json:
            _print_json(wish, generation.to_dict())
        else:
            print_pictures(generation)
            took = f" in {generation.elapsed:.1f} s" if fate == "drawn" else ""
            cli.talk(f"line {wish.line}: {fate}{took}, record id {generation.record_id}")

    def _failed(self, wish: Wish, error: ArtaError) -> None:
        self._standing.fates["failed"] += 1
        cli.tell_error(error, f"line {wish.line}: ")
        if self._options.json:
            about: dict[str, object] = {
                "status": "failed",
                "prompt": wish.prompt,
                "record_id": error.record_id,
                "error": error.message,
            }
            _print_json(wish, about)


def _fresh_key(
    request: GenerationRequest, wish: Wish, name: str, earlier: Mapping[str, Generation]
) -> str:
    """The key under which no job has failed yet: what failed before is tried once a run."""
    attempt = 1
    while True:
        key = key_for(request, wish.copy, name, attempt)
        if key not in earlier or earlier[key].status != "failed":
            return key
        attempt += 1


def _print_json(wish: Wish, about: Mapping[str, object]) -> None:
    cli.data(json.dumps({"line": wish.line, **about}, ensure_ascii=False))


def _read(source: str) -> str:
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as exc:
        why = (exc.strerror or str(exc)).lower()
        raise InvalidRequest("--batch", source, f"a file of prompts or - ({why})") from exc
    except UnicodeDecodeError as exc:
        raise InvalidRequest("--batch", source, "text in UTF-8, one prompt a line") from exc
