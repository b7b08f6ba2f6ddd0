"""The pytest plugin: the option `--aiaas`, and the fixtures `aiaas_recording`, `aiaas_scripted`, `aiaas_faults` and
`aiaas_no_network`.

pytest loads this module in every run, so it imports nothing of the package before a fixture is used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aiaas_sdk.testing.faults import FaultServer
    from aiaas_sdk.testing.modes import Mode
    from aiaas_sdk.testing.scripted import Script

__all__ = ["RecordedTest"]

MODES = ("record", "replay", "live")
FOLDER = "recordings"
LONGEST = 100
"""Characters of a file's name; file systems take 255 bytes."""
UNUSED = "aiaas_unused"
"""The property of a test's report that takes what wasn't used to the summary, from another process too (xdist)."""
CONFORMANCE = "aiaas_conformance"
"""The property that takes the outcome of a check of the conformance suite there."""
_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")


# ---------------------------------------------------------------- options
def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("aiaas", "models in tests (aiaas-sdk)")
    group.addoption(
        "--aiaas",
        choices=MODES,
        dest="aiaas_mode",
        help="where the calls of tests with aiaas_recording go: to the models, written down (record); to the files "
        "that were written (replay, the default); to the models (live)",
    )
    group.addoption(
        "--aiaas-strict", action="store_true", dest="aiaas_strict", help="fail tests that don't use all of a recording"
    )
    parser.addini("aiaas_mode", "record, replay or live, where --aiaas isn't given", default="replay")
    parser.addini("aiaas_strict", "as --aiaas-strict", type="bool", default=False)
    parser.addini("aiaas_no_network", "no connections to other machines in the whole run", type="bool", default=False)
    parser.addini("aiaas_allow_hosts", "hosts that may be reached all the same", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    if config.getini("aiaas_mode") not in MODES:
        raise pytest.UsageError(f"aiaas_mode is {config.getini('aiaas_mode')!r}; it is one of {', '.join(MODES)}")
    if config.getini("aiaas_no_network"):
        stack = ExitStack()
        config.add_cleanup(stack.close)
        stack.enter_context(_guard(config))


def _mode(config: pytest.Config) -> Mode:
    mode: Mode = config.getoption("aiaas_mode") or config.getini("aiaas_mode")
    return mode


def _strict(config: pytest.Config) -> bool:
    return bool(config.getoption("aiaas_strict") or config.getini("aiaas_strict"))


# ---------------------------------------------------------------- what became of a test
@dataclass(slots=True)
class _Watched:
    """What a fixture of ours learns of its test before the teardown, and what it adds to the report of a failure."""

    passed: bool = False
    details: list[Callable[[], Iterable[str]]] = field(default_factory=list)


_WATCHED = pytest.StashKey[_Watched]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    watched = item.stash.get(_WATCHED, None)
    if watched is None:
        return report
    if report.when == "call":
        watched.passed = report.passed
        told = [line for detail in watched.details for line in detail()]
        if report.failed and told:
            report.sections.append(("aiaas: where it differs", "\n".join(told)))
    elif report.when == "teardown":
        del item.stash[_WATCHED]  # some plugins run a test several times
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for listed in terminalreporter.stats.values() for report in listed]
    _tell_conformance(terminalreporter, reports)
    told = dict.fromkeys(
        value
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == UNUSED and getattr(report, "when", None) == "teardown"
    )
    if told:
        terminalreporter.section("aiaas: recorded calls that no test asked for")
        for line in told:
            terminalreporter.line(line)


def _tell_conformance(terminalreporter: Any, reports: Iterable[Any]) -> None:
    """What came of each conformance suite of the run."""
    suites: dict[str, list[Any]] = {}
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name == CONFORMANCE and getattr(report, "when", None) == "call":
                suites.setdefault(value[0], []).append(value[1:])
    if not suites:
        return
    from aiaas_sdk.testing.conformance.reporting import Outcome, Report

    terminalreporter.section("aiaas: conformance")
    for suite, outcomes in suites.items():
        terminalreporter.line(f"{suite}: {Report(tuple(Outcome(*outcome) for outcome in outcomes)).told()}")


