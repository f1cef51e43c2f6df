"Hostile input ends in success or in one line of error: the short form of `make fuzz`, and what it has found."
import json
import os
import shutil
import subprocess
import sys

import pytest
from commands import CLASSIFY, PRETRAIN, REPOSITORY, command, ok, write
from corpora import says
from experiments.fuzz import ending, fuzz
from experiments.hostile import SURFACES
from ulmfit.corpus.own import open_path
from ulmfit.corpus.readers import read_lines
from ulmfit.model import bundle
from ulmfit.text.rules import Rules


def test_no_case_fails(library):
    "The short form of `make fuzz`."
    rows, failures = fuzz(200, 1)
    assert not failures
    assert {r["surface"] for r in rows} == set(SURFACES) and all(r["cases"] for r in rows)


def crash(): raise KeyError("x")


@pytest.mark.parametrize("run, how", [(lambda: None, "done"), (crash, "failed")])
def test_a_traceback_is_a_failure(run, how): assert ending(run)[0] == how


def test_a_hang_is_a_failure(monkeypatch):
    monkeypatch.setattr("experiments.fuzz.SECONDS", 0.05)

    def hang():
        while True: pass
    assert ending(hang) == ("failed", "Hang: more than 0.05 seconds ()")


# --- what it has found ---

def told(*args, **how) -> str:
    "The one line of error of a command that cannot work."
    r = command(*args, **how)
    *notes, error = r.err.splitlines()
    assert r.code == 1 and all(n.startswith(("note: ", "no ")) for n in notes), r.err
    return error


LONG = "x" * 300


@pytest.mark.parametrize("args", [
    ["pretrain", "--corpus", "ONE", *PRETRAIN, "--out", LONG], ["pretrain", "--corpus", LONG, "--out", "OUT"],
    ["generate", LONG], ["pretrain", "--preset", LONG, "--out", "OUT"],
    ["predict", "CLASSIFIER", "--input", LONG], ["predict", "CLASSIFIER", "--output", LONG],
    ["merge", LONG, "--out", "OUT"], ["data", "check", LONG]], ids=lambda args: " ".join(args)[:20])
def test_a_name_that_is_too_long_for_a_file_is_told(made, tmp_path, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    places = dict(ONE=made.one, CLASSIFIER=made.classifier, OUT=tmp_path / "out")
    assert LONG in told(*(places.get(a, a) for a in args), stdin="good\n") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags, named", [
    (["--rates", "[1, null, 2]"], "--rates"), (["--rates", "[-1]"], "--rates"), (["--rates", "[NaN]"], "--rates"),
    (["--phases", "[1]"], "phase"), (["--phases", '[{"lr": "x"}]'], "lr"),
    (["--phases", '[{"epochs": -1}]'], "epochs"), (["--phases", '[{"lr": -1}]'], "--lr"),
    (["--phases", '[{"last": 0}]'], "--last"), (["--schedule", "stlr", "--ratio", "0"], "--ratio"),
    (["--schedule", "one_cycle", "--div", "0"], "--div"), (["--discriminative", "0"], "--discriminative"),
    (["--schedule", "stlr", "--cut-frac", "nan"], "--cut-frac"), (["--lr", "inf"], "--lr"),
    (["--beta1", "inf"], "beta"), (["--lr", "nan"], "--lr"), (["--weight-p", "nan"], "--weight-p"),
    (["--encoding", "utf-8\n"], "no encoding")])
