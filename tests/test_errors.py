"""What a command says where it ends: one sentence, and nothing of what comes late."""

import subprocess
import sys

from tests.conftest import ROOT

# TensorStore's thread tells an event loop that is closed, as after a save that failed.
LATE = """
import asyncio, time
import tensorstore
from vggbn.errors import UserError, exit_with

def work():
    promise, future = tensorstore.Promise.new()
    loop = asyncio.new_event_loop()

    async def begin():
        asyncio.ensure_future(wait())
        await asyncio.sleep(0.01)

    async def wait():
        await future

    loop.set_exception_handler(lambda loop, context: None)
    loop.run_until_complete(begin())
    loop.close()
    promise.set_result(1)
    time.sleep(0.2)
    raise UserError("the disk is full.")
"""


def stderr_of(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", LATE + code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return run.stderr


def test_a_callback_that_comes_late_is_not_told():
    assert "Event loop is closed" in stderr_of("try: work()\nexcept UserError: pass")
    assert stderr_of("exit_with(work)") == "error: the disk is full.\n"


def test_other_errors_that_nobody_can_catch_are_told():
    silent = "class Bad:\n    def __del__(self): raise ValueError('lost')\n"
    told = stderr_of(f"{silent}exit_with(lambda: Bad() and None)")
    assert "ValueError: lost" in told
