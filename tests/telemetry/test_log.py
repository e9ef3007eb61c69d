"""The log: lines that a machine reads, no secret in any, whatever way it takes to get there."""

import asyncio
import gc
import io
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from equabot_broker.domain.errors import NoUsableProfile
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.telemetry.log import configure, loop_exception_handler
from equabot_broker.telemetry.redaction import MASK, PIECE, Redactor

SECRET = "Zq7-canary-Xw93-of-the-live-kind-Lk20"

_log = logging.getLogger("equabot_broker.test")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Puts back what `configure` changes for the whole process."""
    root, names = logging.getLogger(), ("equabot_broker", "equabot", "equabot_client", "foreign")
    handlers, level, last = root.handlers[:], root.level, logging.lastResort
    levels = {name: logging.getLogger(name).level for name in names}
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    others = {
        name: (known.handlers[:], known.propagate)
        for name, known in root.manager.loggerDict.items()
        if isinstance(known, logging.Logger)
    }
    yield
    root.handlers[:], logging.lastResort = handlers, last
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    for name, (own, propagate) in others.items():
        known = logging.getLogger(name)
        known.handlers[:], known.propagate = own, propagate
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    logging.captureWarnings(capture=False)


def live(*values: str) -> Redactor:
    kept = tuple(map(SecretValue, values))
    return Redactor(lambda: kept)


class Written(io.StringIO):
    """A stream, and the JSON lines on it."""

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def out() -> Written:
    stream = Written()
    configure("debug", json=True, stream=stream, redactor=live(SECRET))
    return stream


def fail(error: BaseException) -> None:
    local = SECRET  # noqa: F841 - what a traceback with locals would show
    raise error


# -- the lines ---------------------------------------------------------------------------------------------------------


def test_a_record_is_one_json_object_on_one_line(out: Written) -> None:
    """Time in RFC 3339 UTC, level, logger, message, then the fields as what they are."""
    before = datetime.now(UTC)
    _log.info("granted %s\nfor %d s", "anthropic:env", 900, extra={"agent": "main", "n": 3, "ids": ("a", "b")})
    assert out.getvalue().count("\n") == 1
    (line,) = out.lines()
    at = line.pop("ts")
    assert at.endswith("Z")
    assert -0.001 <= (datetime.fromisoformat(at) - before).total_seconds() < 5
    assert line == {
        "level": "info", "logger": "equabot_broker.test", "message": "granted anthropic:env\nfor 900 s",
        "agent": "main", "n": 3, "ids": ["a", "b"],
    }  # fmt: skip


def test_a_field_cannot_pass_for_another(out: Written) -> None:
    """What a caller adds does not replace what the log says itself."""
    _log.info("real", extra={"ts": "fake", "level": "fake", "logger": "fake"})
    (line,) = out.lines()
    assert (line["level"], line["logger"], line["message"]) == ("info", "equabot_broker.test", "real")
    assert line["ts"] != "fake"


def test_a_person_gets_text() -> None:
    """Time of day, level, logger, message, fields; an exception on lines of its own; no line or cursor move from outside."""
    stream = io.StringIO()
    configure("info", json=False, stream=stream, redactor=live(SECRET))
    _log.warning("agent %s", "main\n12:00:00 critical forged: line\x1b[2J", extra={"reason": "two words", "n": 1, "to": SECRET})
    try:
        fail(NoUsableProfile("no credential: set ANTHROPIC_API_KEY"))
    except NoUsableProfile:
        _log.exception("refused")
    first, second, *rest = stream.getvalue().splitlines()
    forged = r"agent main\n12:00:00 critical forged: line\x1b[2J"
    assert first[8:] == f' warning  equabot_broker.test: {forged}  reason="two words"  n=1  to={MASK}'
    assert second.endswith("error    equabot_broker.test: refused")
    assert rest[0] == "  equabot_broker.domain.errors.NoUsableProfile: no credential: set ANTHROPIC_API_KEY"
    assert all("test_log.py:" in frame for frame in rest[1:])
    assert rest[-1].endswith(" fail")


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("INFO", 3), (logging.WARNING, 2), ("error", 1)])
def test_the_level_is_for_our_own_loggers(level: str | int, shown: int) -> None:
    """However much we are asked to say, others say warnings and worse: their debug lines show what travels."""
    stream = Written()
    configure(level, json=True, stream=stream)
    for name in ("equabot_broker.x", "equabot", "equabot_client.y"):
        for write in (_debug, _info, _warning, _error):
            write(logging.getLogger(name))
    for write in (_debug, _info):
        write(logging.getLogger("foreign"))
    assert len(stream.lines()) == 3 * shown


def _debug(logger: logging.Logger) -> None:
    logger.debug("x")


def _info(logger: logging.Logger) -> None:
    logger.info("x")


def _warning(logger: logging.Logger) -> None:
    logger.warning("x")


def _error(logger: logging.Logger) -> None:
    logger.error("x")


def test_an_unknown_level_is_refused() -> None:
    """And nothing has been changed."""
    before = logging.getLogger().handlers[:]
    with pytest.raises(ValueError, match="LOUD"):
        configure("loud", json=True, stream=io.StringIO())
    assert logging.getLogger().handlers == before


def test_the_last_configuration_holds() -> None:
    """No line comes twice."""
    first, second = Written(), Written()
    configure("info", json=True, stream=first)
    configure("info", json=True, stream=second)
    _log.info("x")
    assert (len(first.lines()), len(second.lines())) == (0, 1)


# -- no secret ---------------------------------------------------------------------------------------------------------

alphabet = st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.sampled_from("äß漢🔑")
secrets = st.text(alphabet, min_size=PIECE, max_size=80)
forms = st.sampled_from(["%s", "%r", "%.40s", "got %s and", "%(key)s", "{secret}", "%s %s", "%d", "no place for it", "%"])
names = st.sampled_from(["agent", "reason", "token", "field_1", "profiles"])
wrappings: st.SearchStrategy[Callable[[str], object]] = st.sampled_from([
    lambda s: s, lambda s: [s], lambda s: {"k": {s: s}}, ValueError, lambda s: (s, [s]), lambda s: s.encode(),
    SecretValue, lambda s: OSError(2, s, s), lambda s: {s}, lambda s: type("T", (), {"__str__": lambda _: s})(),
])  # fmt: skip


@given(
    secret=secrets, form=forms, wrap=wrappings, extra=st.dictionaries(names, wrappings, max_size=3),
    raised=st.booleans(), as_json=st.booleans(), name=st.sampled_from(["equabot_broker.x", "grpc", "kubernetes.client.rest"]),
)  # fmt: skip
def test_a_live_secret_never_comes_out(
    *, secret: str, form: str, wrap: Callable[[str], object], extra: dict[str, Callable[[str], object]],
    raised: bool, as_json: bool, name: str,
) -> None:  # fmt: skip
    """Neither whole nor any eight characters of it: in message, arguments, fields, exceptions, of any logger, in both forms."""
    stream = io.StringIO()
    configure("debug", json=as_json, stream=stream, redactor=live(secret))
    logger = logging.getLogger(name)

    def write(with_secret: Callable[[str], str]) -> str:
        message = form.replace("{secret}", with_secret(secret))
        held = wrap(with_secret(secret))
        fields = {key: how(with_secret(secret)) for key, how in extra.items()}
        try:
            try:
                fail(KeyError(with_secret(secret)))
            except KeyError as error:
                fail(RuntimeError(with_secret(secret), error))
        except RuntimeError:
            log = logger.exception if raised else logger.error
            log(message, {"key": held} if "(key)" in form else held, extra=fields)
        written = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return written

    innocent = write(lambda _: "-")
    pieces = {secret[at : at + PIECE] for at in range(len(secret) - PIECE + 1)}
    assume(not any(piece in innocent + MASK for piece in pieces))
    shown = write(str)
    leaked = {piece for piece in pieces if piece in shown or json.dumps(piece)[1:-1] in shown}
    assert not leaked, shown


def test_exceptions_are_told_by_type_and_place(out: Written) -> None:
    """`file:line function`, innermost last; causes and groups too; the text only of our own errors."""
    try:
        try:
            fail(ValueError(SECRET))
        except ValueError as error:
            raise NoUsableProfile("no profile: add one") from error
    except NoUsableProfile:
        _log.exception("refused")
    (line,) = out.lines()
    told = line["exception"]
    assert (told["type"], told["message"]) == ("equabot_broker.domain.errors.NoUsableProfile", "no profile: add one")
    assert (told["cause"]["type"], "message" in told["cause"]) == ("ValueError", False)
    assert told["cause"]["frames"][-1].endswith(" fail")
    assert told["cause"]["frames"][-1].startswith("tests/telemetry/test_log.py:")
    assert "fail(" not in out.getvalue()
    try:
        fail(ExceptionGroup(SECRET, [KeyError(SECRET), OSError(28, SECRET)]))
    except ExceptionGroup as group:
        _log.error("many", exc_info=group)
    told = out.lines()[1]["exception"]
    assert [one["type"] for one in told["group"]] == ["KeyError", "OSError"]
    assert told["group"][1]["message"] == "<OSError: No space left on device>"
    assert SECRET not in out.getvalue()


def test_a_chain_of_causes_without_end_is_cut(out: Written) -> None:
    """An exception that is its own context, or a thousand deep, makes one line of reasonable size."""
    error: BaseException = ValueError()
    for _ in range(1000):
        outer = ValueError()
        outer.__context__, error = error, outer
    _log.error("deep", exc_info=error)
    assert len(out.getvalue()) < 5000


def test_a_stack_shows_no_source(out: Written) -> None:
    """`stack_info` prints lines of source, so it is left out."""
    _log.warning("here", stack_info=True)
    assert "stack_info=True" not in out.getvalue()
    assert out.lines()[0]["message"] == "here"


def test_a_malformed_call_fails_nobody_and_shows_nothing(out: Written, capfd: pytest.CaptureFixture[str]) -> None:
    """logging prints the arguments of a record it cannot format; here it says where to look."""
    _log.error("%d items", SECRET)
    _log.error(ValueError(SECRET))

    class Bad(dict[str, str]):
        def items(self) -> Any:
            raise RuntimeError(SECRET)

    _log.error("%s", Bad(a="b"), extra={"field": SECRET})
    assert [line["message"] for line in out.lines()] == [
        "%d items (the arguments do not match the format)", "<ValueError>", out.lines()[2]["message"],
    ]  # fmt: skip
    assert "could not be redacted (RuntimeError): see test_log.py:" in out.lines()[2]["message"]
    assert SECRET not in out.getvalue()
    assert "".join(capfd.readouterr()) == ""


def test_a_stream_that_fails_is_survived(capfd: pytest.CaptureFixture[str]) -> None:
    """A log that cannot be written takes nobody down, and prints no record elsewhere."""

    class Full(io.StringIO):
        broken = True

        def write(self, text: str) -> int:
            if self.broken:
                self.broken = False
                raise OSError(28, SECRET)
            return super().write(text)

    stream = Full()
    configure("info", json=True, stream=stream)
    _log.error(SECRET)
    assert "could not be written (OSError): see test_log.py:" in stream.getvalue()
    stream.close()
    _log.error(SECRET)
    assert SECRET not in "".join(capfd.readouterr())


# -- whatever way it takes ---------------------------------------------------------------------------------------------


def test_foreign_loggers_lose_their_own_ways_out() -> None:
    """A library's own handler, or a logger that does not propagate, goes the common way from then on."""
    aside = io.StringIO()
    foreign = logging.getLogger("foreign")
    foreign.addHandler(logging.StreamHandler(aside))
    foreign.propagate = False
    stream = Written()
    configure("info", json=True, stream=stream, redactor=live(SECRET))
    foreign.warning("with %s", SECRET)
    assert aside.getvalue() == ""
    assert stream.lines()[0]["message"] == f"with {MASK}"


