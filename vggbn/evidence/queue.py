"""The queue at work: round by round the blocks that come first and fit into what time is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vggbn.claims.looks import LOOKS
from vggbn.claims.results import Results
from vggbn.claims.stats import Judgement
from vggbn.data.readers import open_set
from vggbn.errors import UserError
from vggbn.evidence.agenda import Block, Question, blocks, looks, questions, seeds_done
from vggbn.evidence.pace import Pace
from vggbn.experiment.missing import train_missing, view_missing
from vggbn.experiment.plan import Plan
from vggbn.experiment.summary import judge
from vggbn.jobs.pool import Engine, OutOfTime
from vggbn.report.words import counted
from vggbn.runs.place import Store

MARGIN = 20.0  # seconds before the end at which runs are stopped, which then save their steps
Say = Callable[[str], None]


class Sheet:
    """A plan and the store of its runs; as of the last reading of its results file, what that holds
    (found), how long runs take (pace), and the verdicts, {claim: row}."""

    found: Results
    rows: dict[str, Judgement]

    def __init__(self, plan: Plan, store: Store, setting: dict):
        self.plan, self.store, self.pace = plan, store, Pace(plan, setting)
        self.read(setting)

    def read(self, setting: dict) -> None:
        """Read the results file anew, and judge what it holds."""
        self.found = self.plan.found(setting)
        self.rows = {row.claim: row for row in judge(self.plan, self.found)}
        self.pace.update()


@dataclass
class Queue:
    """The questions, and a sheet for each plan, by its folder.

    stores: one for each folder of data; a plan takes the first in which its data are. at_once():
    how many runs are trained at a time.
    """

    stores: Sequence[Store]
    setting: dict
    at_once: Callable[[], int]
    questions: list[Question] = field(default_factory=list)
    sheets: dict[Path, Sheet] = field(default_factory=dict)

    def add(self, plan: Plan) -> None:
        """Its questions. UserError: its data are not here."""
        store = _where_its_data_are(plan, self.stores)
        self.questions += questions(plan)
        self.sheets[plan.folder] = Sheet(plan, store, self.setting)

    def update(self, plan: Plan) -> None:
        """What its results file holds now."""
        self.sheets[plan.folder].read(self.setting)

    def blocks(self) -> list[Block]:
        """What more runs would decide, what comes first first."""
        open = [question for question in self.questions if not self.refusal(question)]
        return blocks(open, {folder: s.found for folder, s in self.sheets.items()})

    def refusal(self, question: Question) -> str:
        """Why its gate refuses to decide, once there are the seeds of a look; else empty. More
        seeds of the same protocol would not change it."""
        if self.done(question) < LOOKS[0]:
            return ""
        row = self.judged(question)
        return row.detail if row.verdict == "not tested" else ""

    def judged(self, question: Question) -> Judgement:
        """Its row of the verdict table, as of now."""
        return self.sheets[question.plan.folder].rows[question.claim.id]

    def seconds(self, block: Block) -> list[float] | None:
        return self.sheets[block.question.plan.folder].pace.seconds(block)

    def done(self, question: Question) -> int:
        return seeds_done(question, self.sheets[question.plan.folder].found)


def _where_its_data_are(plan: Plan, stores: Sequence[Store]) -> Store:
    """UserError of the last one, if none has them."""
    for store in stores[:-1]:
        with suppress(UserError):
            open_set(plan.base.data, store.data_dir, plan.base.damaged)
            return store
    open_set(plan.base.data, stores[-1].data_dir, plan.base.damaged)
    return stores[-1]


def work_off(queue: Queue, engine: Engine, until: float | None, say: Say) -> int:
    """Do what is missing, until time.monotonic() gets there; returns how many runs failed.

    What a round leaves undone is not begun again.
    """
    failures, tried = 0, set()
    while chosen := choose(_fresh(queue.blocks(), tried), queue.seconds, queue.at_once(), until):
        plan = chosen[0].question.plan
        tried |= {(block.question.name, block.seed) for block in chosen}
        before = {question.name: queue.done(question) for question in queue.questions}
        say(f"\n{_round(chosen)}")
        try:
            failures += _do(queue, chosen, engine)
        except OutOfTime:
            say("The time is over; what was under way goes on from its last step next time.")
            return failures
        finally:
            queue.update(plan)
            for text in _looks_taken(queue, plan, before):
                say(text)
    return failures


def _fresh(every: Iterable[Block], tried: set[tuple[str, int]]) -> list[Block]:
    return [block for block in every if (block.question.name, block.seed) not in tried]


def choose(
    ordered: Sequence[Block],
    seconds: Callable[[Block], list[float] | None],
    workers: int,
    until: float | None,
) -> list[Block]:
    """The blocks of the next round: of one plan, as many as fit, in their order.

    A block of which nobody knows how long it takes is a round of its own: it tells.
    """
    left = math.inf if until is None else until - time.monotonic()
    chosen, total = [], 0.0
    for block in ordered if left > 0 else ():
        if chosen and block.question.plan is not chosen[0].question.plan:
            return chosen
        if (needed := seconds(block)) is None:
            return chosen or [block]
        if max((total + sum(needed)) / workers, max(needed, default=0.0)) <= left:
            chosen.append(block)
            total += sum(needed)
    return chosen


def _do(queue: Queue, chosen: Sequence[Block], engine: Engine) -> int:
    """Train and view what the blocks need."""
    plan = chosen[0].question.plan
    store = queue.sheets[plan.folder].store
    arms = [(name, block.seed) for block in chosen for name in block.arms]
    views = [(name, block.seed) for block in chosen for name in block.views]
    failed = train_missing(plan, store, arms, engine, queue.setting)
    return failed + view_missing(plan, store, views, engine)


def _round(chosen: Sequence[Block]) -> str:
    """What is about to be done, in words."""
    claims = dict.fromkeys(block.question.claim.id for block in chosen)
    runs = sum(len(block.arms) + len(block.views) for block in chosen)
    plan, seeds = chosen[0].question.plan, len({block.seed for block in chosen})
    return (
        f"{plan.experiment.title} on {plan.base.data}: {counted(runs, 'run')} of "
        f"{counted(seeds, 'seed')} for {', '.join(claims)}"
    )


def _looks_taken(queue: Queue, plan: Plan, before: dict[str, int]) -> list[str]:
    """The verdicts of the looks that the questions of the plan have come to since."""
    texts = []
    for question in (q for q in queue.questions if q.plan is plan):
        now = queue.done(question)
        taken = [len(seeds) for seeds in looks(plan) if before[question.name] < len(seeds) <= now]
        if taken:
            last = "" if taken[-1] == len(plan.seeds) else ", provisional"
            row = queue.judged(question)
            why = f": {row.detail}" if row.verdict == "not tested" else last
            texts.append(f"look at {taken[-1]} seeds: {question.name}: {row.verdict}{why}")
    return texts


# --- what it says ---------------------------------------------------------------------------------


def overview(queue: Queue) -> str:
    """A line a question, what is settled first, then in the order of the agenda; and what all of
    them still need."""
    every = queue.blocks()
    first = {b.question.name: i for i, b in reversed(list(enumerate(every)))}
    last = lambda q: -1 if _settled(queue, q) else len(every)  # noqa: E731
    rows = sorted(queue.questions, key=lambda q: first.get(q.name, last(q)))
    width = max(len(q.name) for q in rows) if rows else 0
    lines = [f"  {q.name:{width}}  {_state(queue, q, every)}" for q in rows]
    return "\n".join([*lines, _left(queue, every)])


def _state(queue: Queue, question: Question, every: Sequence[Block]) -> str:
    """`5 of 20 seeds, next look at 10: 0.4 h`."""
    done, planned = queue.done(question), len(question.plan.seeds)
    if settled := _settled(queue, question):
        return f"{done} of {planned} seeds{settled}"
    look = next(n for n in (*LOOKS, planned) if n > done)
    mine = [block for block in every if block.question is question]
    needs = _hours(queue, mine) if mine else "by the runs of other claims"
    return f"{done} of {planned} seeds, next look at {min(look, planned)}: {needs}"


def _settled(queue: Queue, question: Question) -> str:
    """Why no more seeds are wanted; empty if some are."""
    if why := queue.refusal(question):
        return f"; more decide nothing: {why}"
    return ", all looks taken" if queue.done(question) >= len(question.plan.seeds) else ""


def _hours(queue: Queue, some: Sequence[Block]) -> str:
    """Hours of one process, in words; they say so where some of it is not known."""
    known = [needed for block in some if (needed := queue.seconds(block)) is not None]
    if not known and some:
        return "not timed here yet"
    hours = sum(map(sum, known)) / 3600
    return f"{hours:.2g} h" + ("" if len(known) == len(some) else " and what is not timed here yet")


def _left(queue: Queue, every: Sequence[Block]) -> str:
    """The last line."""
    if not every:
        return "Nothing is missing."
    return f"All of it: {_hours(queue, every)} of a process on {queue.setting['device']}."


def add_all(queue: Queue, plans: Iterable[Plan], say: Say) -> None:
    """Each plan whose data are here; of the others the reason, once."""
    reasons: dict[str, list[str]] = {}
    for plan in plans:
        try:
            queue.add(plan)
        except UserError as error:
            reasons.setdefault(str(error), []).append(plan.experiment.name)
    for reason, names in reasons.items():
        say(f"left out, {', '.join(names)}: {reason}")
