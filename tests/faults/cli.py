"""Faults of a CLI: what its client sees of them, and that nothing of it is left."""

import asyncio
import signal

import psutil

from tests.faults.entries import Entry, claude
from tests.faults.fault import fault
from tests.faults.house import House

_MEGABYTE = 1024 * 1024


def chat_with(ill: Entry, name: str, sees: str) -> None:
    """A row that is one chat with this runner."""

    @fault(name, sees=sees, runners={"ill": ill})
    async def chat(house: House) -> str:
        return await house.chat("ill")


def kill_amid_chat_with(ill: Entry, name: str, sees: str) -> None:
    """A row whose CLI is killed in the middle of its answer."""

    @fault(name, sees=sees, runners={"ill": ill})
    async def killed(house: House) -> str:
        async with await house.begun("ill") as chat:
            [worker] = await house.workers("busy")
            psutil.Process(worker["pid"]).send_signal(signal.SIGKILL)
            return await chat.seen()


def flood(kind_of_fault: str, full: int, name: str, *, limit: int, sees: str, slow: str) -> None:
    """A row whose CLI writes so many megabytes, and the daemon may grow by so many."""
    runners = {"full": claude(kind_of_fault, order={"megabytes": full}), "short": claude(kind_of_fault)}

    @fault(name, sees=f"{sees}, and the daemon's memory stays bounded", runners=runners, slow=slow)
    async def flooded(house: House) -> str:
        before = most = house.process.memory_info().rss
        chat = asyncio.create_task(house.chat("full" if house.is_full else "short"))
        while not chat.done():
            most = max(most, house.process.memory_info().rss)
            await asyncio.wait([chat], timeout=0.05)
        grown = (most - before) // _MEGABYTE
        verdict = "stays bounded" if grown < limit else f"grows by {grown} MB"
        return f"{chat.result()}, and the daemon's memory {verdict}"


kill_amid_chat_with(claude(), "CLI killed mid-stream", "error process_exited (SIGKILL) behind 1 text chunk")
chat_with(
    claude("deaf", timeouts={"spawn_s": 1}),
    "CLI hangs from its start",
    "error timeout (spawn_s)",
)
chat_with(
    claude("hang", timeouts={"first_chunk_s": 1}),
    "CLI hangs before the first chunk",
    "error timeout (first_chunk_s)",
)
chat_with(
    claude("silent", timeouts={"silence_s": 2}),
    "CLI goes silent mid-stream",
    "error timeout (silence_s) behind 1 text chunk",
)
chat_with(
    claude("ignore_term", timeouts={"silence_s": 2}),
    "CLI goes silent mid-stream and ignores SIGTERM",
    "error timeout (silence_s) behind 1 text chunk",
)
chat_with(
    claude("stay"),
    "CLI stays after its answer: it ignores the end of its input, and SIGTERM",
    "the whole answer",
)
chat_with(claude("grandchild"), "CLI leaves a grandchild in its group", "the whole answer")
chat_with(
    claude("grandchild_of_its_own"),
    "CLI leaves a grandchild in a session of its own",
    "the whole answer",
)
chat_with(
    claude("grandchild_with_stdout"),
    "CLI leaves a grandchild in a session of its own that keeps its stdout open",
    "the whole answer",
)
kill_amid_chat_with(
    claude("grandchild_with_stdout"),
    "CLI killed mid-stream while a grandchild in a session of its own keeps its stdout open",
    "error process_exited (SIGKILL) behind 1 text chunk",
)
flood(
    "stderr_flood",
    1024,
    "CLI floods stderr with 1 GB",
    limit=50,
    sees="the whole answer",
    slow="a gigabyte goes through a pipe",
)
chat_with(claude("garbage"), "CLI writes garbage", "the whole answer")
chat_with(
    claude("half_line"),
    "CLI writes half a line, then ends its output",
    "error process_exited (exit code 0) behind 1 text chunk",
)
flood(
    "huge_line",
    200,
    "CLI writes a line of 200 MB",
    limit=200,
    sees="error line_too_long",
    slow="the cap of 64 MiB has to be reached",
)


@fault(
    "CLI never reads its input while a prompt of 5 MB is sent",
    sees="error timeout (first_chunk_s)",
    runners={"ill": claude("deaf_to_turns", timeouts={"first_chunk_s": 1})},
)
async def never_reads(house: House) -> str:
    return await house.chat("ill", "x" * 5_000_000)


chat_with(claude("exit_zero_before"), "CLI exits 0 without a word", "error process_exited (exit code 0)")
chat_with(
    claude("exit_zero"),
    "CLI exits 0 mid-stream, with no result",
    "error process_exited (exit code 0) behind 1 text chunk",
)
chat_with(claude("exit_after"), "CLI exits with 5 after a complete answer", "the whole answer")
