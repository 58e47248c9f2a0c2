"""Runs a few child processes as one: ready together, stopped together, and the death of one is the end of all."""

import asyncio
import ctypes
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_NUM_LAST_LINES = 12
_MAX_LINE_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Command:
    """A process to run, and the address that it will listen on."""

    name: str
    argv: tuple[str, ...]
    address: str


class ChildDied(Exception):
    """A child ended by itself; the message holds its last lines."""


@dataclass(slots=True)
class _Child:
    command: Command
    process: asyncio.subprocess.Process
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_NUM_LAST_LINES))


async def run_together(
    commands: Sequence[Command],
    *,
    is_ready: Callable[[Command], Awaitable[bool]],
    on_line: Callable[[str, str], None],
    on_ready: Callable[[Command], None],
    on_all_ready: Callable[[], None],
    grace_seconds: float,
) -> None:
    """Runs the commands until SIGINT or SIGTERM, then stops them with SIGTERM; a second signal kills them.

    Args:
        commands: Stopped in this order: each ends before the next is told to, so put callers before callees.
        is_ready: Asked again and again until it says yes.
        on_line: Gets each line that a child writes, with the child's name.
        on_ready: Called once for each child.
        on_all_ready: Called when every child is ready.
        grace_seconds: How long a child may take to end before it is killed.

    Raises:
        ChildDied: A child ended; the others have been stopped.
    """
    stopping, killing = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (killing if stopping.is_set() else stopping).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    children: list[_Child] = []
    pumps: list[asyncio.Task[None]] = []
    try:
        for command in commands:
            children.append(await _start(command))
            pumps.append(asyncio.create_task(_pump(children[-1], on_line)))
        deaths = [_raise_when_dead(child, pump) for child, pump in zip(children, pumps, strict=True)]
        await _first(stopping.wait(), _serve(commands, is_ready, on_ready, on_all_ready), *deaths)
    finally:
        await _stop(children, killing, grace_seconds)
        await asyncio.gather(*pumps)


async def _serve(
    commands: Sequence[Command],
    is_ready: Callable[[Command], Awaitable[bool]],
    on_ready: Callable[[Command], None],
    on_all_ready: Callable[[], None],
) -> None:
    async def wait(command: Command) -> None:
        while not await is_ready(command):  # noqa: ASYNC110 - another process's state.
            await asyncio.sleep(0.1)
        on_ready(command)

    await asyncio.gather(*map(wait, commands))
    on_all_ready()
    await asyncio.Event().wait()


async def _start(command: Command) -> _Child:
    # A session of its own keeps the terminal's Ctrl-C from the child: it is told by SIGTERM, in order.
    process = await asyncio.create_subprocess_exec(
        *command.argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=_MAX_LINE_BYTES,
        start_new_session=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )
    return _Child(command, process)


def _end_with_parent() -> None:
    """In the child: ask the kernel for SIGTERM when the parent dies, be it by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _pump(child: _Child, on_line: Callable[[str, str], None]) -> None:
    stream = child.process.stdout
    assert stream is not None
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # Longer than the limit; the reader has dropped it.
            continue
        if not line:
            return
        text = line.decode(errors="replace").rstrip()
        child.last_lines.append(text)
        on_line(child.command.name, text)


async def _raise_when_dead(child: _Child, pump: asyncio.Task[None]) -> None:
    code = await child.process.wait()
    with suppress(TimeoutError):  # Its last words may still be on their way.
        await asyncio.wait_for(asyncio.shield(pump), 1.0)
    how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    last = "".join(f"\n  {line}" for line in last_words(child.last_lines))
    raise ChildDied(f"the {child.command.name} ended {how}; its last lines:{last or ' none'}")


def last_words(lines: Iterable[str]) -> list[str]:
    """What a process said last: all the lines, or of a stack trace only the error at its end."""
    words: list[str] = []
    for line in lines:
        words = [] if line.startswith("  ") else [*words, line]
    return words


async def _first(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Waits until one is done, cancels the others, and raises what it raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _stop(children: Sequence[_Child], killing: asyncio.Event, grace_seconds: float) -> None:
    for child in children:
        if child.process.returncode is None:
            child.process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(_first(child.process.wait(), killing.wait()), grace_seconds)
    for child in children:
        if child.process.returncode is None:
            child.process.kill()
            await child.process.wait()