def test_a_setting_that_cannot_be_is_told(made, tmp_path, flags, named):
    assert named in told("pretrain", "--corpus", made.one, *PRETRAIN, *flags, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag, value", [("--seed", "-1"), ("--rates", "{}"), ("--phases", "[" * 5000)])
def test_a_flag_that_cannot_be_read_is_told(made, tmp_path, flag, value):
    r = command("pretrain", flag, value, "--out", tmp_path / "out")
    assert r.code == 2 and f"argument {flag}: invalid" in r.err


def test_a_value_of_another_type_in_a_preset_is_told(made, tmp_path):
    "Before settings are held against each other."
    preset = write(tmp_path / "p.toml", '[classify]\nmax_length = "long"\n')
    args = ["--dataset", made.data, "--model", made.tuned, "--preset", preset, "--out", tmp_path / "out"]
    assert "max_length = 'long': it must be of type int" in told("classify", *args)


@pytest.mark.parametrize("temperature, code", [("nan", 1), ("inf", 1), ("1e-320", 1), ("1e-300", 0), ("1e300", 0)])
def test_a_temperature_gives_probabilities_or_is_refused(made, temperature, code):
    assert command("generate", made.lm, "--words", "3", "--temperature", temperature).code == code


def damaged(record: dict, how: str):
    match how:
        case "list": return []
        case "result": return record | dict(result=dict(test_error="low"))
        case "no figure": return record | dict(result=dict(valid_loss=1.0))
        case "settings": return record | dict(settings=None)
        case "steps": return record | dict(settings=record["settings"] | dict(max_steps="few"))
        case "share": return record | dict(settings=record["settings"] | dict(valid_fraction=[]))
        case "seed": return record | dict(seed="x")
        case "no stage": return {k: v for k, v in record.items() if k != "stage"}


@pytest.mark.parametrize("how", ["list", "result", "no figure", "settings", "steps", "share", "seed", "no stage"])
def test_a_record_that_no_run_writes_is_told(made, tmp_path, how):
    shutil.copytree(made.classifier, run := tmp_path / "run")
    write(run / "run.json", json.dumps(damaged(json.loads((run / "run.json").read_text()), how)))
    again = ["classify", "--dataset", made.data, "--model", made.tuned, *CLASSIFY, "--out", run]
    for args in (["evaluate", run], again): assert "run.json is damaged" in told(*args)


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000], ids=["bytes", "depth"])
def test_a_record_that_is_no_json_is_told(made, tmp_path, content):
    shutil.copytree(made.lm, tmp_path / "run")
    write(tmp_path / "run/run.json", content)
    assert "run.json is damaged" in told("evaluate", tmp_path / "run")


@pytest.mark.parametrize("change", [
    dict(tokenizer=None), dict(tokenizer=dict(kind="x", lang="en", rules={})), dict(classes=None), dict(classes=[1]),
    dict(backwards=...), dict(sha256=1), dict(architecture=dict(emb=2**40)), dict(architecture=dict(hidden=2**40)),
    dict(architecture=dict(layers=2**40)), dict(reading=dict(bptt=0)), dict(reading=dict(max_length="x")),
    dict(head=dict(head_hidden=2**40)), dict(dropouts=dict(input_p=float("nan"))), []], ids=repr)
def test_a_model_that_is_not_what_it_should_be_is_told_within_bounded_memory(made, tmp_path, change):
    "Sizes that no machine has room for are read of config.json."
    shutil.copytree(made.classifier / "model", tmp_path / "model")
    config = json.loads((path := tmp_path / "model/config.json").read_text())
    for key, value in change.items() if change else ():
        config[key] = config[key] | value if isinstance(value, dict) and key != "tokenizer" else value
    write(path, json.dumps({k: v for k, v in config.items() if v is not ...} if change else []))
    with says(str(tmp_path / "model")): bundle.load(tmp_path / "model")


def test_a_note_of_a_file_that_is_not_the_models_is_overlooked(made, tmp_path):
    shutil.copytree(made.lm / "model", tmp_path / "model")
    config = json.loads((path := tmp_path / "model/config.json").read_text())
    write(path, json.dumps(config | dict(sha256=config["sha256"] | {"../other": "x"})))
    assert bundle.load(tmp_path / "model").vocab == bundle.load(made.lm).vocab


@pytest.mark.parametrize("name", ["char_repeat", "word_repeat"])
def test_rules_of_no_repetition_are_refused(name):
    with pytest.raises(ValueError): Rules(**{name: 1})


def test_a_pipe_among_the_texts_of_a_class_is_not_waited_for(tmp_path):
    for label in "ab": write(tmp_path / f"train/{label}/1.txt", label)
    os.mkfifo(tmp_path / "train/a/2.txt")
    source = open_path(tmp_path, None, "text", "label", "utf-8")
    assert [d for _, d in source.read()] == [("a", "a"), ("b", "b")]


def test_utf_16_without_its_mark_is_told_however_it_ends(tmp_path):
    with says("t.txt"): list(read_lines(write(tmp_path / "t.txt", b"a" * 8193), "utf-16"))


def test_a_file_that_cannot_be_read_is_told():
    with says("/proc/self/mem cannot be read"): list(read_lines("/proc/self/mem"))


def test_a_name_that_is_no_text_is_prepared_and_printed(tmp_path):
    "By a process, whose output is strict."
    for label in ("a", "\udcff"):
        for n in range(2): write(tmp_path / f"texts/train/{label}/{n}.txt", f"{label!a} {n}")
    ok("prepare", tmp_path / "texts", "--tokenizer", "words", "--workers", "1", "--out", tmp_path / "out")
    r = subprocess.run([sys.executable, "-m", "ulmfit.data", "check", tmp_path / "out"], cwd=REPOSITORY,
                       capture_output=True, text=True)
    assert (r.returncode, r.stderr) == (0, "") and "classes: a, \\udcff" in r.stdout
