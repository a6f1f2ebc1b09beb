"""Faults of the machine: nothing can be written, no descriptors are left, programs vanish, the clock jumps.

A daemon that is given such a machine is started behind a wrapper: a program that makes it so and executes the rest of
its command line.
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import psutil

from tests.faults.chat import Chat, error_in_words
from tests.faults.entries import claude, echo, program
from tests.faults.fault import fault
from tests.faults.house import House
from tests.programs import GATED
from tests.world import until, user

_EXECUTE = "os.execv(sys.argv[1], sys.argv[1:])"

_BOUND_BY_MODES = f"""
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
if os.getuid() == 0:
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            sys.exit("this root cannot give up its rights")
{_EXECUTE}
"""
"""Even root may do no more than the modes of files allow."""

_FULL_LOG = f"""
import os, sys
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
{_EXECUTE}
"""
"""Every write to the log fails with ENOSPC."""

_NO_FILE_GROWS = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
{_EXECUTE}
"""
"""Every write that makes a file longer fails, with EFBIG in the place of ENOSPC; directories and pipes are well."""

_DESCRIPTORS = 64
_FEW_DESCRIPTORS = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({_DESCRIPTORS}, {_DESCRIPTORS}))
{_EXECUTE}
"""

_JUMPING_CLOCK = """
import datetime, itertools, runpy, sys, time

right, jumps = time.time, itertools.cycle([0, 3, -30, 400, -2])
time.time = lambda: right() + 86400 * next(jumps)

class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

