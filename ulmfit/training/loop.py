"""The training loop, for every stage: it is handed batches and a loss and does not know what they come from.

Everything that a run needs to continue is in one dictionary: where it is (epoch, step), weights, optimizer, the
generator of the dropout masks, the hidden state that goes from window to window, the metrics so far and their best.
"""
import math, sys, time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from fastcore.script import CliError
from torch import Generator, nn
from tqdm import tqdm

from .captured import Captured, capturable
from .freezing import Phase, Unfreezing
from .optimizers import Optimization, averaged, build, end_with_averages, maybe_average, set_rate
from .records import Run
from .schedules import Schedule
from .signals import Signals, Stop, end_by
from .step import Eager


@dataclass(frozen=True)
class Training:
    "When to look, stop and save."
    max_steps: int = 0  # stop after so many steps, the schedule fitted to them (0: the epochs decide)
    schedule_over: str = field(default="phase", metadata=dict(choices=("phase", "run")))  # one for each: phase | run
    validate_every: int = 1  # epochs from one evaluation to the next; the last epoch always has one
    patience: int = 0  # stop after so many evaluations without a better one (0: never)
    keep_best: bool = True  # end with the weights of the best evaluation, not the last
    on_nonfinite: str = field(default="stop", metadata=dict(choices=("stop", "skip")))  # at NaN or inf: stop | skip
    max_skipped: int = 10  # steps that a run may skip
    checkpoint_minutes: float = 10.0  # save for continuation this often, and after every epoch
    keep_checkpoint: bool = False  # leave the checkpoint when the run is finished


@dataclass
class Task:
    "What is trained, on what."
    model: nn.Module
    groups: dict[str, list[nn.Parameter]]  # layer groups, from the input on
    steps: Callable[[int], int]  # batches in an epoch
    batches: Callable[[int, int], Iterator]  # (epoch, first batch): the epoch's batches from there
    loss: Callable  # (batch, state, rng): objective, value, targets, state
    evaluate: Callable[[], dict[str, float]]  # figures on validation
    monitor: str  # the figure that says which epoch is best; lower is better
    unit: str  # what is counted: tokens, documents
    describe: Callable[[float], str]  # a batch's loss in the words of the progress bar
    rate_factor: Callable = lambda batch: 1.0  # factor on the batch's rate (awd: window / bptt)


@dataclass
class Span:
    "An epoch within the plan: its phase, and where the steps of its schedule begin and end."
    phase: Phase
    epoch: int
    start: int  # number of its first step in the run
    schedule_start: int
    schedule_steps: int


def spans(task: Task, phases: list[Phase], training: Training) -> list[Span]:
    "The run's epochs in order, with the stretch that each one's schedule covers."
    sizes = [[task.steps(sum(p.epochs for p in phases[:i]) + e) for e in range(phase.epochs)]
             for i, phase in enumerate(phases)]
    total = sum(map(sum, sizes))
    end = min(total, training.max_steps or total)
    out, at, epoch = [], 0, 0
    for phase, steps in zip(phases, sizes):
        start = at
        stop = min(end, start + sum(steps))
        for n in steps:
            if at >= end: break
            whole = training.schedule_over == "run"
            out.append(Span(phase, epoch, at, 0 if whole else start, end if whole else stop - start))
            at, epoch = at + n, epoch + 1
    return out


def fit(task: Task, optimization: Optimization, schedule: Schedule, unfreezing: Unfreezing, training: Training,
        run: Run, rng: Generator) -> dict:
    """Train by the plan, with evaluations, and leave the model with the weights that it ends with.

    Returns their epoch's row of the metrics, but with the seconds of the whole run; tokens or documents per second of
    training, and how many steps it skipped.
    Ctrl-C and SIGTERM end the process with its state saved.
    """
    alone = run.checkpoints.held() if run.ranks.leads else nullcontext()
    with Signals() as signals, alone:
        return train(task, optimization, schedule, unfreezing, training, run, rng, signals)


