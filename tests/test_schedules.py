"Schedules, freezing plans and the epochs they spend, discriminative rates: by the paper's and the scripts' figures."
from types import SimpleNamespace

import pytest
import reference
from fastcore.script import CliError
from hypothesis import given, settings, strategies as st
from ulmfit.training.freezing import Phase, Unfreezing
from ulmfit.training.loop import Training, spans
from ulmfit.training.optimizers import Optimization, group_factors
from ulmfit.training.schedules import Schedule, cosine, one_cycle, slanted_triangular, trapezoidal

PLANS = ["full", "last", "gradual", "scripts", "chain_thaw"]
quick = settings(deadline=None, max_examples=100)


# --- slanted triangular rates ---

@pytest.mark.parametrize("t, rate", [(0, 0.0003125), (1, 0.00128125), (5, 0.00515625), (9, 0.00903125), (10, 0.01),
                                     (55, 0.00515625), (99, 0.000420139)])
def test_slanted_triangular_oracle(t, rate):
    "ulmfit.md, section 2.1: 100 steps, highest rate 0.01."
    assert 0.01 * slanted_triangular(t, 100) == pytest.approx(rate, abs=5e-10)


@quick
@given(tens=st.integers(1, 300), ratio=st.sampled_from([2, 8, 32]), data=st.data())
def test_slanted_triangular_is_the_papers_where_ten_divides_the_steps(tens, ratio, data):
    t = data.draw(st.integers(0, 10 * tens - 1))
    of_paper = reference.slanted_triangular(t, 10 * tens, 0.1, ratio)
    assert slanted_triangular(t, 10 * tens, 0.1, ratio) == pytest.approx(of_paper, abs=1e-9)


@quick
@given(total=st.integers(1, 5000), cut_frac=st.floats(0, 1), ratio=st.floats(1, 1000), data=st.data())
def test_slanted_triangular_stays_between_its_lowest_and_highest_rate(total, cut_frac, ratio, data):
    "Every number of steps, also those for which the paper's formula is negative or divides by zero."
    t = data.draw(st.integers(0, total - 1))
    assert 1 / ratio - 1e-9 <= slanted_triangular(t, total, cut_frac, ratio) <= 1 + 1e-9


@pytest.mark.parametrize("total", [19, 109, *range(1, 13)])
def test_slanted_triangular_where_the_papers_formula_fails(total):
    "Its rate is negative for 19 and 109 steps; below 10 it divides by zero. The peak is reached in each."
    rates = [slanted_triangular(t, total) for t in range(total)]
    assert min(rates) > 0 and max(rates) == 1


