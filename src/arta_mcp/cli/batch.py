"""A batch: one prompt a line, each submitted once however often the batch is run."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
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
    describe_error,
    is_terminal,
    print_error,
    print_json,
    print_message,
)
from arta_mcp.cli.progress import MAX_SHARE, Bar, BarState, format_remaining
from arta_mcp.cli.session import (
    MAX_HISTORY,
    choose_max_wait,
    choose_output_folder,
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
from arta_mcp.generations.values import GeneratedImage, Generation, GenerationRequest, Update
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


def read_items(text: str) -> tuple[list[BatchItem], int]:
    """The lines that are prompts, and how many are remarks: those that begin with #."""
    seen = Counter[str]()
    items: list[BatchItem] = []
    remarks = 0
    for number, line in enumerate(text.splitlines(), 1):
        prompt = line.strip()
        if prompt.startswith("#"):
            remarks += 1
        elif prompt:
            items.append(BatchItem(number, prompt, seen[prompt]))
            seen[prompt] += 1
    return items, remarks


def key_for(request: GenerationRequest, copy: int, name: str, attempt: int) -> str:
    """The same for the same picture of the same batch, whatever its line number is by now."""
    # Not the line's number: a file that grows draws nothing anew.
    arguments = request.model_dump(exclude={"idempotency_key"})
    arguments["model"] = normalize(request.model)
    content = json.dumps([arguments, copy, name, attempt], sort_keys=True)
    return f"batch-{hashlib.sha256(content.encode()).hexdigest()[:32]}"


def is_on_disk(image: GeneratedImage) -> bool:
    """Whether a picture was saved and still lies there."""
    return image.path is not None and Path(image.path).exists()


def pause_after(exc: ArtaError, tries: int) -> float | None:
    """Seconds until a line that the service has no room for is tried again; None: not at all."""
    # Refused for lack of room, so no job exists, and another try cannot make a second one.
    if not isinstance(exc, RateLimited) or tries == MAX_TRIES:
        return None
    pause = DEFAULT_PAUSE if exc.retry_after is None else exc.retry_after
    return pause if pause <= MAX_PAUSE else None


