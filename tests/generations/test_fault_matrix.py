"""The fault matrix: every fault at every endpoint ends as promised, as docs/reliability.md says.

What is expected is said once, as rules over endpoints and kinds of trouble; a fault for which there
is no rule fails here until somebody has thought about it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from harness import fault_matrix
from harness.fault_matrix import HOPELESS, KEY, MAX_SECONDS, TOKEN, Case, Outcome

LOST = {"reset-before", "reset-after", "answer-lost"}
WORDY = {"422", "detail-string", "detail-list", "long-words"}
GARBLED = {"empty-body", "html-body", "not-object", "truncated-json", "endless-body"}
DOWN = {"500", "502", "504", "late-500", "late-502", "late-504"}
WAITS = {f"{status}-{form}" for status in (429, 503) for form in ("wait", "date", "ahead")}
SLOW = {"slow-headers", "slow-body"}
HARMLESS = {"refused"}
TOO_MANY = {"429", "TOO_MANY_ATTEMPTS_TRY_LATER", "QUOTA_EXCEEDED"}
GONE = {"TOKEN_EXPIRED", "USER_NOT_FOUND", "INVALID_REFRESH_TOKEN", "PROJECT_NUMBER_MISMATCH"}
AUTH = {
    *{"400", "401", "403", "404", "409", "redirect-302", "redirect-307", "echo", *WORDY},
    *{"wrong-types", "OPERATION_NOT_ALLOWED", "ADMIN_ONLY_OPERATION", "PROJECT_DISABLED"},
    *{"USER_DISABLED", "MISSING_REFRESH_TOKEN", "INVALID_GRANT_TYPE", "MISSING_GRANT_TYPE"},
    *{"API_KEY_INVALID", "API_KEY_ANDROID_APP_BLOCKED", "PERMISSION_DENIED", "INVALID_ARGUMENT"},
    *{"API_KEY_IOS_APP_BLOCKED", "API_KEY_HTTP_REFERRER_BLOCKED", "API_KEY_SERVICE_BLOCKED"},
    *{"SERVICE_DISABLED", "UNAUTHENTICATED", "CONFIGURATION_NOT_FOUND"},
}
"""what the identity host refuses for good"""

TRIES = 4
"""times that what is safe to repeat is asked at most"""

PASSING = LOST | DOWN | WAITS | SLOW | {"408", "429", "503"}
"""what may have passed by the next try"""


@dataclass(frozen=True)
class Expected:
    """How a call ends and what the service saw of it; a number below 0 is the least of it."""

    ended: str
    sign_ups: int = 0
    refreshes: int = 0
    submits: int = 0
    unsaved: int = 0


def expected(case: Case) -> Expected:
    rules = {
        "sign_up": _at_sign_up,
        "refresh": _at_refresh,
        "submit": _at_submit,
        "status": _at_status,
        "image": _at_image,
        "styles": _at_styles,
    }
    return rules[case.fault.endpoint](case, case.fault.name)


def _at_sign_up(case: Case, name: str) -> Expected:
    if name in HARMLESS | SLOW and not case.at_length:
        return Expected("done", sign_ups=1, submits=1)
    if name in WAITS:
        return _while_waiting(case, "sign_ups")
    if name in LOST | SLOW:  # a second account might come of asking again
        return Expected("Unavailable", sign_ups=1)
    if name in PASSING:
        return _repeated(case, "sign_ups", "RateLimited" if name == "429" else "Unavailable")
    if name in TOO_MANY:
        return Expected("RateLimited", sign_ups=1)
    if name in GARBLED:
        return Expected("ProtocolError", sign_ups=1)
    assert name in AUTH, "no rule"
    return Expected("AuthError", sign_ups=1)


def _at_refresh(case: Case, name: str) -> Expected:
    if name in HARMLESS | SLOW and not case.at_length:
        return Expected("done", refreshes=1, submits=1)
    if name in WAITS:
        return _while_waiting(case, "refreshes")
    if name in PASSING | GARBLED:  # a refresh is safe to repeat
        told = {"429": "RateLimited"}.get(name, "Unavailable")
        return _repeated(case, "refreshes", "ProtocolError" if name in GARBLED else told)
    if name in TOO_MANY:
        return Expected("RateLimited", refreshes=1)
    if name in GONE:
        return Expected("done", refreshes=1, sign_ups=1, submits=1)
    assert name in AUTH, "no rule"
    return Expected("AuthError", refreshes=1)


def _while_waiting(case: Case, counted: str) -> Expected:
    told = "RateLimited" if case.fault.name.startswith("429") else "Unavailable"
    if case.at_length:
        return Expected(told, **{counted: 1})
    return _repeated(case, counted, told)


def _repeated(case: Case, counted: str, told: str) -> Expected:
    times = case.fault.times
    if times is None:
        return Expected(told, **{counted: TRIES})
    return Expected("done", submits=1, **{counted: times + 1})


def _at_submit(case: Case, name: str) -> Expected:
    times = case.fault.times
    if name in HARMLESS | SLOW and not case.at_length:
        return Expected("done", submits=1)
    if name in {"unknown-status", "error-code", "error-details"}:  # the next look decides
        return Expected("done", submits=1)
    if name in WAITS and not case.at_length and times is not None:
        return Expected("done", submits=times + 1)
    if name in {"503", "408", "409", "redirect-302", "redirect-307"}:  # none says there is no job
        return Expected("SubmitUnknown", submits=1)
    if name in WAITS | {"429"}:
        told = "RateLimited" if name.startswith("429") else "Unavailable"
        asks_again = name in WAITS and not case.at_length
        return Expected(told, submits=-2 if asks_again else 1)
    if name in LOST | GARBLED | DOWN | SLOW | {"wrong-types", "foreign-id"}:
        return Expected("SubmitUnknown", submits=1)
    if name in {"401", "stale-token"}:
        return Expected("done" if times == 1 else "AuthError", refreshes=1, submits=2)
    if name in WORDY | {"400", "echo"}:
        return Expected("PromptRejected", submits=1)
    if name == "404":
        return Expected("ProtocolError", submits=1)
    assert name == "403", "no rule"
    return Expected("AuthError", submits=1)


def _at_status(case: Case, name: str) -> Expected:
    times = case.fault.times
    passing = PASSING | GARBLED
    passing |= {"wrong-types", "foreign-id", "redirect-302", "redirect-307", "stuck", "404"}
    if name == "foreign-url":
        return Expected("done", submits=1, unsaved=2)
    if name in SLOW | HARMLESS | {"some-blurred"} and not case.at_length:
        return Expected("done", submits=1)
    if name in passing:
        is_given_up = times is None or (case.at_length and name in WAITS)
        return Expected("JobTimedOut" if is_given_up else "done", submits=1)
    if name in {"401", "stale-token"}:
        return Expected("done" if times == 1 else "AuthError", refreshes=1, submits=1)
    if name in {"done-null", "done-empty"}:
        return Expected("done" if times is not None else "JobFailed", submits=1)
    if name in {"unknown-status", "error-code", "error-details"}:
        return Expected("JobFailed", submits=1)
    if name in {"403"}:
        return Expected("AuthError", submits=1)
    if name in {"all-blurred"}:
        return Expected("PromptRejected", submits=1)
    broken = WORDY | {"400", "409", "echo"}
    assert name in broken | {"foreign-scheme"}, "no rule"
    return Expected("ProtocolError", submits=1)


def _at_image(case: Case, name: str) -> Expected:
    """A picture that cannot be had is said in the notice; the generation is done all the same."""
    is_had = name in HARMLESS | {"image-bomb", "image-broken"}  # saved as they came
    is_had |= name in SLOW and not case.at_length
    is_had |= _has_passed(case, name, PASSING | {"image-cut", "redirect-302", "redirect-307"})
    return Expected("done", submits=1, unsaved=0 if is_had else case.fault.times or 2)


def _has_passed(case: Case, name: str, passing: set[str]) -> bool:
    """Whether the trouble is over before the tries are."""
    asks_too_much = case.at_length and name in WAITS
    return name in passing and case.fault.times is not None and not asks_too_much


def _at_styles(case: Case, name: str) -> Expected:
    if name in HARMLESS | SLOW and not case.at_length:
        return Expected("done")
    if _has_passed(case, name, PASSING):
        return Expected("done")
    broken = GARBLED | {"wrong-types", "many-styles"}
    return Expected("ProtocolError" if name in broken else "Unavailable")


CASES = list(fault_matrix.cases())

ENTRIES = {"SubmitUnknown": "unknown", "JobFailed": "failed", "done": "done"}
AGAIN = {"unknown": "SubmitUnknown", "failed": "JobFailed"}
"""what a call with the same key comes to, by what the journal says; else it is done"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Outcome]:
    heard: list[str] = []
    with _listening(heard):
        found = anyio.run(fault_matrix.run_matrix, tmp_path_factory.mktemp("matrix"), CASES)
    found[0].shown += heard
    return {outcome.case: outcome for outcome in found}