# ---------------------------------------------------------------- recordings
@dataclass(frozen=True, slots=True)
class RecordedTest:
    """What `aiaas_recording` gives.

    Attributes:
        path: the test's file, `recordings/<module>/<test>.jsonl` beside the module.
        mode: "record", "replay" or "live".
    """

    path: Path
    mode: Mode


@pytest.fixture
def aiaas_recording(request: pytest.FixtureRequest) -> Iterator[RecordedTest]:
    """The test's calls of models are recorded with --aiaas=record, and else answered from the recording.

    A fixture that opens a model asks for this one, so that it comes first.
    """
    item, mode = request.node, _mode(request.config)
    path = _path_of(item)
    if mode == "live":
        yield RecordedTest(path, mode)
    elif mode == "record":
        yield from _recorded(item, path)
    else:
        yield from _replayed(item, path, _strict(request.config))


def _recorded(item: pytest.Item, path: Path) -> Iterator[RecordedTest]:
    from aiaas_sdk import seam
    from aiaas_sdk.testing.recorder import Recorder

    watched, recorder = _watch(item), Recorder()
    with seam.stepping_in(recorder):
        yield RecordedTest(path, "record")
    if watched.passed:
        recorder.save(path)


def _replayed(item: pytest.Item, path: Path, strict: bool) -> Iterator[RecordedTest]:
    from aiaas_sdk import seam
    from aiaas_sdk.recordings.files import read
    from aiaas_sdk.recordings.playback import Playback
    from aiaas_sdk.testing.playing import Player

    # a test that calls no model has no file
    playback = Playback(read(path) if path.exists() else (), _shown(item, path))
    watched = _watch(item)
    watched.details.append(lambda: (line for miss in playback.misses for line in miss.values))
    with seam.stepping_in(Player(playback)):
        yield RecordedTest(path, "replay")
    if not watched.passed:
        return
    if playback.misses:
        told = [str(playback.misses[0].error), *playback.misses[0].values]
        pytest.fail("the test passed, and a call of it wasn't recorded:\n" + "\n".join(told), pytrace=False)
    if unused := playback.unused():
        told = [f"{playback.source} line {call.line}: {call.asked}" for call in unused]
        if strict:
            pytest.fail("recorded calls weren't asked for:\n" + "\n".join(told), pytrace=False)
        item.user_properties += [(UNUSED, line) for line in told]


def _watch(item: pytest.Item) -> _Watched:
    return item.stash.setdefault(_WATCHED, _Watched())


def _path_of(item: pytest.Item) -> Path:
    """The name of the test, with its classes and parameters, as a file system takes it."""
    name = item.nodeid.partition("::")[2].replace("::", ".") or item.name
    plain = _OTHER.sub("_", name)
    if plain != name or len(plain) > LONGEST:  # two names may have become one
        plain = f"{plain[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return item.path.parent / FOLDER / item.path.stem / f"{plain}.jsonl"


def _shown(item: pytest.Item, path: Path) -> str:
    root = item.config.rootpath
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


# ---------------------------------------------------------------- the others
@pytest.fixture
def aiaas_scripted(request: pytest.FixtureRequest) -> Iterator[Script]:
    """A scripted model: say what it answers with `answer`, `say`, `stream` and `embed`, and load its `.address`."""
    from aiaas_sdk.testing.scripted import Script

    script, watched = Script(), _watch(request.node)
    yield script
    if watched.passed and script.overruns:
        pytest.fail(f"the test passed, and a call of it had no answer:\n{script.overruns[0]}", pytrace=False)


@pytest.fixture
def aiaas_faults() -> Iterator[FaultServer]:
    """An endpoint that is wrong on purpose: give it faults with `aiaas_faults.script([...])`, load its `.address`."""
    from aiaas_sdk.testing.faults import FaultServer

    with FaultServer() as server:
        yield server


@pytest.fixture
def aiaas_no_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever connects to another machine fails at once. With --aiaas=record or live the network is there."""
    with _guard(request.config):
        yield


def _guard(config: pytest.Config) -> AbstractContextManager[None]:
    from aiaas_sdk.testing.network import no_network

    return no_network(config.getini("aiaas_allow_hosts")) if _mode(config) == "replay" else nullcontext()