@quick
@given(total=st.integers(3, 500), cut_frac=st.floats(0.01, 0.9))
def test_slanted_triangular_rises_to_one_peak_and_falls(total, cut_frac):
    rates = [slanted_triangular(t, total, cut_frac) for t in range(total)]
    peak = rates.index(max(rates))
    assert rates[:peak + 1] == sorted(rates[:peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert peak == max(1, int(total * cut_frac))


# --- the other shapes ---

@quick
@given(total=st.integers(1, 1000), pct_start=st.floats(0.05, 0.95), div=st.floats(1, 100), div_final=st.floats(1, 1e6),
       data=st.data())
def test_one_cycle_is_its_closed_form(total, pct_start, div, div_final, data):
    t = data.draw(st.integers(0, total - 1))
    expected = reference.one_cycle(t / total, pct_start, 1 / div, 1 / div_final)
    assert one_cycle(t, total, pct_start, div, div_final) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("t, factor", [(0, 0.04), (125, 0.52), (250, 1), (625, 0.500005), (1000, 1e-5)])
def test_one_cycle_with_fastais_figures(t, factor):
    assert one_cycle(t, 1000) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("t, beta", [(0, 0.8), (125, 0.75), (250, 0.7), (625, 0.75), (1000, 0.8)])
def test_one_cycles_momentum_goes_the_other_way(t, beta):
    assert Schedule("one_cycle", beta1_low=0.7).momentum(t, 1000, high=0.8) == pytest.approx(beta, abs=1e-12)


@pytest.mark.parametrize("schedule", [Schedule("one_cycle"), Schedule("stlr", beta1_low=0.7)], ids=["high", "stlr"])
def test_momentum_is_constant_unless_it_is_cycled(schedule):
    assert {schedule.momentum(t, 10, high=0.8) for t in range(10)} == {0.8}


@pytest.mark.parametrize("t, factor", [(0, 1), (25, 0.8535533905932737), (50, 0.5), (100, 0)])
def test_cosine(t, factor): assert cosine(t, 100) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("t, factor", [(0, 0.1), (9, 1), (50, 1), (80, 1), (90, 0.5), (99, 0.05)])
def test_trapezoidal_by_hand(t, factor):
    assert trapezoidal(t, 100, cut_frac=0.1, decay=0.2) == pytest.approx(factor, abs=1e-12)


@given(total=st.integers(1, 500), cut_frac=st.floats(0, 0.5), decay=st.floats(0, 0.5), data=st.data())
def test_trapezoidal_is_positive_and_never_above_its_level(total, cut_frac, decay, data):
    assert 0 < trapezoidal(data.draw(st.integers(0, total - 1)), total, cut_frac, decay) <= 1


@pytest.mark.parametrize("schedule, factors", [
    (Schedule("trapezoidal", cut_frac=0.5, decay=0.5), [0.5, 1, 1, 0.5]),
    (Schedule("stlr", cut_frac=0.5, ratio=2), [0.5, 0.75, 1, 0.75]), (Schedule("constant"), [1, 1, 1, 1]),
    (Schedule("cosine"), [1, 0.8535533905932737, 0.5, 0.14644660940672627]),
    (Schedule("one_cycle", pct_start=0.5, div=2, div_final=4), [0.5, 0.75, 1, 0.625])])
def test_a_schedule_by_name_has_its_own_settings(schedule, factors):
    assert [schedule.factor(t, 4) for t in range(4)] == pytest.approx(factors, abs=1e-12)


# --- freezing plans ---

def trained(plan: str, epochs: int, groups: int = 5) -> list[list[int]]:
    "The groups that learn, epoch by epoch."
    return [p.trained(groups) for p in Unfreezing(epochs, plan).of(groups) for _ in range(p.epochs)]


def test_gradual_unfreezing_is_the_papers():
    "Last layer one epoch, then one more layer an epoch, until all; then to the end."
    assert trained("gradual", 7) == [[4], [3, 4], [2, 3, 4], [1, 2, 3, 4], *[[0, 1, 2, 3, 4]] * 3]


def test_gradual_unfreezing_ends_with_one_stretch_of_all_layers():
    "A phase has a schedule of its own."
    assert [p.epochs for p in Unfreezing(7, "gradual").of(5)] == [1, 1, 1, 1, 3]


def test_the_scripts_plan():
    "train_clas: last, last two, then all at once."
    assert trained("scripts", 5) == [[4], [3, 4], *[[0, 1, 2, 3, 4]] * 3]


def test_the_scripts_triangles():
    "ulmfit.md, section 2.2: use_clr (8,3) while frozen, (8,8) after, that is ratio 8, cut_frac 1/3 and 1/8."
    assert [(p.ratio, p.cut_frac) for p in Unfreezing(5, "scripts").of(5)] == [(8, 1 / 3), (8, 1 / 3), (8, 1 / 8)]


def test_chain_thaw_is_the_new_layer_then_each_alone_then_all():
    assert trained("chain_thaw", 8) == [[4], [0], [1], [2], [3], *[[0, 1, 2, 3, 4]] * 3]


def test_the_last_layer_alone(): assert trained("last", 3) == [[4]] * 3


def test_everything_at_once(): assert trained("full", 2) == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 6, 50])
def test_a_plan_spends_its_epochs_and_no_more(plan, epochs):
    "--epochs is all phases together, also where there are fewer than the plan has phases."
    phases = Unfreezing(epochs, plan).of(5)
    assert sum(p.epochs for p in phases) == epochs and all(p.epochs > 0 for p in phases)


def test_explicit_phases_win_over_a_plan():
    given_phases = [dict(last=1, epochs=2, lr=0.02), dict(only=0, ratio=8), dict(cut_frac=0.5)]
    phases = Unfreezing(99, "gradual", given_phases).of(5)
    assert phases == [Phase(2, last=1, lr=0.02), Phase(1, only=0, ratio=8), Phase(1, cut_frac=0.5)]
    assert [p.trained(5) for p in phases] == [[4], [0], [0, 1, 2, 3, 4]]


def test_more_layers_than_there_are_is_all_of_them(): assert Phase(last=9).trained(3) == [0, 1, 2]


def test_an_unknown_plan_is_refused_by_name():
    with pytest.raises(CliError, match="sideways.*gradual"): Unfreezing(1, "sideways").of(5)