class _listening(logging.Handler):
    """Every line that any logger writes, as an application hears it that listens to all."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._heard, self._level = heard, logging.WARNING

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(self.format(record))

    def __enter__(self) -> None:
        root = logging.getLogger()
        self._level = root.level
        root.addHandler(self)
        root.setLevel(logging.DEBUG)
        # a million lines of single bytes; test_secrets.py listens to these too, once
        logging.getLogger("httpcore").setLevel(logging.INFO)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("httpcore").setLevel(logging.NOTSET)
        logging.getLogger().setLevel(self._level)
        logging.getLogger().removeHandler(self)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault_ends_as_promised_loses_nothing_and_the_next_process_goes_on(
    outcomes: dict[Case, Outcome], case: Case
) -> None:
    outcome = outcomes[case]
    check_end(outcome, expected(case))
    check_nothing_lost_or_doubled(outcome)
    if case.fault.endpoint != "styles":
        check_next_process(outcome)


def check_end(outcome: Outcome, promised: Expected) -> None:
    assert outcome.ended == promised.ended, outcome.said
    counts = (outcome.sign_ups, outcome.refreshes)
    assert counts == (promised.sign_ups, promised.refreshes)
    if promised.submits < 0:
        assert outcome.submits >= -promised.submits
    else:
        assert outcome.submits == promised.submits
    assert outcome.unsaved == promised.unsaved
    assert outcome.accounts <= 1 + outcome.sign_ups
    assert outcome.seconds < MAX_SECONDS
    assert outcome.leaks == 0
    assert outcome.secrets == []


def check_nothing_lost_or_doubled(outcome: Outcome) -> None:
    assert len(outcome.jobs) <= 1
    assert outcome.jobs_afterwards <= 1
    assert not outcome.is_lost
    # sent again only after an answer that says that no job was made
    assert set(outcome.submit_statuses[:-1]) <= {401, 429, 503}
    if outcome.entry_record_id is not None:
        assert [outcome.entry_record_id, outcome.record_id] == [*outcome.jobs] * 2
    elif outcome.jobs:
        assert (outcome.ended, outcome.entry) == ("SubmitUnknown", "unknown")


def check_next_process(outcome: Outcome) -> None:
    name = outcome.case.fault.name
    if outcome.entry_record_id is None:
        assert outcome.entry == ENTRIES.get(outcome.ended, "refused")
    elif name == "all-blurred":
        assert outcome.entry == "failed"
    else:
        assert outcome.entry == ENTRIES.get(outcome.ended, "pending")
    if outcome.ended != "done" or outcome.unsaved:
        assert outcome.again == AGAIN.get(outcome.entry, "done")
        assert outcome.afterwards == ("" if not outcome.record_id else outcome.again)
        assert outcome.unsaved_afterwards == 0
        once_more = 2 if name == "stale-token" else 1  # that token stays stale
        assert outcome.submits_afterwards == (once_more if outcome.entry == "refused" else 0)


def test_no_log_line_shows_a_secret(outcomes: dict[Case, Outcome]) -> None:
    lines = next(iter(outcomes.values())).shown
    assert sum("HTTP Request" in line for line in lines) > len(CASES)
    assert not [line for line in lines if KEY in line or TOKEN.search(line)]


def test_a_job_that_is_given_up_is_given_up_in_time(outcomes: dict[Case, Outcome]) -> None:
    given_up = [one for one in outcomes.values() if one.ended == "JobTimedOut"]
    assert given_up
    for outcome in given_up:
        last_look = fault_matrix.SHORT if outcome.case.at_length else 0.0
        assert HOPELESS <= outcome.seconds < HOPELESS + last_look + 5  # 5: this machine is busy


def test_the_page_says_what_was_found(outcomes: dict[Case, Outcome]) -> None:
    page = fault_matrix.PAGE.read_text(encoding="utf-8")
    now = fault_matrix.with_matrix(page, list(outcomes.values()))
    assert now == page, "run `python tools/soak.py --matrix --write-docs`"


def test_the_search_for_secrets_finds_one(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "leak.txt").write_text(KEY, encoding="utf-8")
    outcome = Outcome(CASES[0], shown=[*fault_matrix.files(tmp_path / "state")])
    assert outcome.secrets
