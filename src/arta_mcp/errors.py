"""Every error raised on purpose: one class per reaction, its special cases below it.

    ArtaError                   .hint, .record_id | None
      ConfigError               fix a setting
      InvalidRequest            .argument .value .allowed: change that argument
      AuthError                 the identity host gives no token: check the key
        AccountGone             .code: sign up anew (never leaves `arta.tokens`)
      UnknownStyle              .name .suggestions: pick another model
        RefusedStyle            .valid: the service has just listed what it has
      PromptRejected            write another prompt
      RateLimited               .retry_after: wait
      Unavailable               .retry_after: no answer, an empty one, 5xx: try later
        NotSent                 nothing was done about it: safe to send again
        PollFailed              poll again; the job is not touched by it
      SubmitUnknown             the answer was lost: check before asking again
      KeyConflict               the idempotency key belongs to another request: use a new key
      JobFailed                 the service gave up: its words, verbatim, cut to 500 characters
        JobCancelled            it was given up on purpose: ask again if it is wanted
        EngineError             .code: an engine of the person's own could not draw
          EngineUnavailable     start it, or correct its address
          ModelNotFound         name a model that it has
          ModelUnusable         give it another model
          OutOfMemory           ask for less: a smaller model, fewer pictures
          EngineCrashed         look at its own log; the next job works
          RequestRefused        change what it refuses, or a setting
          EngineBusy            .retry_after: wait
          AnswerLost            a picture may have been drawn: look before asking again
      JobTimedOut               we gave up: take it up with the record id
      NotCancellable            nothing to be done: it has ended, or its service cannot
      UnknownRecord             no such generation
        PicturesRemoved         there were pictures, and no wait brings them back: draw again
      ProtocolError             the service broke its contract: report it

A message is one plain sentence that quotes the wrong value, lower case, no full stop: it is read
after a colon. Every text is redacted, escaped and cut on its way in, and a record id that is none
is dropped: whoever raises it, no error shows a secret, acts on a terminal or fills a conversation.
No I/O happens here.
"""

from __future__ import annotations

from arta_mcp.redaction import escape, is_plain_id, redact, sanitize, shorten

MAX_TEXT = 4000
"""characters of a message or a hint; what it quotes of others is cut shorter where it is read"""


class ArtaError(Exception):
    """Something that a person, a model or a setting can react to."""

    default_hint = ""

    def __init__(self, message: str, *, hint: str = "", record_id: str | None = None) -> None:
        self.message = shorten(escape(redact(message)), MAX_TEXT)
        self.hint = shorten(escape(redact(hint or self.default_hint)), MAX_TEXT)
        self.record_id = record_id
        super().__init__(self.message)

    @property
    def record_id(self) -> str | None:
        """The generation that it is about; a hint may say it as a word of a shell."""
        return self._record_id

    @record_id.setter
    def record_id(self, value: str | None) -> None:
        self._record_id = value if value is not None and is_plain_id(value) else None

    def __str__(self) -> str:
        return self.message


class ConfigError(ArtaError):
    """A setting is missing, malformed or out of range."""

    default_hint = "the README's table of settings says what each may hold"


class InvalidRequest(ArtaError):
    """An argument is outside what is allowed; nothing was sent."""

    def __init__(
        self, argument: str, value: object, allowed: str, *, message: str = "", hint: str = ""
    ) -> None:
        self.argument, self.value, self.allowed = argument, value, allowed
        shown = f"{sanitize(argument, 80)} is {_shown(value)}; allowed is {allowed}"
        super().__init__(message or shown, hint=hint)

    @classmethod
    def join(cls, first: InvalidRequest, *more: ArtaError) -> InvalidRequest:
        """One error that tells all of these; its data are the first one's."""
        errors = (first, *more)
        return cls(
            first.argument,
            first.value,
            first.allowed,
            message="; and ".join(error.message for error in errors),
            hint="; ".join(error.hint for error in errors if error.hint),
        )


def _shown(value: object) -> str:
    try:
        return sanitize(repr(value), 80)
    except (ValueError, RecursionError):  # Python writes out no number of over 4,300 digits
        return f"some {type(value).__name__}"


class AuthError(ArtaError):
    """The identity host gives no token."""

    default_hint = "check ARTA_API_KEY"


class AccountGone(AuthError):
    """A refresh was refused for good; `code` is the identity host's. Signing up anew mends it."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"the refresh token was refused: {code}")


class UnknownStyle(ArtaError):
    """No such model; `suggestions` holds the closest names, best first."""

    def __init__(
        self, name: str, suggestions: tuple[str, ...] = (), *, message: str = "", hint: str = ""
    ) -> None:
        self.name, self.suggestions = name, suggestions
        listed = " or ".join(filter(None, (", ".join(suggestions[:-1]), *suggestions[-1:])))
        meant = f"did you mean {listed}? " if suggestions else ""
        super().__init__(
            message or f"no model is called {sanitize(repr(name), 80)}",
            hint=hint or f"{meant}list_models shows them all",
        )


class RefusedStyle(UnknownStyle):
    """The service does not draw this style now; `valid` are the wire names that it listed."""

    def __init__(self, name: str, valid: tuple[str, ...]) -> None:
        self.valid = valid
        super().__init__(name, message=f"the service has no style {sanitize(repr(name), 80)} now")


class PromptRejected(ArtaError):
    """The service refuses this prompt or these arguments; no job exists."""

    default_hint = "write the prompt in other words"


class RateLimited(ArtaError):
    """Too many requests; `retry_after` is in seconds, None when the service did not say."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        hint: str = "",
        record_id: str | None = None,
    ) -> None:
        self.retry_after = retry_after
        wait = "some minutes" if retry_after is None else f"{retry_after:.0f} s"
        super().__init__(message, hint=hint or f"wait {wait}, then try again", record_id=record_id)


