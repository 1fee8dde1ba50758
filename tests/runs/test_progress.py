"""What a person sees while runs are trained."""

import io
import re

import pytest

from tests.support.result_lines import diverged, line
from vggbn.runs.progress import WINDOW, Progress, duration


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


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 60 columns, in which a live table is drawn."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def drawn(terminal):
    """The lines that a terminal was sent, without the codes that move its cursor."""
    text = re.sub(r"\033\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]+", text)]


def test_a_terminal_gets_a_table_that_is_no_wider_than_it(screen, clock):
    name = "base+all-photometric_distortion and a great deal more seed 1"
    progress = Progress({"bn seed 0": 1200, name: 1200}, 32, screen, clock)
    progress.started("bn seed 0")
    progress.report(name, heartbeat(310, 0.21) | {"val_accuracy": 0.931})
    progress.screen.live.refresh()
    progress.finished(name, line())
    progress.close()
    lines = drawn(screen)
    assert max(map(len, lines)) <= 60
    (row,) = {text for text in lines if "310 of 1,200" in text}
    assert re.search(r"^base\+all-.*…\s+310 of 1,200\s+0\.21\s+93\.1$", row), row
    assert any(re.search(r"^bn seed 0\s+compiling for 0:00$", text) for text in lines)
    (kept,) = {text for text in lines if "90.0" in text}
    assert kept.startswith("base+all-") and "…" in kept


def test_the_clock_of_a_run_that_compiles_goes_on_by_itself(screen, clock):
    progress = Progress(STEPS, 32, screen, clock)
    progress.started("base seed 0")
    clock.now += 22
    progress.screen.live.refresh()  # as its own thread does, four times a second
    progress.close()
    assert any("compiling for 0:22" in text for text in drawn(screen))


def test_a_log_is_told_at_once_that_a_run_compiles(progress, stream):
    progress.started(LONG)
    assert "0/2 runs, 0 images/s, ? left | a longer name seed 1 compiling for 0:00" in (
        stream.getvalue()
    )


def test_a_log_is_not_cut(monkeypatch, stream, clock):
    monkeypatch.setenv("COLUMNS", "40")
    progress = Progress(STEPS, 32, stream, clock)
    progress.report(LONG, heartbeat(200) | {"val_accuracy": 0.5})
    assert "a longer name seed 1 at 200 of 300, loss 0.25, val 50.0 %" in stream.getvalue()


@pytest.mark.parametrize("why", ["dumb", "debugger"])
def test_some_terminals_get_plain_lines(screen, clock, monkeypatch, why):
    if why == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    progress = Progress(STEPS, 32, screen, clock, live=why != "debugger")
    progress.started(LONG)
    progress.close()
    assert "\033" not in screen.getvalue() and "compiling" in screen.getvalue()


def test_a_run_that_is_begun_again_compiles_again(progress, clock):
    progress.report(LONG, heartbeat(200))
    progress.started(LONG)
    assert "compiling" in progress.line()
    clock.now += 10
    progress.report(LONG, heartbeat(100))
    assert progress.rate() == 0 and "at 100 of 300" in progress.line()


def test_a_pause_in_which_all_compile_is_not_in_the_rate(progress, clock):
    progress.started(LONG)
    for step in (0, 100):
        progress.report(LONG, heartbeat(step))
        clock.now += 10
    progress.finished(LONG, line())
    progress.started("base seed 0")
    clock.now += 60
    progress.report("base seed 0", heartbeat(0))
    assert progress.rate() == pytest.approx(10)
    clock.now += 10
    progress.report("base seed 0", heartbeat(50))
    assert progress.rate() == pytest.approx(150 / 20)


def test_one_run_is_no_runs(stream, clock):
    assert Progress({"base seed 0": 10}, 32, stream, clock).head().startswith("0/1 run, ")


def test_a_run_whose_steps_are_made_waits_for_its_scores(progress):
    progress.report("base seed 0", heartbeat(100))
    assert "base seed 0 final scores, loss" in progress.line()


def test_a_finished_run_leaves_the_live_line(progress):
    progress.report("base seed 0", record(50))
    assert "base seed 0" in progress.line()
    progress.finished("base seed 0", line())
    assert "base seed 0" not in progress.line()


def test_a_terminal_keeps_the_rows_and_wipes_the_table(screen, clock):
    progress = Progress(STEPS, 32, screen, clock)
    for step in (10, 20, 30):
        progress.report("base seed 0", record(step))
    progress.finished("base seed 0", line())
    progress.screen.live.refresh()
    assert "base seed 0" not in progress.line()
    progress.close()
    # What a terminal still shows: rows above the cursor are erased by "one up, erase the line".
    rows = [""]
    for part in re.findall(
        r"\033\[1A|\033\[2K|\r|\n|\033\[[0-9;?]*[A-Za-z]|[^\033\r\n]+", screen.getvalue()
    ):
        if part == "\n":
            rows.append("")
        elif part == "\033[1A":
            rows.pop()
        elif part == "\033[2K":
            rows[-1] = ""
        elif part[0] not in "\033\r":
            rows[-1] += part
    assert [text.split()[0] for text in rows if text.strip()] == ["run", "base"]


def test_a_log_gets_a_live_line_now_and_then(progress, stream):
    for step in range(50):
        progress.report("base seed 0", record(step))
    assert stream.getvalue().count("left |") <= 1
    assert "\r" not in stream.getvalue() and "\033" not in stream.getvalue()