def test_a_phase_with_an_unknown_setting_is_refused_by_name():
    with pytest.raises(CliError, match="learning_rate.*lr"): Unfreezing(phases=[dict(learning_rate=1)]).of(5)


# --- discriminative rates ---

def test_discriminative_rates_are_the_papers():
    "Each layer's rate is that of the layer above over 2.6; ulmfit.md, section 2.2, has the figures for 0.01."
    factors = group_factors(Optimization(discriminative=2.6), 5)
    assert [0.01 * f for f in factors] == pytest.approx([2.188e-4, 5.690e-4, 1.479e-3, 3.846e-3, 1e-2], rel=5e-4)
    assert [b / a for a, b in zip(factors, factors[1:])] == pytest.approx([2.6] * 4)


@pytest.mark.parametrize("groups, factors", [(2, [0.1, 1.0]), (5, [0.1] * 4 + [1.0])])
def test_the_first_of_fewer_factors_stands_for_all_groups_below(groups, factors):
    assert group_factors(Optimization(rates=[0.1, 1.0]), groups) == factors


def test_without_discriminative_rates_all_are_equal(): assert group_factors(Optimization(), 4) == [1, 1, 1, 1]


def test_explicit_rates_win():
    assert group_factors(Optimization(discriminative=2.6, rates=[1 / 6, 1 / 3, 1, 0.5]), 4) == [1 / 6, 1 / 3, 1, 0.5]


def test_too_many_explicit_rates_are_refused():
    with pytest.raises(CliError, match="5 factors.* 4 groups"): group_factors(Optimization(rates=[1] * 5), 4)


# --- epochs and the stretch of their schedule ---

def plan(sizes: list[int], phases: list[int], **how) -> list[tuple]:
    "(phase, epoch, first step, first step of the schedule, its steps) of each epoch; `sizes` are the epochs' steps."
    task, made = SimpleNamespace(steps=lambda epoch: sizes[epoch]), [Phase(n, last=i) for i, n in enumerate(phases)]
    return [(s.phase.last, s.epoch, s.start, s.schedule_start, s.schedule_steps)
            for s in spans(task, made, Training(**how))]


@pytest.mark.parametrize("how, expected", [
    (dict(), [(0, 0, 0, 0, 10), (1, 1, 10, 10, 23), (1, 2, 22, 10, 23)]),
    (dict(schedule_over="run"), [(0, 0, 0, 0, 33), (1, 1, 10, 0, 33), (1, 2, 22, 0, 33)]),
    (dict(max_steps=25), [(0, 0, 0, 0, 10), (1, 1, 10, 10, 15), (1, 2, 22, 10, 15)]),
    (dict(max_steps=25, schedule_over="run"), [(0, 0, 0, 0, 25), (1, 1, 10, 0, 25), (1, 2, 22, 0, 25)]),
    (dict(max_steps=10), [(0, 0, 0, 0, 10)]),
    (dict(max_steps=4), [(0, 0, 0, 0, 4)]),
    (dict(max_steps=4, schedule_over="run"), [(0, 0, 0, 0, 4)]),
    (dict(max_steps=99), [(0, 0, 0, 0, 10), (1, 1, 10, 10, 23), (1, 2, 22, 10, 23)]),
    (dict(max_steps=99, schedule_over="run"), [(0, 0, 0, 0, 33), (1, 1, 10, 0, 33), (1, 2, 22, 0, 33)])])
def test_spans_of_three_epochs_in_two_phases(how, expected):
    "Epochs of 10, 12 and 11 steps; the first phase has one of them."
    assert plan([10, 12, 11], [1, 2], **how) == expected


@quick
@given(phases=st.lists(st.integers(1, 3), min_size=1, max_size=4), max_steps=st.integers(0, 60),
       over=st.sampled_from(["phase", "run"]), data=st.data())
def test_each_schedule_runs_from_its_first_step_to_its_last(phases, max_steps, over, data):
    sizes = data.draw(st.lists(st.integers(1, 7), min_size=sum(phases), max_size=sum(phases)))
    end, visited = min(sum(sizes), max_steps or sum(sizes)), {}
    for phase, epoch, start, first, total in plan(sizes, phases, max_steps=max_steps, schedule_over=over):
        steps = range(start, min(end, start + sizes[epoch]))
        visited.setdefault((phase if over == "phase" else None, total), []).extend(t - first for t in steps)
    assert all(steps == list(range(total)) for (_, total), steps in visited.items())
    assert sum(total for _, total in visited) == end
