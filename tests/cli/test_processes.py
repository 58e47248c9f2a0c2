import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.processes import ChildDied, Command, last_words, run_together

SERVICE = """
import pathlib, signal, sys, time
def stop(number, frame):
    print("stopping", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("started", flush=True)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""
STUBBORN = SERVICE.replace("sys.exit(0)", "time.sleep(60)")
BROKEN = "import sys; print('cannot bind'); sys.exit(3)"


class Together:
    """Runs programs together and records what happens."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.lines: list[tuple[str, str]] = []
        self.ready: list[str] = []
        self.on_all_ready: Callable[[], None] = lambda: None

    async def run(self, grace_seconds: float = 30.0, **programs: str) -> None:
        async def is_ready(command: Command) -> bool:
            return (self.folder / command.name).exists()

        commands = [
            Command(name, (sys.executable, "-c", program, str(self.folder / name)), "nowhere")
            for name, program in programs.items()
        ]
        await run_together(
            commands,
            is_ready=is_ready,
            on_line=lambda name, line: self.lines.append((name, line)),
            on_ready=lambda command: self.ready.append(command.name),
            on_all_ready=lambda: self.on_all_ready(),
            grace_seconds=grace_seconds,
        )


@pytest.fixture
def together(tmp_path: Path) -> Together:
    return Together(tmp_path)


def signal_self(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_one_signal_stops_all_in_the_order_given(together: Together, number: int) -> None:
    together.on_all_ready = signal_self(number)
    await together.run(caller=SERVICE, callee=SERVICE)
    assert sorted(together.ready) == ["callee", "caller"]
    assert [name for name, line in together.lines if line == "stopping"] == ["caller", "callee"]


async def test_the_death_of_one_stops_all_and_tells_its_last_lines(together: Together) -> None:
    with pytest.raises(ChildDied, match="the broken ended with exit code 3; its last lines:\n  cannot bind"):
        await together.run(steady=SERVICE, broken=BROKEN)
    assert together.ready in ([], ["steady"])


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["one", "two"], ["one", "two"]),
        (
            ["log", "Traceback (most recent call last):", '  File "a.py", line 1', "    a()", "ValueError: bad"],
            ["ValueError: bad"],
        ),
    ],
)
def test_of_a_stack_trace_only_the_error_is_told(lines: list[str], told: list[str]) -> None:
    assert last_words(lines) == told


async def test_a_child_that_will_not_stop_is_killed(together: Together) -> None:
    together.on_all_ready = signal_self(signal.SIGTERM)
    await together.run(grace_seconds=0.5, stubborn=STUBBORN)
    assert ("stubborn", "stopping") in together.lines


async def test_a_second_signal_kills_at_once(together: Together) -> None:
    together.on_all_ready = signal_self(signal.SIGINT)

    async def interrupt_again() -> None:
        await until(lambda: ("stubborn", "stopping") in together.lines)
        signal_self(signal.SIGINT)()

    await asyncio.wait_for(asyncio.gather(together.run(grace_seconds=100, stubborn=STUBBORN), interrupt_again()), 50)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells children of their parent's death")
async def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
from cli.processes import Command, run_together
async def is_ready(command): return False
command = Command("child", (sys.executable, "-c", {SERVICE!r}, {str(tmp_path / "child")!r}), "")
asyncio.run(run_together([command], is_ready=is_ready, on_line=lambda *_: None, on_ready=print, on_all_ready=print,
                         grace_seconds=9))
"""
    root = Path(__file__).parents[2]
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=root)
    await until((tmp_path / "child").exists)
    children = children_of(parent.pid)
    parent.kill()
    await parent.wait()
    assert children
    await until(lambda: not any(is_alive(int(child)) for child in children))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - another process's state.
        await asyncio.sleep(0.02)


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
