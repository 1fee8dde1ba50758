"""What is asked of which seed, and what comes first."""

from tests.evidence.tiny import tiny_plan
from tests.support.result_lines import line
from vggbn.claims import results
from vggbn.evidence.agenda import SIZE, Question, blocks, data_sets, looks, questions, seeds_done
from vggbn.experiment.find import experiment_names, find_experiment
from vggbn.machine import provenance
from vggbn.runs import run as runs

HERE = provenance.cpu_setting(1)


def write(plan, done, setting=HERE):
    """A line for each (arm, seed) of today's code."""
    for name, seed in done:
        recipe = plan.variants[name]
        code = {"code": runs.code(recipe)}
        found = line(name, seed, id=recipe.id, setting=setting | code)
        results.append(plan.results_path, found)


def asked(plan) -> list[tuple]:
    """(claim, seed, arms) of each block, in order."""
    found = {plan.folder: plan.found(HERE)}
    return [(b.question.claim.id, b.seed, b.arms) for b in blocks(questions(plan), found)]


def test_a_question_asks_for_its_judge_s_arms_and_the_baseline(tmp_path):
    found = {q.claim.id: q.arms for q in questions(tiny_plan(tmp_path))}
    assert found == {
        "T-1": ("start", "plain", "slow"),
        "T-2": ("start", "plain", "long"),
        "T-3": ("start", "plain", "fast"),
        "T-4": ("start", "plain", "slow", "twice"),
    }


def test_the_verdict_s_data_are_the_claim_s_own_or_the_experiment_s(tmp_path):
    digits, mnist = (questions(tiny_plan(tmp_path, data=name)) for name in ("digits", "mnist5k"))
    assert [q.is_verdict for q in digits] == [True, True, True, False]
    assert [q.is_verdict for q in mnist] == [False, False, False, True]


def test_primary_claims_come_first_the_nearer_look_first_and_nothing_twice(tmp_path):
    plan = tiny_plan(tmp_path)
    first, *rest = asked(plan)
    assert first == ("T-3", 0, ("start", "plain", "fast"))  # T-2 costs more
    assert [(name, seed) for name, seed, _ in rest[:4]] == [("T-3", seed) for seed in range(1, 5)]
    assert rest[4:9] == [("T-2", seed, ("long",)) for seed in range(5)]
    # Then their next look, then what is secondary.
    assert [(name, seed) for name, seed, _ in rest[9:13]] == [
        ("T-3", 5), ("T-3", 6), ("T-2", 5), ("T-2", 6),
    ]  # fmt: skip
    assert rest[13] == ("T-1", 0, ("slow",))
    runs_asked = [(arm, seed) for _, seed, arms in asked(plan) for arm in arms]
    assert len(runs_asked) == len(set(runs_asked)) == 7 * 5


def test_what_is_there_is_not_asked_for_again(tmp_path):
    plan = tiny_plan(tmp_path)
    write(plan, [(arm, seed) for arm in ("start", "plain", "fast") for seed in range(5)])
    # T-3 has taken its first look, and T-2 comes to its own.
    assert asked(plan)[0] == ("T-2", 0, ("long",))
    write(plan, [(arm, seed) for arm in plan.variants for seed in range(7)])
    assert [arms for _, _, arms in asked(plan)] == [()] * 7  # only the views are left


def test_a_seed_that_another_machine_holds_in_part_is_begun_anew(tmp_path):
    plan = tiny_plan(tmp_path)
    other = HERE | {"device": "another"}
    write(plan, [("start", 0), ("slow", 0)], other)
    write(plan, [("start", 1), ("plain", 1), ("fast", 1)], other)
    found = {seed: arms for name, seed, arms in asked(plan) if name == "T-3"}
    assert found[0] == ("start", "plain", "fast", "slow")  # with what the other has, or it counts
    assert 1 not in found


def test_looks_are_those_of_the_rules(tmp_path):
    sizes = {n: [len(s) for s in looks(tiny_plan(tmp_path, seeds=n))] for n in (3, 5, 7, 20, 25)}
    assert sizes == {3: [3], 5: [5], 7: [5, 7], 20: [5, 10, 20], 25: [5, 10, 20, 25]}


def test_done_are_seeds_with_all_arms(tmp_path):
    plan = tiny_plan(tmp_path)
    write(plan, [("start", 0), ("plain", 0), ("fast", 0), ("start", 1), ("fast", 1)])
    third = next(q for q in questions(plan) if q.claim.id == "T-3")
    assert isinstance(third, Question)
    assert seeds_done(third, plan.found(HERE)) == 1


def test_every_judged_claim_of_ours_is_a_question_on_its_primary_data():
    for experiment in map(find_experiment, experiment_names()):
        if SIZE in getattr(experiment, "sizes", {}):
            sets = data_sets(experiment)
            assert len(sets) == len(set(sets))
            for claim in experiment.claims:
                assert claim.judge is None or not claim.primary or claim.primary in sets
