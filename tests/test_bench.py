"Benchmarks: that contenders take turns, and that what is printed is what the contract wants."
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from corpora import says
from experiments.bench.rounds import Contender, python_of, race, rates

REPOSITORY = Path(__file__).parents[1]
ECHO = '''import sys
for n, _ in enumerate(sys.stdin): print('{"seconds": %d, "tokens": 12}' % (n + 1), flush=True)'''


def contender(name: str, program: str = ECHO) -> Contender: return Contender(name, [sys.executable, "-c", program])


def test_a_round_of_each_follows_a_round_of_each(capsys):
    a, b = contender("a"), contender("b")
    race([a, b], 2)
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["a", "b", "a", "b"]
    assert [r["seconds"] for r in a.rounds] == [1, 2] and all(c.process.poll() == 0 for c in (a, b))


def test_the_median_of_the_rounds_is_the_rate():
    c = contender("a")
    c.rounds = [dict(seconds=s, tokens=12) for s in (1, 2, 6)]
    assert rates(c, "tokens") == dict(tokens_per_second=6, lowest=2, highest=12)


def test_a_contender_that_fails_is_named():
    with says("the contender bad has ended"): race([contender("bad", "raise SystemExit(3)")], 1)


def test_a_peer_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with says("make bench-peers"): python_of("fastai")


@pytest.mark.slow
def test_the_tokenisers_tokens_are_compared_and_timed(tmp_path):
    (tmp_path / "t.txt").write_text("\n\n".join(f"The film number {i} wasn't bad ." for i in range(50)))
    command = [sys.executable, "-m", "experiments.bench", "tokenize", "--input", tmp_path / "t.txt"]
    r = subprocess.run([*command, "--rounds", "1", "--json"], cwd=REPOSITORY, capture_output=True, text=True)
    ours, reference = map(json.loads, r.stdout.splitlines())
    assert ours["equal_to_reference"] and ours["documents"] == reference["documents"] == 50
    assert {"contender", "tokens_per_second", "documents_per_second", "peak_memory_bytes"} <= set(ours)


@pytest.mark.slow
def test_a_training_step_is_timed_beside_torchs_usual_model():
    command = [sys.executable, "-m", "experiments.bench", "lm", "--vocab", "50", "--batch", "2", "--bptt", "3"]
    command += ["--steps", "1", "--rounds", "1", "--json"]
    r = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    ours, usual = map(json.loads, r.stdout.splitlines())
    assert (ours["contender"], usual["contender"]) == ("ulmfit", "torch") and usual["speed_ratio"] == 1
    assert {"tokens_per_second", "peak_memory_bytes", "dtype", "vocab", "batch", "bptt", "threads"} <= set(ours)


@pytest.mark.slow
def test_two_processes_are_timed_beside_one():
    command = [sys.executable, "-m", "experiments.bench", "scaling", "--vocab", "50", "--batch", "3", "--bptt", "2"]
    command += ["--steps", "1", "--rounds", "1", "--json"]
    r = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    rows = list(map(json.loads, r.stdout.splitlines()))
    assert [(row["processes"], row["batch"]) for row in rows] == [(1, 3), (2, 3), (2, 6)], r.stderr
    assert rows[0]["efficiency"] == 1 and all({"tokens_per_second", "peak_memory_bytes"} <= set(row) for row in rows)


def test_contenders_do_not_touch_the_cores_beyond_theirs():
    program = '''import os, sys
for _ in sys.stdin: print('{"seconds": %d}' % len(os.sched_getaffinity(0)), flush=True)'''
    one, two = contender("one", program), Contender("two", [sys.executable, "-c", program], cores=2)
    race([one, two], 1)
    assert one.rounds[0]["seconds"] == 1 and two.rounds[0]["seconds"] == min(2, len(os.sched_getaffinity(0)))
