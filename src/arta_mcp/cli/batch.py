"""A batch: one prompt a line, each submitted once however often the batch is run."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio

from arta_mcp.background import retry
from arta_mcp.cli.console import (
    FAILED,
    OK,
    PENDING,
    is_terminal,
    print_data,
    print_error,
    print_message,
)
from arta_mcp.cli.progress import MAX_SHARE, Bar, BarState, format_remaining
from arta_mcp.cli.session import (
    MAX_HISTORY,
    choose_max_wait,
    choose_output_folder,
    is_on_disk,
    print_pictures,
    run_session,
    save_into,
)
from arta_mcp.cli.tables import count_of
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

MAX_TRIES = 3
"""of a line that the service has no room for"""

DEFAULT_PAUSE = 30.0
"""seconds between two tries when the service does not say how long"""

MAX_PAUSE = 120.0
"""seconds that the service may ask for before such a line is given up"""

FATAL = (AuthError, ConfigError, UnknownStyle)
"""errors that every further line would meet too"""

Outcome = Literal["drawn", "drawn before", "pending", "failed", "not tried"]


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One line of a batch; `copy` counts the lines before it that are the same."""

    line: int
    prompt: str
    copy: int


@dataclass(slots=True)
class BatchProgress:
    """How far a batch is; times are in seconds of a clock that only goes forward."""

    total: int
    concurrency: int
    outcomes: Counter[Outcome] = field(default_factory=Counter["Outcome"])
    started: dict[int, float] = field(default_factory=dict[int, float])
    """when each line in flight began"""
    usual: float | None = None

    @property
    def ended(self) -> int:
        """Lines that have an outcome."""
        return sum(self.outcomes.values())

    async def on_update(self, update: Update) -> None:
        """Learns from any line how long a job usually takes."""
        self.usual = update.usual or self.usual

    def bar_state(self) -> BarState:
        """One drawing of a bar: what is in flight counts by its age."""
        notes = [f"{self.ended} of {self.total}"]
        notes += [f"{self.outcomes['failed']} failed"] if self.outcomes["failed"] else []
        if not self.usual:
            return BarState("drawing", ", ".join(notes), self.ended / self.total)
        now = time.monotonic()
        # A copy: the bar's thread reads this while the event loop starts and ends lines.
        ages = [now - started for started in list(self.started.values())]
        done = self.ended + sum(min(MAX_SHARE, age / self.usual) for age in ages)
        notes.append(format_remaining((self.total - done) * self.usual / self.concurrency))
        return BarState("drawing", ", ".join(notes), done / self.total)

    def summary(self) -> str:
        """`3 prompts: 2 drawn, 1 to come`"""
        parts = [f"{number} {outcome}" for outcome, number in self.outcomes.items() if number]
        left = self.total - self.ended
        parts += [f"{left} to come"] if left else []
        return f"{count_of(self.total, 'prompt')}: {', '.join(parts)}"