def test_the_last_resort_is_ours(out: Written) -> None:
    """When somebody has taken the root's handlers away, the record still passes the redactor."""
    root = logging.getLogger()
    root.handlers[:] = []
    logging.getLogger("equabot_broker.lonely").error("with %s", SECRET)
    assert out.lines()[0]["message"] == f"with {MASK}"


def test_exceptions_in_threads_and_finalizers_are_logged(out: Written, capfd: pytest.CaptureFixture[str]) -> None:
    """With type and place, on our stream and not on the terminal."""
    thread = threading.Thread(target=fail, args=(RuntimeError(SECRET),), name="worker")
    thread.start()
    thread.join()

    class Finalized:
        def __del__(self) -> None:
            fail(KeyError(SECRET))

    Finalized()
    gc.collect()
    in_thread, in_finalizer = out.lines()
    assert (in_thread["level"], in_thread["thread_name"], in_thread["exception"]["type"]) == (
        "critical",
        "worker",
        "RuntimeError",
    )
    assert in_finalizer["exception"]["type"] == "KeyError"
    assert SECRET not in out.getvalue() + "".join(capfd.readouterr())


def test_what_the_event_loop_complains_of_is_logged(out: Written) -> None:
    """Which task, and what it raised; not the repr of futures and transports, which may hold anything."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(loop_exception_handler)
        loop.call_soon(fail, RuntimeError(SECRET))
        task = asyncio.get_running_loop().create_task(_failing(), name="the-task")
        await asyncio.wait([task])
        del task
        gc.collect()
        loop.call_exception_handler({"message": "odd", "protocol": SECRET})

    asyncio.run(main())
    called, task, odd = out.lines()
    assert (called["message"], called["exception"]["type"]) == ("Exception in callback fail", "RuntimeError")
    assert (task["message"], task["task"]) == ("Task exception was never retrieved", "the-task")
    assert odd["message"] == "odd"
    assert SECRET not in out.getvalue()


async def _failing() -> None:
    fail(ValueError(SECRET))


def test_warnings_are_logged(out: Written) -> None:
    """A library's warning is a line like any other."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)  # which another test may have begun, outside of this block
        logging.captureWarnings(capture=True)
        warnings.warn(f"deprecated: {SECRET}", DeprecationWarning, stacklevel=1)
    (line,) = out.lines()
    assert line["logger"] == "py.warnings"
    assert "deprecated" in line["message"]
    assert SECRET not in out.getvalue()