def train(task: Task, optimization: Optimization, schedule: Schedule, unfreezing: Unfreezing, training: Training,
          run: Run, rng: Generator, signals: Signals) -> dict:
    "What `fit` does, until a signal comes; where several processes do it, they decide on sums, and so alike."
    ranks, model, optimizer = run.ranks, task.model, build(task.groups, optimization)
    plan = spans(task, unfreezing.of(len(task.groups)), training)
    if not plan: raise CliError("there is nothing to train: give --epochs 1 at least")
    run.write()
    end = training.max_steps or math.inf
    total = int(min(end, sum(task.steps(s.epoch) for s in plan)))
    at = dict(step=0, epoch=0, batch=0, carry=None, rows=[], best=None, lr=0.0, count=0, sum=0.0, seen=0, skipped=0,
              train_seconds=0.0, other_seconds=0.0)
    if state := run.checkpoints.newest(): restore(state, at, model, optimizer, rng)
    ranks.check_alike("checkpoint", at["step"])
    at["carry"] = ranks.own(at["carry"])
    skip, clip = training.on_nonfinite == "skip", optimization.clip
    recording = capturable(task, optimizer, schedule, ranks)
    silent = not (ranks.leads and sys.stderr.isatty())
    bar = tqdm(total=total, initial=at["step"], unit="step", disable=silent, leave=False)
    lap, saved, kept = stopwatch(), time.monotonic(), at["step"]

    advance, learning = None, None
    for span in plan[at["epoch"]:]:
        evaluated = at["rows"] and at["rows"][-1]["step"] == at["step"]  # it may have ended before it was
        if stopped_early(at, training) or at["step"] >= end and evaluated: break
        before, learning = learning, freeze(task, span.phase)
        model.train()
        highest = optimization.lr if span.phase.lr is None else span.phase.lr
        shape = replace(schedule, **{k: v for k in ("cut_frac", "ratio") if (v := getattr(span.phase, k)) is not None})
        if learning != before:
            advance = (Captured(task, optimizer, clip, skip, rng) if recording else
                       Eager(task, optimizer, clip, skip, rng, ranks))
        advance.begin(at)
        for batch in task.batches(span.epoch, at["batch"]):
            if at["step"] >= end: break
            t = at["step"] - span.schedule_start
            at["lr"] = highest * shape.factor(t, span.schedule_steps)
            momentum = shape.momentum(t, span.schedule_steps, optimization.beta1)
            set_rate(optimizer, at["lr"] * task.rate_factor(batch), momentum)
            where = f"step {at['step'] + 1}, rate {at['lr']:.3g} (last good checkpoint: step {kept})"
            told = advance(batch, at, where)
            take(at, told | dict(step=at["step"] + 1, batch=at["batch"] + 1), training.max_skipped)
            at["train_seconds"] += lap()
            bar.update()
            speed = f"{at['count'] / at['train_seconds']:,.0f} {task.unit}/s"
            said = task.describe(advance.value) if math.isfinite(advance.value) else "…"
            bar.set_postfix_str(f"epoch {span.epoch + 1}, {said}, {speed}", refresh=False)
            late = time.monotonic() - saved > 60 * training.checkpoint_minutes
            number, late = ranks.highest(signals.number or 0, late)
            if number or late: take(at, advance.settled(at), training.max_skipped)
            if number: stop(number, run, at, model, optimizer, rng)
            if late:
                save(run, at, model, optimizer, rng)
                saved, kept = time.monotonic(), at["step"]
        take(at, advance.settled(at), training.max_skipped)
        at["train_seconds"] += lap()
        if (span.epoch + 1) % training.validate_every == 0 or span is plan[-1] or at["step"] >= end:
            try: evaluate(task, span, training, run, optimizer, at, signals, lap)
            except Stop: stop(signals.number, run, at, model, optimizer, rng)
            row = at["rows"][-1]
            shown = ", ".join(f"{k} {row[k]:.4g}" for k in row if k.startswith(("train_", "valid_", "seconds")))
            bar.write(f"epoch {span.epoch + 1}: {shown}", file=sys.stdout)
            if at["batch"] == task.steps(span.epoch):
                maybe_average(optimizer, [r[task.monitor] for r in whole(at["rows"])], optimization.nonmono)
        # where --max-steps ended an epoch it can be gone on with
        if at["batch"] == task.steps(span.epoch):
            at |= dict(epoch=at["epoch"] + 1, batch=0, carry=None, sum=0.0, seen=0)
        save(run, at, model, optimizer, rng)
        saved, kept = time.monotonic(), at["step"]
        run.metrics(at["rows"])
        number, = ranks.highest(signals.number or 0)
        if number: stop(number, run, at, model, optimizer, rng)
    bar.close()
    run.metrics(at["rows"])  # an interruption may have come between the last checkpoint and them

    if training.keep_best: model.load_state_dict(run.checkpoints.best(at["best"]["file"]))
    else: end_with_averages(optimizer)
    ranks.wait()  # all have read what the first may now remove
    chosen = at["rows"][at["best"]["row"] if training.keep_best else -1]
    return chosen | {f"{task.unit}_per_second": at["count"] / max(1e-9, at["train_seconds"]),
                     "skipped_steps": at["skipped"], "seconds": at["rows"][-1]["seconds"]}


