"""CliProcess with real children: pipes, backpressure, the close ladder."""

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from runners.errors import LineTooLongError, NotInstalledError, ProcessExitedError
from runners.wire.framing import LineFramer
from runners.wire.process import CliProcess, run
from tests.world import World

pytestmark = pytest.mark.usefixtures("no_leaks")


async def spawn(world: World, program: str, **options: Any) -> CliProcess:
    argv = [sys.executable, "-IS", "-c", program]
    temporary = tempfile.TemporaryDirectory(dir=world.state)
    return await CliProcess.spawn(argv, env=world.env, cwd=world.root, temporary=temporary, **options)


async def test_lines_arrive_as_they_are_and_the_end_is_none(world: World) -> None:
    process = await spawn(world, r"import sys; sys.stdout.buffer.write('a\r\nb\u2028c\n\nd'.encode())")
    assert [await process.read_line() for _ in range(3)] == [b"a\r", "b\u2028c".encode(), b""]
    assert await process.read_line() is None
    assert await process.wait() == 0
    await process.aclose()


async def test_the_child_leads_a_session_of_its_own_with_pipes_of_ours(world: World) -> None:
    program = "import os, stat; print(os.getsid(0) == os.getpid(), stat.S_ISFIFO(os.fstat(0).st_mode), os.getcwd())"
    process = await spawn(world, program)
    line = await process.read_line()
    assert line is not None
    assert line.decode().split() in (["True", "True", str(world.root)], ["True", "False", str(world.root)])
    await process.aclose()


async def test_its_tmpdir_is_its_own_and_goes_with_it(world: World) -> None:
    process = await spawn(world, "import os, time; print(os.environ['TMPDIR'], flush=True); time.sleep(3600)")
    line = await process.read_line()
    assert line is not None
    directory = Path(line.decode())
    assert directory.parent == world.state
    assert directory.is_dir()
    await process.aclose(ask=False)
    assert not directory.exists()


async def test_a_program_that_is_not_there_is_not_installed_and_leaves_nothing(world: World) -> None:
    temporary = tempfile.TemporaryDirectory(dir=world.state)
    with pytest.raises(NotInstalledError, match="/nonexistent"):
        await CliProcess.spawn(["/nonexistent"], env=world.env, cwd=world.root, temporary=temporary)
    assert not list(world.state.iterdir())


async def test_an_unread_child_is_stopped_by_its_pipe_and_loses_nothing(world: World) -> None:
    process = await spawn(world, "for n in range(400_000): print(n, 'x' * 50)")
    first = await process.read_line()
    assert first is not None
    # The child cannot have ended: its 20 MB do not fit into what is buffered on the way.
    assert process.returncode is None
    numbers = [0]
    while (line := await process.read_line()) is not None:
        numbers.append(int(line.split()[0]))
    assert numbers == list(range(400_000))
    await process.aclose()


async def test_what_an_exited_child_wrote_is_read_however_late(world: World) -> None:
    # More than our buffer holds, less than buffer and pipe together: the child can exit before we read.
    process = await spawn(world, "import sys; sys.stdout.write(('y' * 99 + chr(10)) * 11_000)")
    await process.wait()
    await asyncio.sleep(1.2)  # longer than the time after which a silent pipe of an exited child counts as ended
    count = 0
    while await process.read_line() is not None:
        count += 1
    assert count == 11_000
    await process.aclose()


async def test_a_line_over_the_cap_is_an_error_also_before_it_ends(world: World) -> None:
    process = await spawn(
        world, "import time; print('z' * 5000, end='', flush=True); time.sleep(3600)", framer=LineFramer(4096)
    )
    with pytest.raises(LineTooLongError, match="4096"):
        await process.read_line()
    await process.aclose(ask=False)


async def test_writing_to_a_child_that_is_gone_tells_how_it_ended(world: World) -> None:
    process = await spawn(world, "import sys; sys.stderr.write('no more'); sys.exit(7)")
    await process.wait()
    with pytest.raises(ProcessExitedError, match="code 7") as caught:
        await process.write(b"x" * 1_000_000)
    assert (caught.value.exit_code, caught.value.stderr_tail) == (7, "no more")
    await process.aclose()


async def test_a_child_that_leaves_at_the_end_of_its_input_is_not_killed(world: World) -> None:
    process = await spawn(world, "import sys; sys.stdin.read(); sys.exit(5)")
    await process.aclose()
    assert process.returncode == 5


async def test_a_child_that_ignores_everything_is_killed(world: World) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(3600)"
    process = await spawn(world, program)
    assert await process.read_line() == b""
    await asyncio.gather(process.aclose(), process.aclose())
    assert process.returncode == -signal.SIGKILL


async def test_a_cancelled_close_still_closes(world: World) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(3600)"
    process = await spawn(world, program)
    assert await process.read_line() == b""
    closing = asyncio.create_task(process.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert closing.cancelled()
    await process.aclose()
    assert process.returncode == -signal.SIGKILL


_GRANDCHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session={leaves})
print(child.pid, flush=True)
{then}
"""


async def test_a_grandchild_in_the_group_dies_with_its_parent(world: World) -> None:
    process = await spawn(world, _GRANDCHILD.format(leaves=False, then="sys.stdin.read()"))
    line = await process.read_line()
    assert line is not None
    await process.aclose()
    # Killed, it is gone as soon as its new parent has taken note of it.
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(line)).wait(timeout=10)


async def test_a_grandchild_that_holds_the_pipes_does_not_hold_us(world: World) -> None:
    process = await spawn(world, _GRANDCHILD.format(leaves=True, then=""))
    line = await process.read_line()
    assert line is not None
    # The pipe is open, its writer is not ours any more: the end is seen all the same.
    assert await process.read_line() is None
    await process.aclose()
    os.kill(int(line), signal.SIGKILL)


async def test_a_flood_of_empty_lines_is_stopped_by_its_pipe_too(world: World) -> None:
    process = await spawn(world, "import sys\nwhile True: sys.stdout.write(chr(10) * 65536)")
    assert await process.read_line() == b""
    before = psutil.Process().memory_info().rss
    for _ in range(1_000_000):
        assert await process.read_line() == b""
    assert psutil.Process().memory_info().rss - before < 100 * 1024 * 1024
    await process.aclose(ask=False)


async def test_run_gives_the_output_and_the_exit_code(world: World) -> None:
    program = "import sys; print('out'); print('more', end=''); sys.stderr.write('err'); sys.exit(4)"
    finished = await run([sys.executable, "-c", program], env=world.env, cwd=world.root)
    assert (finished.exit_code, finished.output, finished.stderr_tail) == (4, b"out\nmore", "err")


async def test_a_flood_instead_of_a_short_answer_is_an_error(world: World) -> None:
    with pytest.raises(LineTooLongError, match="cap of 1048576"):
        await run([sys.executable, "-c", "while True: print('version' * 1000)"], env=world.env, cwd=world.root)


async def test_a_cancelled_run_leaves_no_process(world: World) -> None:
    started = world.root / "started"
    os.mkfifo(started)
    program = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(3600)"
    argv = [sys.executable, "-c", program, str(started)]
    running = asyncio.create_task(run(argv, env=world.env, cwd=world.root))
    await asyncio.to_thread(started.read_bytes)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert not world.processes()
