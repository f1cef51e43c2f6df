"What is told of wrong use and of other encodings: one line, exit status 1, nothing half-written."
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import CLASSIFY, FINETUNE, PRETRAIN, SCRATCH, command, films, ok, table, write
from fastcore.script import CliError
from ulmfit.model import bundle


def wrong(made, tmp: Path, case: str) -> tuple[list, list[str]]:
    "A command that cannot work, and what its error names."
    lm, clf, new, data, one = made.lm, made.classifier, tmp / "new", made.data, made.one

    def bad(content: str | bytes, *more) -> list:
        return ["classify", "--dataset", write(tmp / "bad.csv", content), *SCRATCH, *more, "--out", new]
    def pretrain(*more) -> list: return ["pretrain", "--corpus", one, *PRETRAIN, "--out", new, *more]
    def classify(*more) -> list: return ["classify", "--dataset", data, *SCRATCH, "--out", new, *more]

    def copy(name: str, change) -> Path:
        shutil.copytree(lm / "model", tmp / "copy")
        path = tmp / "copy" / name
        path.write_bytes(change(path.read_bytes()))
        return tmp / "copy"

    def words() -> Path:
        ok("prepare", data, "--tokenizer", "words", "--out", tmp / "words", "--workers", "1")
        return tmp / "words"

    cases = {
        "missing file": lambda: (pretrain("--corpus", tmp / "no.txt"), ["no.txt"]),
        "empty table": lambda: (bad(""), ["bad.csv", "empty"]),
        "header only": lambda: (bad("text,label\n"), ["bad"]),
        "empty text": lambda: (pretrain("--corpus", write(tmp / "e.txt", "")), ["e", "no text"]),
        "a text of one document": lambda: (pretrain("--corpus", write(tmp / "e.txt", "One paragraph only .")), ["e"]),
        "a text for testing only": lambda: (
            pretrain("--corpus", write(tmp / "test.txt", "One .\n\nTwo .\n\nThree .")), ["test", "train"]),
        "no such column": lambda: (bad("text,stars\na,b\n"), ["bad.csv:1:", "'label'", "text, stars"]),
        "a field too many": lambda: (bad("text,label\na,b\nc,d\ne,f,g\n"), ["bad.csv:4:", "3 fields, 2"]),
        "an unclosed quote": lambda: (bad('text,label\na,b\n"c,d\ne,f\n'), ["bad.csv:3:"]),
        "not utf-8": lambda: (bad(b"text,label\nabc\xe9,b\n"), ["bad.csv", "byte 14", "--encoding"]),
        "an Excel file": lambda: (bad(b"PK\x03\x04\xff\xfe"), ["bad.csv", "Excel", "CSV"]),
        "utf-16": lambda: (bad("text,label\na,b\n".encode("utf-16")), ["bad.csv", "--encoding (utf-16)"]),
        "output on the input": lambda: (["predict", made.classifier, "--input", made.one, "--output", made.one],
                                        ["--output", "another file"]),
        "a model exported onto itself": lambda: (["export", made.classifier, "--out", made.classifier / "model"],
                                                 ["the model itself"]),
        "no such encoding": lambda: (bad("text,label\n", "--encoding", "klingon"), ["'klingon'"]),
        "one class": lambda: (bad("text,label\na,x\nb,x\n"), ["one class", "x"]),
        "a class without training examples": lambda: (
            ["classify", "--dataset", table(table(tmp / "d/train.csv", films(4, 0)).with_name("test.csv"),
                                            [("a", "odd")]).parent, *SCRATCH, "--out", new],
            ["'odd'", "test", "train"]),
        "a folder that is no model": lambda: (["predict", tmp], ["is not a model", "config.json"]),
        "a run that has not ended": lambda: (["predict", write(tmp / "half/run.json", "{}").parent],
                                             ["half", "not ended"]),
        "no such model": lambda: (["predict", tmp / "no"], ["no such run"]),
        "cut weights": lambda: (["generate", copy("model.safetensors", lambda b: b[:len(b) // 2])],
                                ["copy", "damaged"]),
        "empty weights": lambda: (["generate", copy("model.safetensors", lambda b: b"")], ["copy", "damaged"]),
        "cut config": lambda: (["generate", copy("config.json", lambda b: b[:40])], ["copy", "damaged"]),
        "another vocabulary": lambda: (["generate", copy("vocab.json", lambda b: b.replace(b"film", b"movie"))],
                                       ["vocab.json"]),
        "a forward model as a backward one": lambda: (
            ["finetune_lm", "--dataset", data, "--model", lm, *FINETUNE, "--backwards", "--out", new],
                                                      [str(lm), "forwards", "backwards"]),
        "a classifier asked to generate": lambda: (["generate", clf], [str(clf), "a classifier", "a language model"]),
        "a language model asked to predict": lambda: (["predict", lm], [str(lm), "a language model", "a classifier"]),
        "a classifier fine-tuned as a language model": lambda: (
            ["finetune_lm", "--dataset", data, "--model", clf, *FINETUNE, "--out", new],
            ["a classifier", "a language model"]),
        "a corpus of another tokenizer": lambda: (
            ["finetune_lm", "--dataset", words(), "--model", lm, *FINETUNE, "--out", new], ["words", "spacy"]),
        "no such preset": lambda: (pretrain("--preset", "huge"), ["'huge'", "demo", "paper"]),
        "a preset with a slip": lambda: (pretrain("--preset", write(tmp / "p.toml", "[pretrain]\nlrr = 1.0\n")),
                                         ["lrr"]),
        "a preset that is no TOML": lambda: (pretrain("--preset", write(tmp / "p.toml", "[pretrain\n")), ["p.toml"]),
        "a preset that is not utf-8": lambda: (pretrain("--preset", write(tmp / "p.toml", b"# \xe9\n")), ["p.toml"]),
        "no such schedule": lambda: (pretrain("--schedule", "steep"), ["--schedule", "'steep'", "stlr"]),
        "no such optimizer": lambda: (pretrain("--optimizer", "adamm"), ["'adamm'", "adamw"]),
        "no such plan": lambda: (classify("--plan", "sideways"), ["'sideways'", "gradual"]),
        "no such kernel": lambda: (pretrain("--kernel", "fast"), ["'fast'", "fused"]),
        "no such language": lambda: (pretrain("--lang", "qq"), ["'qq'"]),
        "no such device": lambda: (pretrain("--device", "tpu"), ["tpu"]),
        "no such precision": lambda: (pretrain("--precision", "fp8"), ["'fp8'", "bf16"]),
        "no such split": lambda: (["evaluate", clf, "--split", "later"], ["later", "test"]),
        "no such lm split": lambda: (["finetune_lm", "--dataset", data, "--model", lm, *FINETUNE, "--lm-splits",
                                      "train+unsup", "--out", new], ["unsup"]),
        "a split of one token": lambda: (
            ["finetune_lm", "--dataset", table(table(tmp / "d/train.csv", films(4, 0)).with_name("valid.csv"),
                                               [("", "bad")]).parent, "--model", lm, *FINETUNE, "--out", new],
            ["fewer than two tokens"]),
        "no columns": lambda: (["evaluate", lm, "--batch", "0"], ["--batch"]),
        "labels of a corpus without": lambda: (
            ["classify", "--dataset", write(tmp / "t.txt", "a\n\nb"), *SCRATCH, "--out", new],
            ["t.txt", "classification"]),
        "nothing to train on": lambda: (
            ["classify", "--dataset", table(tmp / "test.csv", films(2, 0)), "--model", lm, *CLASSIFY, "--out", new],
            ["no training split", "test"]),
        "one document to learn from": lambda: (
            ["classify", "--dataset", table(tmp / "3.csv", [("a", "x"), ("b", "x"), ("c", "y")] * 2), "--model", lm,
             *CLASSIFY, "--test-fraction", "0.5", "--valid-fraction", "0.6", "--out", new], ["one document"]),
        "no document to hold out": lambda: (
            ["classify", "--dataset", table(tmp / "3.csv", [("a", "x"), ("b", "x"), ("c", "y")]), "--model", lm,
             *CLASSIFY, "--out", new], ["none can be held out", "valid"]),
        "a class whose name is not utf-8": lambda: (
            ["classify", "--dataset", [write(tmp / "d/train" / os.fsdecode(c) / f"{i}.txt", "a").parents[2]
                                       for c in (b"caf\xe9", b"b") for i in range(4)][0],
             "--model", lm, *CLASSIFY, "--out", new], ["caf\\udce9", "not UTF-8"]),
        "a width beside a model": lambda: (
            ["classify", "--dataset", made.data, "--model", lm, *CLASSIFY, "--emb", "9", "--out", new], 
            ["--emb", "the model's own", "--model none"]),
        "a fall longer than the run": lambda: (pretrain("--schedule", "trapezoidal", "--decay", "4"), ["--decay 4"]),
        "a preset that is no table": lambda: (
            ["pretrain", "--corpus", made.one, "--preset", write(tmp / "p.toml", "pretrain = 3"), "--out", new],
            ["p.toml", "[pretrain]"]),
        "to export over a run": lambda: (["export", clf, "--out", Path(lm) / "model"], ["--out", "another folder"]),
        "predictions of a language model": lambda: (
            ["evaluate", lm, "--predictions", new.with_suffix(".csv")], ["--predictions", "classifiers"]),
        "a language beside a model": lambda: (
            ["finetune_lm", "--dataset", made.data, "--lang", "de", "--out", new], ["--lang", "the model's own"]),
        "too many labels asked for": lambda: (classify("--labelled", "999"), ["999"]),
        "a device of another kind": lambda: (pretrain("--device", "meta"), ["no device is called 'meta'"]),
        "too many rates": lambda: (pretrain("--rates", "[1, 2, 3, 4]"), ["--rates", "4", "3"]),
        "a window longer than the document's end": lambda: (classify("--bptt", "70"), ["--max-length", "--bptt"]),
        "temperature 0": lambda: (["generate", lm, "--temperature", "0"], ["--temperature"]),
        "another output format": lambda: (["embed", lm, "--output", new.with_suffix(".txt")], [".npy"]),
        "no such layer": lambda: (["embed", lm, "--layer", "2", "--output", new.with_suffix(".npy")],
                                  ["--layer", "2 layers"]),
        "no text to embed": lambda: (["embed", lm, "--input", write(tmp / "e.txt", ""), "--output",
                                      new.with_suffix(".npy")], ["e.txt"]),
        "classifiers of different classes": lambda: (["predict", clf, other_classes(tmp)], ["bad, good, so", "x, y"]),
        "run.json cut": lambda: (cut_record(made, tmp), ["run.json", "damaged"]),
        "a rate that diverges": lambda: (pretrain("--lr", "1e30", "--clip", "0"), ["diverged", "--lr"]),
        "a classifier's rate that diverges": lambda: (classify("--lr", "1e38", "--clip", "0"), ["diverged", "--lr"]),
        "a file in the place of the run": lambda: (pretrain("--out", write(tmp / "file", "x")), ["file"]),
    }
    for flag, value in [("batch", 0), ("bptt", 0), ("epochs", 0), ("layers", 0), ("emb", 0), ("max-steps", -1),
                        ("valid-fraction", 1),
                        ("input-p", -0.1)]:
        cases[f"--{flag} {value}"] = lambda flag=flag, value=value: (pretrain(f"--{flag}", value), [flag])
    if case == "names": return list(cases), []
    return cases[case]()


def other_classes(tmp: Path) -> Path:
    ok("classify", "--dataset", table(tmp / "xy.csv", [("a b", "x"), ("c d", "y")] * 8), *SCRATCH, "--epochs", "1",
       "--out", tmp / "xy")
    return tmp / "xy"


def cut_record(made, tmp: Path) -> list:
    shutil.copytree(made.lm, tmp / "cut")
    write(tmp / "cut/run.json", '{"stage": "pre')
    return ["pretrain", "--corpus", made.one, *PRETRAIN, "--out", tmp / "cut"]


LEAVES_A_RUN = {"a rate that diverges", "a classifier's rate that diverges"}  # it has begun
NAMES = wrong(SimpleNamespace(lm=Path(), classifier=Path(), data=Path(), one=Path()), Path(), "names")[0]


@pytest.mark.parametrize("case", NAMES)
def test_wrong_use_is_told_in_one_line(made, tmp_path, case):
    "Exit status 1, what is wrong named, nothing half-written."
    args, named = wrong(made, tmp_path, case)
    try: r = command(*args)
    except Exception as e: pytest.fail(f"ends with a traceback: {type(e).__name__}: {e}")
    *notes, error = r.err.splitlines()
    assert r.code == 1 and all(re.match(r"note: |no \w+ split: ", line) for line in notes), r.err
    for part in named: assert part in error, error
    assert case in LEAVES_A_RUN or not list(tmp_path.glob("new*"))
    assert not list(tmp_path.glob("new/model*")) and not list((made.root / "data").rglob("*.part*"))


def test_a_named_encoding_is_read(made, tmp_path):
    path = write(tmp_path / "t.csv", ("text,label\n" + "café fine,x\nthé dull,y\n" * 9).encode("latin-1"))
    ok("classify", "--dataset", path, *SCRATCH, "--encoding", "latin-1", "--out", tmp_path / "run")
    assert {"café", "thé"} <= set(bundle.load(tmp_path / "run").vocab.tokens)


def test_standard_input_that_is_not_utf8_is_told(made):
    r = command("predict", made.classifier, stdin=b"fine\ncaf\xe9")
    assert r.code == 1 and "byte 8" in r.err and "--encoding" in r.err


def test_an_error_is_an_exception_where_a_command_is_called_from_python(made, tmp_path):
    from ulmfit.pretrain import main
    with pytest.raises(CliError, match="no.txt"): main(corpus=str(tmp_path / "no.txt"), out=tmp_path / "run")
