"""What a person sees while runs are trained."""

import io
import re

import pytest

from tests.result_lines import diverged, line
from vggbn.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


STEPS = {"base seed 0": 100, "a longer name seed 1": 300}


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def progress(stream):
    return Progress(STEPS, 32, stream)


def record(step, val_accuracy=0.5):
    return {"step": step, "val_accuracy": val_accuracy}


def test_the_head_and_the_rows_line_up(progress, stream):
    for name in STEPS:
        progress.finished(name, line(test=0.876))
    head, *rows = [text for text in stream.getvalue().splitlines() if "left" not in text]
    assert "val %" in head and "test %" in head
    assert len(rows) == 2
    ends = {row.index("87.6") + len("87.6") for row in rows}
    assert ends == {head.index("test %") + len("test %")}


def test_a_run_that_diverged_says_so(progress, stream):
    progress.finished("base seed 0", diverged(step=40))
    assert "diverged at step 40" in stream.getvalue()
    assert progress.close() == 0, "a diverged run is a result, not a failure"


def test_a_failure_is_told_and_counted(progress, stream):
    progress.failed("base seed 0", "Traceback: no memory")
    assert "FAILED\nTraceback: no memory" in stream.getvalue()
    assert progress.close() == 1


def test_the_live_line_counts_steps_rate_and_time_left(progress):
    progress.finished("base seed 0", line())
    progress.report("a longer name seed 1", record(100, 0.931))
    text = progress.line(progress.began + 10)
    assert text == (
        "1/2 runs, 640 images/s, 0:10 left | a longer name seed 1 at 100 of 300, val 93.1 %"
    )


def test_nothing_done_yet_divides_by_nothing(progress):
    assert "0 images/s, 0:00 left" in progress.line(progress.began)


def test_a_finished_run_leaves_the_live_line(progress):
    progress.report("base seed 0", record(50))
    assert "base seed 0" in progress.line(progress.began + 1)
    progress.finished("base seed 0", line())
    assert "base seed 0" not in progress.line(progress.began + 1)


def test_a_terminal_has_one_live_line_that_is_wiped():
    terminal = Terminal()
    progress = Progress(STEPS, 32, terminal)
    for step in (10, 20, 30):
        progress.report("base seed 0", record(step))
    progress.finished("base seed 0", line())
    progress.close()
    shown = terminal.getvalue()
    assert shown.count("at 10 of 100") == shown.count("at 20 of 100") == 1
    assert shown.endswith("\r\033[K")
    # What stays once every carriage return has wiped its line: the head and the row.
    rest = re.sub(r"[^\n]*\r\033\[K", "", shown)
    assert [text.split()[0] for text in rest.splitlines()] == ["run", "base"]


def test_a_log_gets_a_live_line_now_and_then(progress, stream):
    for step in range(50):
        progress.report("base seed 0", record(step))
    assert stream.getvalue().count("left |") <= 1
    assert "\r" not in stream.getvalue() and "\033" not in stream.getvalue()