class Batch:
    """One run of a batch: its items and how far they are."""

    def __init__(
        self,
        settings: Settings,
        options: argparse.Namespace,
        given: Mapping[str, str],
        *,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        """`given` are the arguments that all lines share; its idempotency key is the batch's name.

        Raises InvalidRequest: what is wrong with the options is one error, not one for each line.
        """
        self._settings, self._options, self._sleep = settings, options, sleep
        self._arguments = dict(given)
        # A batch is its file, so that a line of another one is another picture.
        source = options.batch if options.batch == "-" else str(Path(options.batch).resolve())
        self._is_named = "idempotency_key" in self._arguments
        self._name = self._arguments.pop("idempotency_key", source)
        GenerationRequest.of(prompt="what all lines share", **self._arguments)
        self._folder = choose_output_folder(options, settings)
        self._items, self._remarks = read_items(read_source(options.batch))
        self._concurrency = min(settings.max_concurrency or 8, len(self._items))
        self._outcomes = Counter[Outcome]()
        self._started: dict[int, float] = {}
        """line in flight -> when it began, by a clock that only goes forward"""
        self._usual: float | None = None
        """seconds that a job usually takes, once any line knows"""
        self._fatal: ArtaError | None = None
        self._results: dict[int, Callable[[], None]] = {}
        """line -> what prints its result"""
        self._unprinted = deque(item.line for item in self._items)

    def run(self) -> int:
        """Draws every line; exit code 1 when one failed, 3 when one is pending."""
        if not self._items:
            print_message(f"nothing to draw: no line of {self._options.batch} is a prompt")
            return OK
        if self._remarks:
            print_message(
                f"{count_of(self._remarks, 'line')} left out: remarks, which begin with #"
            )
        with closing(Bar(self.bar_state)) if is_terminal() else nullcontext():
            try:
                run_session(self._settings, self._folder, self.draw, draws=True)
            except KeyboardInterrupt:
                # Jobs in flight are in the journal under their keys: the next run waits for them.
                print_message(f"{self.summary()}; run it again to go on, nothing is ordered twice")
                raise
        print_message(self.summary())
        if self._fatal is not None:
            print_error(self._fatal)
            if self._options.json:
                print_json(describe_error(self._fatal))
        if self._outcomes["drawn before"]:
            print_message("hint: --idempotency-key NAME draws them anew, as another batch")
        if self._outcomes["failed"] or self._outcomes["not tried"]:
            print_message("hint: run it again to try those that failed; nothing is ordered twice")
            return FAILED
        return PENDING if self._outcomes["pending"] else OK

    def bar_state(self) -> BarState:
        """One drawing of a bar: what is in flight counts by its age."""
        total, ended = len(self._items), self._outcomes.total()
        notes = [f"{ended} of {total}"]
        notes += [f"{self._outcomes['failed']} failed"] if self._outcomes["failed"] else []
        done = float(ended)
        if self._usual:
            # A copy: the bar's thread reads this while the event loop starts and ends lines.
            ages = [time.monotonic() - started for started in list(self._started.values())]
            done += sum(min(MAX_SHARE, age / self._usual) for age in ages)
            notes.append(format_remaining((total - done) * self._usual / self._concurrency))
        return BarState("drawing", ", ".join(notes), done / total)

    def summary(self) -> str:
        """`3 prompts: 2 drawn, 1 to come`"""
        total = len(self._items)
        parts = [f"{number} {outcome}" for outcome, number in self._outcomes.items() if number]
        left = total - self._outcomes.total()
        parts += [f"{left} to come"] if left else []
        return f"{count_of(total, 'prompt')}: {', '.join(parts)}"

    async def draw(self, generations: Generations) -> None:
        """Draws every item, some at once; an item's error stops no other, unless it is fatal."""
        # The journal says what was submitted, not the files: they may be gone, or never were.
        # Read once: a look-up for each line would read it as often as there are lines.
        history = await generations.history(MAX_HISTORY)
        earlier = {found.request.idempotency_key: found for found in history}
        waiting = iter(self._items)
        as_json = self._options.json

        async def work() -> None:
            # One iterator for all workers: each takes the next item once its last one has ended.
            for item in waiting:
                self._started[item.line] = time.monotonic()
                try:
                    await self._draw_item(generations, item, earlier)
                except FATAL as exc:
                    # Every further line would meet it too: no more requests for the same answer.
                    self._fatal = exc
                    self._outcomes["not tried"] += 1 + len(list(waiting))
                except ArtaError as exc:
                    self._outcomes["failed"] += 1
                    print_error(exc, f"line {item.line}: ")
                    about = {"line": item.line, "status": "failed", "prompt": item.prompt}
                    told = {**about, **describe_error(exc)}
                    self._results[item.line] = (
                        partial(print_json, told) if as_json else lambda: None
                    )
                finally:
                    del self._started[item.line]
                self._print_results(finished_only=True)

        try:
            async with anyio.create_task_group() as group:
                for _ in range(self._concurrency):
                    group.start_soon(work)
        finally:
            self._print_results(finished_only=False)

    def _print_results(self, *, finished_only: bool) -> None:
        """Prints results in the order of their lines, up to the first one that is in the making."""
        while self._unprinted:
            printing = self._results.pop(self._unprinted[0], None)
            if printing is None and finished_only:
                return
            self._unprinted.popleft()
            if printing is not None:
                printing()

    async def _draw_item(
        self, generations: Generations, item: BatchItem, earlier: Mapping[str | None, Generation]
    ) -> None:
        request = GenerationRequest.of(prompt=item.prompt, **self._arguments)
        # A key whose job failed is spent, so the next one is tried: once a run, never in a loop.
        keys = (key_for(request, item.copy, self._name, attempt) for attempt in count(1))
        key = next(key for key in keys if key not in earlier or earlier[key].status != "failed")
        # In 0.1.0 a batch did not belong to its file: what it ordered is not ordered again.
        old = earlier.get(old_key := key_for(request, item.copy, "", 1))
        if not self._is_named and key not in earlier and old and old.status == "done":
            key = old_key
        before = earlier.get(key)
        was_done = before is not None and before.status == "done"
        # With every file still there nothing is asked of the service; else `generate` finds the job
        # of this key, whatever became of it, and only a new key submits one.
        if before and was_done and all(map(is_on_disk, before.images)):
            generation = before
        else:
            request = request.model_copy(update={"idempotency_key": key})
            max_wait = choose_max_wait(self._options, self._settings)
            call = partial(generations.generate, request, self._on_update, max_wait=max_wait)
            generation = await retry(call, pause_after, sleep=self._sleep)
        generation = await save_into(self._folder, generations, generation)

        is_done = generation.status == "done"
        outcome: Outcome = "drawn before" if was_done else "drawn" if is_done else "pending"
        self._outcomes[outcome] += 1
        told = {"line": item.line, **generation.to_dict()}
        as_json = self._options.json
        self._results[item.line] = (
            partial(print_json, told) if as_json else partial(print_pictures, generation)
        )
        if not as_json:
            took = f" in {generation.elapsed:.1f} s" if outcome == "drawn" else ""
            print_message(f"line {item.line}: {outcome}{took}, record id {generation.record_id}")

    async def _on_update(self, update: Update) -> None:
        self._usual = update.usual or self._usual