datetime.datetime = Jumping
sys.argv = sys.argv[3:]
runpy.run_module("runnerd", run_name="__main__", alter_sys=True)
"""
"""Runs the daemon in this very process; the wall clock jumps by days at every look, the monotonic one is right."""


def wrapper(source: str) -> list[str]:
    return [sys.executable, "-c", source]


@fault(
    "state directory is read-only",
    sees="said in the log; echo: the whole answer; claude: error config that names the directory",
    runners={"echo": echo(), "claude": claude()},
)
async def read_only(house: House) -> str:
    state = house.world.state / "runnerd"
    for name in house.entries:  # their stable directories are there then
        await house.chat(name)
    await house.stop()
    directories = [state, *(path for path in state.rglob("*") if path.is_dir())]
    for path in directories:
        path.chmod(0o500)
    try:
        await house.start(*wrapper(_BOUND_BY_MODES))
        echoed = await house.chat("echo")
        async with await house.wire() as wire:
            error = (await wire.call("chat", model="claude", messages=user("Hi")))["error"]
    finally:
        for path in directories:
            path.chmod(0o700)
    warnings = [str(event) for event in house.daemon.log if event.get("level") == "warning"]
    said = "said" if any(str(state) in warning for warning in warnings) else "not said"
    is_named = str(state / "runners" / "claude") in error["message"]
    how = "that names the directory" if is_named else f"({error['message']})"
    await house.restart()
    return f"{said} in the log; echo: {echoed}; claude: error {error_in_words(error)} {how}"


@fault(
    "disk full while logging (the log is /dev/full)",
    sees="the whole answer; the daemon exits with 0",
    runners={"echo": echo()},
)
async def full_log(house: House) -> str:
    await house.restart(*wrapper(_FULL_LOG))
    saw = await house.chat("echo")
    house.daemon.process.terminate()
    ended = await house.ends()
    await house.start()
    return f"{saw}; {ended}"


@fault(
    "disk full when the daemon starts and while it writes leases (no file may grow: RLIMIT_FSIZE is 0)",
    sees="echo: the whole answer; claude: the whole answer",
    runners={"echo": echo(), "claude": claude()},
)
async def full_disk(house: House) -> str:
    await house.restart(*wrapper(_NO_FILE_GROWS))
    saw = f"echo: {await house.chat('echo')}; claude: {await house.chat('claude')}"
    await house.restart()
    return saw


@fault(
    "out of file descriptors: twice as many clients as it has",
    sees="meanwhile error process_exited; the daemon waits idle; afterwards the whole answer",
    runners={"echo": echo()},
)
async def out_of_descriptors(house: House) -> str:
    await house.restart(*wrapper(_FEW_DESCRIPTORS))
    async with AsyncExitStack() as clients:
        first = await clients.enter_async_context(await house.wire())
        for _ in range(2 * _DESCRIPTORS):
            await clients.enter_async_context(await house.wire())

        async def exhausted() -> bool:
            return house.process.num_fds() >= _DESCRIPTORS - 1

        await until(exhausted)
        meanwhile = await Chat.ask(first, "echo", "Hi")
        saw = await meanwhile.seen()
        looked_s = house.sized(5, 1)
        logged = len(house.daemon.log)
        worked = await _share_of_a_core(house.process, looked_s)
        logged = len(house.daemon.log) - logged
    idles = worked < 0.2 and logged < 10 * looked_s
    work = "idle" if idles else f"with {worked:.0%} of a core and {logged} lines of log"
    await until(house.answers)
    afterwards = await house.chat("echo")
    await house.restart()
    return f"meanwhile {saw}; the daemon waits {work}; afterwards {afterwards}"


async def _share_of_a_core(process: psutil.Process, span_s: float) -> float:
    before = process.cpu_times()
    await asyncio.sleep(span_s)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / span_s


@fault(
    "CLI's binary replaced while it runs",
    sees="the running one: the answer 'so far, so good'; the next one: the answer 'new'",
    runners={"runner": program(GATED, warm=0)},
)
async def replaced(house: House) -> str:
    binary, gate = house.world.root / "runner", house.world.root / "runner.open"
    old = binary.read_text()
    chat = await house.begun("runner")
    _replace(
        binary, old.replace("so far", "new").replace(", so good", "").replace("not os.path.exists", "not True or not")
    )
    next_one = await house.chat("runner")
    gate.touch()
    async with chat:
        running = await chat.seen()
    gate.unlink()
    _replace(binary, old)
    return f"the running one: {running}; the next one: {next_one}"


def _replace(binary: Path, source: str) -> None:
    new = binary.with_name(f"{binary.name}.new")
    new.write_text(source)
    new.chmod(0o700)
    new.replace(binary)


@fault(
    "CLI's binary removed while it runs, then back again",
    sees="the running one: the answer 'so far, so good'; the next one: error not_installed; behind its return: "
    "the answer 'so far, so good'",
    runners={"runner": program(GATED, warm=0)},
)
async def removed(house: House) -> str:
    binary, gate = house.world.root / "runner", house.world.root / "runner.open"
    chat = await house.begun("runner")
    aside = binary.rename(binary.with_name("aside"))
    next_one = await house.chat("runner")
    gate.touch()
    async with chat:
        running = await chat.seen()
    aside.rename(binary)
    behind = await house.chat("runner")
    gate.unlink()
    return f"the running one: {running}; the next one: {next_one}; behind its return: {behind}"


@fault(
    "clock jumps by days back and forth",
    sees="the whole answer; of a silent CLI: error timeout (silence_s) behind 1 text chunk, in time; no age below 0",
    runners={"echo": echo(), "silent": claude("silent", timeouts={"silence_s": 2})},
)
async def jumping_clock(house: House) -> str:
    await house.restart(*wrapper(_JUMPING_CLOCK))
    saw = await house.chat("echo")
    began_s = asyncio.get_running_loop().time()
    silent = asyncio.create_task(house.chat("silent"))
    ages = []
    while not silent.done():
        async with await house.wire() as wire:
            health = (await wire.call("health"))["result"]["runners"]
        ages += [worker["age_s"] for worker in await house.workers()] + [row["age_s"] for row in health]
        await asyncio.wait([silent], timeout=0.1)
    took_s = asyncio.get_running_loop().time() - began_s
    when = "in time" if 2 <= took_s < 20 else f"after {took_s:.0f} s"
    below = [age for age in ages if age is not None and age < 0]
    await house.restart()
    return f"{saw}; of a silent CLI: {silent.result()}, {when}; {f'ages of {below}' if below else 'no age below 0'}"