def run_batch(
    settings: Settings,
    options: argparse.Namespace,
    given: Mapping[str, str],
    *,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> int:
    """Draws every line of `options.batch`; exit code 1 when one failed, 3 when one is pending.

    `given` are the arguments that all lines share; its idempotency key is the batch's name.
    Raises InvalidRequest before anything is sent.
    """
    arguments = {key: value for key, value in given.items() if key != "idempotency_key"}
    # What is wrong with the options is one error now, not one for every line later.
    GenerationRequest.of(prompt="what all lines share", **arguments)
    folder = choose_output_folder(options, settings)
    items = read_items(read_source(options.batch))
    if not items:
        print_message(f"nothing to draw: no line of {options.batch} is a prompt")
        return OK
    batch = Batch(
        items,
        arguments,
        settings,
        options,
        name=given.get("idempotency_key", ""),
        folder=folder,
        sleep=sleep,
    )
    with closing(Bar(batch.progress.bar_state)) if is_terminal() else nullcontext():
        try:
            run_session(settings, folder, batch.draw)
        except KeyboardInterrupt:
            # Jobs in flight are in the journal under their keys: the next run waits for the same.
            summary = batch.progress.summary()
            print_message(f"{summary}; run it again to go on, nothing is ordered twice")
            raise
    return batch.conclude()


def read_source(source: str) -> str:
    """The text of a file, or of stdin (-). Raises InvalidRequest."""
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as exc:
        why = (exc.strerror or str(exc)).lower()
        raise InvalidRequest("--batch", source, f"a file of prompts or - ({why})") from exc
    except UnicodeDecodeError as exc:
        raise InvalidRequest("--batch", source, "text in UTF-8, one prompt a line") from exc


def read_items(text: str) -> list[BatchItem]:
    """The lines that are prompts: blank ones and those that begin with # are not."""
    seen = Counter[str]()
    items: list[BatchItem] = []
    for number, line in enumerate(text.splitlines(), 1):
        prompt = line.strip()
        if prompt and not prompt.startswith("#"):
            items.append(BatchItem(number, prompt, seen[prompt]))
            seen[prompt] += 1
    return items


def key_for(request: GenerationRequest, copy: int, name: str, attempt: int) -> str:
    """The same for the same picture of the same batch, whatever its line number is by now."""
    # Not the file's name nor the line's number: a file that is renamed or grows draws nothing anew.
    arguments = request.model_dump(exclude={"idempotency_key"})
    arguments["model"] = normalize(request.model)
    content = json.dumps([arguments, copy, name, attempt], sort_keys=True)
    return f"batch-{hashlib.sha256(content.encode()).hexdigest()[:32]}"


class Batch:
    """The items of one batch on their way; `progress` is where they are."""

    def __init__(
        self,
        items: Sequence[BatchItem],
        arguments: Mapping[str, str],
        settings: Settings,
        options: argparse.Namespace,
        *,
        name: str,
        folder: Path | None,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """`arguments` are what every item's request has beside its prompt and its key."""
        self.progress = BatchProgress(len(items), min(settings.max_concurrency, len(items)))
        self._items, self._arguments, self._name = items, arguments, name
        self._max_wait, self._as_json = choose_max_wait(options, settings), options.json
        self._folder, self._sleep = folder, sleep
        self._fatal: ArtaError | None = None

    async def draw(self, generations: Generations) -> None:
        """Draws every item, so many at once as the concurrency allows."""
        # The journal says what was submitted, not the files: they may be gone, or never were.
        # Read once: a look-up for each line would read it as often as there are lines.
        earlier = {
            key: found
            for found in await generations.history(MAX_HISTORY)
            if (key := found.request.idempotency_key)
        }
        waiting = iter(self._items)

        async def work() -> None:
            # One iterator for all workers: each takes the next item once its last one has ended.
            for item in waiting:
                await self._run_item(generations, item, earlier)

        async with anyio.create_task_group() as group:
            for _ in range(self.progress.concurrency):
                group.start_soon(work)

    def conclude(self) -> int:
        """Prints the last words, and gives the exit code."""
        print_message(self.progress.summary())
        outcomes = self.progress.outcomes
        if self._fatal is not None:
            print_error(self._fatal)
        if outcomes["drawn before"]:
            print_message("hint: --idempotency-key NAME draws them anew, as another batch")
        if outcomes["failed"] or outcomes["not tried"]:
            print_message("hint: run it again to try those that failed; nothing is ordered twice")
            return FAILED
        return PENDING if outcomes["pending"] else OK

    async def _run_item(
        self, generations: Generations, item: BatchItem, earlier: Mapping[str, Generation]
    ) -> None:
        """Draws one item and notes its outcome; its errors stop no other, but for the fatal."""
        # Another worker met what every line would meet: no more requests for the same answer.
        if self._fatal is not None:
            self.progress.outcomes["not tried"] += 1
            return
        self.progress.started[item.line] = time.monotonic()
        try:
            await self._draw_item(generations, item, earlier)
        except FATAL as exc:
            self._fatal = exc
            self.progress.outcomes["not tried"] += 1
        except ArtaError as exc:
            self.progress.outcomes["failed"] += 1
            print_error(exc, f"line {item.line}: ")
            self._print_json(
                item,
                status="failed",
                prompt=item.prompt,
                record_id=exc.record_id,
                error=exc.message,
            )
        finally:
            del self.progress.started[item.line]

    async def _draw_item(
        self, generations: Generations, item: BatchItem, earlier: Mapping[str, Generation]
    ) -> None:
        request = GenerationRequest.of(prompt=item.prompt, **self._arguments)
        # A key whose job failed is spent, so the next one is tried: once a run, never in a loop.
        keys = (key_for(request, item.copy, self._name, attempt) for attempt in count(1))
        key = next(key for key in keys if key not in earlier or earlier[key].status != "failed")
        before = earlier.get(key)
        was_done = before is not None and before.status == "done"
        # With every file still there nothing is asked of the service; else `generate` finds the job
        # of this key, whatever became of it, and only a new key submits one.
        if before is not None and was_done and all(map(is_on_disk, before.images)):
            generation = before
        else:
            keyed = request.model_copy(update={"idempotency_key": key})
            generation = await self._generate(generations, keyed)
        generation = await save_into(self._folder, generations, generation)

        is_done = generation.status == "done"
        outcome: Outcome = "drawn before" if was_done else "drawn" if is_done else "pending"
        self.progress.outcomes[outcome] += 1
        self._print_json(item, **generation.to_dict())
        if not self._as_json:
            print_pictures(generation)
            took = f" in {generation.elapsed:.1f} s" if outcome == "drawn" else ""
            print_message(f"line {item.line}: {outcome}{took}, record id {generation.record_id}")

    async def _generate(self, generations: Generations, request: GenerationRequest) -> Generation:
        """Generates; while the service has no room, pauses and tries again."""

        def pause_after(exc: ArtaError, tries: int) -> float | None:
            # Refused for lack of room, so no job exists, and another try cannot make a second one.
            if not isinstance(exc, RateLimited) or tries == MAX_TRIES:
                return None
            pause = DEFAULT_PAUSE if exc.retry_after is None else exc.retry_after
            return pause if pause <= MAX_PAUSE else None

        generate = partial(
            generations.generate, request, self.progress.on_update, max_wait=self._max_wait
        )
        return await retry(generate, pause_after, sleep=self._sleep)

    def _print_json(self, item: BatchItem, **about: object) -> None:
        if self._as_json:
            print_data(json.dumps({"line": item.line, **about}, ensure_ascii=False))