class Unavailable(ArtaError):
    """No answer, an empty one, or one that says the service is down.

    `retry_after` is in seconds, None when the service did not say.
    """

    default_hint = "try again later"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        hint: str = "",
        record_id: str | None = None,
    ) -> None:
        self.retry_after = retry_after
        super().__init__(message, hint=hint, record_id=record_id)


class NotSent(Unavailable):
    """No connection was made, or the other side says that it did nothing about the request."""


class PollFailed(Unavailable):
    """A poll that failed in a way that the next one may not; the job is not touched by it."""


class SubmitUnknown(ArtaError):
    """The answer to a submit was lost: a job may or may not exist."""

    default_hint = (
        "a picture may have been ordered, and nothing was sent again; repeat the call with another"
        " idempotency_key, or none, only if a second picture is acceptable"
    )


class KeyConflict(ArtaError):
    """The idempotency key belongs to a generation with other arguments."""

    default_hint = "use a new idempotency_key for a new picture, or repeat the first arguments"


class JobFailed(ArtaError):
    """The service gave the job up."""

    default_hint = "ask again, perhaps with another model or prompt"


class JobCancelled(JobFailed):
    """The job was given up on purpose, by a person or because nobody asked for it."""

    default_hint = "ask again for a new picture"


class JobTimedOut(ArtaError):
    """We stopped waiting for a job that may still end."""

    default_hint = "call get_generation with the record id later"


class EngineError(JobFailed):
    """An engine of the embedded service could not draw; `code` names the class on the wire."""

    default_hint = "`arta-mcp doctor` tries the engine; docs/local.md says what each one needs"
    code = "ENGINE"


class EngineUnavailable(EngineError):
    """No engine answers: no server at the address, a process that does not start."""

    default_hint = "start the server that ARTA_LOCAL_URL names, then try again"
    code = "ENGINE_UNAVAILABLE"


class ModelNotFound(EngineError):
    """The engine has no such model."""

    default_hint = "set ARTA_LOCAL_MODEL to a model that the engine has"
    code = "MODEL_NOT_FOUND"


class ModelUnusable(EngineError):
    """The model is there and cannot be used: a broken folder, weights that run code."""

    default_hint = "set ARTA_LOCAL_MODEL to another model"
    code = "MODEL_UNUSABLE"


class OutOfMemory(EngineError):
    """The picture did not fit into the engine's memory."""

    default_hint = "use a smaller model, or close what else uses the memory"
    code = "OUT_OF_MEMORY"


class EngineCrashed(EngineError):
    """The engine ended in the middle of a picture."""

    default_hint = "its own log says why; the next picture starts it anew"
    code = "ENGINE_CRASHED"


class RequestRefused(EngineError):
    """The engine refuses what it was asked for: a size, a field, the key."""

    code = "REQUEST_REFUSED"


class EngineBusy(EngineError):
    """The engine has no room now and drew nothing; `retry_after` is in seconds, if it said."""

    default_hint = "wait some seconds, then try again"
    code = "ENGINE_BUSY"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        hint: str = "",
        record_id: str | None = None,
    ) -> None:
        self.retry_after = retry_after
        super().__init__(message, hint=hint, record_id=record_id)


class AnswerLost(EngineError):
    """The engine was asked and its answer was lost: a picture may have been drawn, and paid for."""

    default_hint = "nothing was sent again; ask again only if a second picture is acceptable"
    code = "ANSWER_LOST"


PROMPT_REJECTED, CANCELLED = "PROMPT_REJECTED", "CANCELLED"
"""codes of the embedded service for what is no engine's failure"""

ENGINE_ERRORS: dict[str, type[EngineError]] = {
    kind.code: kind
    for kind in (
        *(EngineError, EngineUnavailable, ModelNotFound, ModelUnusable, OutOfMemory),
        *(EngineCrashed, RequestRefused, EngineBusy, AnswerLost),
    )
}
"""code on the wire of the embedded service -> class"""


class NotCancellable(ArtaError):
    """The job has ended, or it is a job of a service that takes no cancellation."""

    default_hint = "call get_generation with the record id later"


class UnknownRecord(ArtaError):
    """No generation has this record id."""

    default_hint = "call get_generation without record_id for the newest one"


class PicturesRemoved(UnknownRecord):
    """The service kept the pictures of this generation for a while and keeps them no more."""

    default_hint = "draw them again: the same arguments with the same seed"


class ProtocolError(ArtaError):
    """The service answered outside its contract."""

    default_hint = "the service may have changed; please report it"