def crash(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    setup = "import sys\nfrom equabot_broker.telemetry.log import configure\nconfigure('debug', json=True, stream=sys.stderr)\n"
    return subprocess.run(
        [sys.executable, "-c", setup + code], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | environment,
    )  # fmt: skip


def test_a_crash_of_the_process_tells_no_value() -> None:
    """The last words are a JSON line with type and place, and the exit code is Python's."""
    done = crash(f"def work(key):\n    raise RuntimeError('refused ' + key)\nwork({SECRET!r})")
    assert done.returncode == 1
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (line["level"], line["message"], line["exception"]["type"]) == ("critical", "uncaught exception", "RuntimeError")
    assert line["exception"]["frames"] == ["<string>:6 <module>", "<string>:5 work"]
    assert SECRET not in done.stderr + done.stdout


def test_grpc_is_not_made_to_trace() -> None:
    """GRPC_TRACE and GRPC_VERBOSITY in the environment would print headers and bodies past every filter."""
    code = f"""
import asyncio, grpc.aio
async def main():
    server = grpc.aio.server()
    async def answer(request, context): return request
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_registered_method_handlers("s", {{"m": handler}})
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {{"m": handler}}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{{port}}") as channel:
        call = channel.unary_unary("/s/m")
        print(await call({SECRET!r}.encode(), metadata=(("x-key", {SECRET!r}),), timeout=60))
    await server.stop(0)
asyncio.run(main())
"""
    done = crash(code, GRPC_TRACE="all", GRPC_VERBOSITY="debug")
    assert (done.returncode, done.stdout) == (0, f"b'{SECRET}'\n"), done.stderr[-2000:]
    assert SECRET not in done.stderr
    assert len(done.stderr.splitlines()) < 5, "gRPC traces"
