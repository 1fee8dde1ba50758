"""What a person sees while runs are trained."""

import io
import re
import shutil

import pytest

from tests.support.result_lines import diverged, line
from vggbn.runs.progress import WINDOW, Progress, duration, shortened


class Terminal(io.StringIO):
    def isatty(self):
        return True


STEPS = {"base seed 0": 100, "a longer name seed 1": 300}


@pytest.fixture
def stream():
    return io.StringIO()


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(stream, clock):
    return Progress(STEPS, 32, stream, clock)


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


LONG = "a longer name seed 1"


def heartbeat(step, loss=0.25):
    return {"step": step, "train_loss": loss}


def test_the_live_line_counts_steps_rate_and_time_left(progress, clock):
    progress.finished("base seed 0", line())
    progress.report(LONG, heartbeat(0))
    clock.now += 10
    progress.report(LONG, heartbeat(100, 0.5) | {"val_accuracy": 0.931})
    assert progress.line() == (
        "1/2 runs, 320 images/s, 0:20 left | "
        "a longer name seed 1 at 100 of 300, loss 0.5, val 93.1 %"
    )


def test_a_heartbeat_keeps_the_last_validation_accuracy(progress, clock):
    progress.report(LONG, heartbeat(100, 0.5))
    assert "val" not in progress.line()
    progress.report(LONG, record(100, 0.931))
    clock.now += 1
    progress.report(LONG, heartbeat(110, 0.125))
    assert progress.line().endswith("at 110 of 300, loss 0.125, val 93.1 %")


def test_steps_of_an_earlier_process_are_not_in_the_rate(progress, clock):
    """A resumed run reports step 200 first: those 200 were made before."""
    progress.report(LONG, heartbeat(200))
    assert "0 images/s, ? left" in progress.line()
    clock.now += 10
    progress.report(LONG, heartbeat(250))
    # 50 steps in 10 s; 50 of this run and 100 of the other are left.
    assert "160 images/s, 0:30 left" in progress.line()


def test_a_resumed_run_beside_another_is_no_burst(progress, clock):
    progress.report(LONG, heartbeat(0))
    clock.now += 10
    progress.report("base seed 0", heartbeat(90))
    progress.report(LONG, heartbeat(10))
    assert progress.rate() == pytest.approx(1)


def test_a_found_run_says_nothing_of_the_rate(progress, clock):
    clock.now += 1
    progress.finished(LONG, line())
    assert "1/2 runs, 0 images/s, ? left" in progress.line()


def test_the_rate_is_that_of_the_last_half_minute(progress, clock):
    progress.report(LONG, heartbeat(0))
    for step in range(1, 11):  # 1 step in 10 s each
        clock.now += 10
        progress.report(LONG, heartbeat(step))
    for step in range(20, 60, 10):  # then 10 in 10 s: the first is the way out of the slow ones
        clock.now += 10
        progress.report(LONG, heartbeat(step))
    assert progress.rate() == pytest.approx(1.0)
    assert WINDOW == 30


def test_reports_rarer_than_the_window_have_a_rate_too(progress, clock):
    for step in (0, 100, 300):
        clock.now += 100
        progress.report(LONG, heartbeat(step))
    assert progress.rate() == pytest.approx(2.0)


def test_a_run_that_is_begun_again_makes_no_negative_rate(progress, clock):
    for step in (100, 200, 120, 130):
        progress.report(LONG, heartbeat(step))
        clock.now += 10
    assert progress.rate() == pytest.approx(110 / 30)
    assert "at 130 of 300" in progress.line()


def test_the_time_before_the_first_report_is_not_in_the_rate(progress, clock):
    clock.now += 20  # compilation
    progress.report(LONG, heartbeat(1))
    clock.now += 1
    progress.report(LONG, heartbeat(11))
    assert progress.rate() == pytest.approx(10)


def test_a_loss_that_is_not_a_number_is_shown(progress):
    progress.report(LONG, heartbeat(5, float("nan")))
    assert "loss nan" in progress.line()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (250, "4:10"), (3850, "1:04:10")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_line_is_cut_to_a_width():
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
    assert shortened("abc", 0) == "…"


def test_the_live_line_fits_the_terminal_and_a_log_is_not_cut(monkeypatch, stream, clock):
    monkeypatch.setenv("COLUMNS", "40")
    assert shutil.get_terminal_size().columns == 40
    terminal = Terminal()
    for progress in (Progress(STEPS, 32, terminal, clock), Progress(STEPS, 32, stream, clock)):
        progress.report("base seed 0", heartbeat(10))
        progress.report(LONG, heartbeat(200) | {"val_accuracy": 0.5})
    lines = [text for text in terminal.getvalue().split("\r\033[K") if "left" in text]
    assert lines and all(len(text) < 40 and text.endswith("…") for text in lines)
    assert "at 10 of 100, loss 0.25" in stream.getvalue()


def test_a_finished_run_leaves_the_live_line(progress):
    progress.report("base seed 0", record(50))
    assert "base seed 0" in progress.line()
    progress.finished("base seed 0", line())
    assert "base seed 0" not in progress.line()


def test_a_terminal_has_one_live_line_that_is_wiped(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
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