def evaluate(task: Task, span: Span, training: Training, run: Run, optimizer: torch.optim.Optimizer, at: dict,
             signals: Signals, lap: Callable[[], float]):
    "A row of metrics, and the best weights so far."
    with averaged(optimizer):
        # what several processes evaluate together, they finish
        with signals.at_once() if run.ranks.alone else nullcontext(): figures = task.evaluate()
        at["other_seconds"] += lap()
        seconds = round(at["train_seconds"] + at["other_seconds"], 3)
        at["rows"].append(dict(step=at["step"], epoch=span.epoch + 1) | {task.unit: at["count"]} | dict(
            lr=at["lr"], train_loss=at["sum"] / max(1, at["seen"]), **figures, seconds=seconds))
        if at["best"] is None or figures[task.monitor] < at["best"]["value"]:
            file = run.checkpoints.save_best(at["step"], task.model.state_dict()) if training.keep_best else None
            at["best"] = dict(value=figures[task.monitor], row=len(at["rows"]) - 1, file=file)


def freeze(task: Task, phase: Phase) -> list[int]:
    "Only the phase's groups learn, whose numbers it returns; below the lowest of them no graph is built."
    trained = phase.trained(len(task.groups))
    for i, params in enumerate(task.groups.values()):
        for p in params: p.requires_grad_(i in trained)
    return trained


def stopwatch() -> Callable[[], float]:
    "A function that gives the seconds since it was last called."
    last = time.monotonic()

    def lap() -> float:
        nonlocal last
        now = time.monotonic()
        last, passed = now, now - last
        return passed
    return lap


def stopped_early(at: dict, training: Training) -> bool:
    "Has validation not improved for `patience` evaluations?"
    best = at["best"]
    return bool(training.patience and best and len(whole(at["rows"][best["row"] + 1:])) >= training.patience)


def whole(rows: list[dict]) -> list[dict]:
    "The last evaluation of each epoch: others are where `--max-steps` once ended it."
    return [*{r["epoch"]: r for r in rows}.values()]


def take(at: dict, told: dict, most: int):
    "Take in what the steps have changed; CliError where more of them were skipped than a run may."
    at |= told
    if at["skipped"] > most:
        raise CliError(f"step {at['step']}: more than {most} steps were not finite (--max-skipped); "
                       "the run has diverged; lower --lr or set --clip")


def save(run: Run, at: dict, model: nn.Module, optimizer: torch.optim.Optimizer, rng: Generator):
    where = at | dict(carry=run.ranks.joined(at["carry"]))
    state = dict(at=where, model=model.state_dict(), optimizer=optimizer.state_dict(), rng=rng.get_state())
    run.checkpoints.save(at["step"], state, at["best"] and at["best"]["file"])


def stop(number: int, run: Run, at: dict, model: nn.Module, optimizer: torch.optim.Optimizer, rng: Generator):
    "Save and end, as a signal asked."
    save(run, at, model, optimizer, rng)
    run.ranks.leave()
    if not run.ranks.leads: raise SystemExit(128 + number)
    end_by(number, f"stopped after step {at['step']:,}; the same command goes on from there")


def restore(state: dict, at: dict, model: nn.Module, optimizer: torch.optim.Optimizer, rng: Generator):
    "Put everything back where `save` found it."
    at |= state["at"]
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    rng.set_state(state["rng"])
    print(f"continuing at step {at['step']:,}")
