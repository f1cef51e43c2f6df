"The command line from end to end, on a very small model: what people type and find."
import inspect
import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from commands import (CLASSIFY, FINETUNE, PRETRAIN, REPOSITORY, SCRATCH, command, films, metrics, ok, record, rows,
                      table, weights, write)
from ulmfit import classify, finetune_lm, pretrain
from ulmfit.corpus import prepare as preparing
from ulmfit.corpus.store import Corpus, with_held_out
from ulmfit.corpus.stream import LanguageModelStream, Windows
from ulmfit.model import bundle
from ulmfit.model.device import device_and_dtype
from ulmfit.model.language_model import mean_loss
from ulmfit.text.tokenizer import Tokenizer
from ulmfit.training import loop, records, step as stepping
from ulmfit.training.settings import preset


# --- what a run leaves ---

def test_each_stage_prints_the_command_that_comes_next(made):
    assert made.said["lm"].splitlines()[-1] == f"next: make finetune-lm FROM={made.lm}"
    assert made.said["tuned"].splitlines()[-1] == f"next: make classify FROM={made.tuned} DATASET={made.data}"
    assert made.said["classifier"].splitlines()[-1].startswith(f"next: python -m ulmfit.predict {made.classifier}")


def test_the_next_command_holds_out_the_same_documents(made, tmp_path):
    args = ["--dataset", made.data, "--model", made.lm, *FINETUNE, "--seed", "5", "--out", tmp_path / "t"]
    said = ok("finetune_lm", *args)
    assert said.splitlines()[-1].endswith(" SEED=5")


RUN = {"stage", "settings", "seed", "versions", "commit", "device", "data", "vocab", "seconds", "result"}
LM_RESULT = {"valid_loss", "valid_perplexity", "valid_tokens", "train_tokens", "tokens_per_second",
             "peak_memory_bytes"}


@pytest.mark.parametrize("run, result",
                         [("lm", LM_RESULT), ("tuned", LM_RESULT),
                          ("classifier", {"valid_error", "test_error", "documents_per_second"})])
def test_a_finished_run_says_what_the_contract_wants(made, run, result):
    about = record(made.root / run)
    assert RUN <= set(about) and result <= set(about["result"])
    assert {"torch", "python"} <= set(about["versions"])
    assert about["settings"]["epochs"] == (3 if run == "classifier" else 2)


@pytest.mark.parametrize("run, columns", [
    ("lm", "step epoch tokens lr train_loss valid_loss valid_perplexity seconds"),
    ("classifier", "step epoch documents lr train_loss valid_loss valid_error seconds")])
def test_metrics_have_a_row_an_epoch(made, run, columns):
    found = rows((made.root / run / "metrics.csv").read_text())
    assert list(found[0]) == columns.split() and [r["epoch"] for r in found] == [str(i + 1) for i in range(len(found))]
    assert len(found) == record(made.root / run)["settings"]["epochs"]


@pytest.mark.parametrize("run", ["lm", "tuned", "classifier"])
def test_a_finished_run_has_its_model_and_no_checkpoint(made, run):
    folder = made.root / run
    more = {"predictions.csv"} if run == "classifier" else set()
    assert {p.name for p in folder.iterdir()} == {"run.json", "metrics.csv", "model"} | more
    assert {p.name for p in (folder / "model").iterdir()} == {"model.safetensors", "config.json", "vocab.json"}


def test_the_fine_tuned_model_starts_from_the_pretrained_one(made):
    about = record(made.tuned)
    assert about["model"] == bundle.fingerprint(made.lm)
    assert record(made.classifier)["model"] == bundle.fingerprint(made.tuned)


def test_the_same_command_again_says_that_the_run_is_finished(made):
    before = weights(made.lm)
    assert "is finished" in ok("pretrain", "--corpus", made.one, *PRETRAIN, "--out", made.lm)
    assert weights(made.lm) == before


def test_a_prepared_corpus_is_as_good_as_its_files(made, tmp_path):
    assert "classes: bad, good, so" in ok("prepare", made.data, "--out", tmp_path / "prepared", "--workers", "1")
    ok("classify", "--dataset", tmp_path / "prepared", "--model", made.tuned, *CLASSIFY, "--out", tmp_path / "run")
    assert weights(tmp_path / "run") == weights(made.classifier)


def test_on_the_cpu_a_stage_is_deterministic_asked_or_not(made, tmp_path, undetermined):
    for stage, run, *args in (("pretrain", made.lm, "--corpus", made.one, *PRETRAIN),
                              ("finetune_lm", made.tuned, "--dataset", made.data, "--model", made.lm, *FINETUNE),
                              ("classify", made.classifier, "--dataset", made.data, "--model", made.tuned, *CLASSIFY)):
        ok(stage, *args, "--deterministic", "--out", tmp_path / stage)
        assert weights(tmp_path / stage) == weights(run)
        assert record(tmp_path / stage)["deterministic"] and not record(run)["deterministic"]


def test_numbers_that_a_processor_is_slow_at_are_zero():
    small = torch.tensor(1e-20)
    torch.set_flush_denormal(False)
    assert small * small
    device_and_dtype("cpu", "fp32")
    assert not small * small


def test_a_classifier_from_scratch_needs_no_language_model(made, tmp_path):
    ok("classify", "--dataset", made.data, *SCRATCH, "--backwards", "--out", tmp_path / "run")
    assert record(tmp_path / "run")["model"] is None and bundle.load(tmp_path / "run").backwards


def test_a_model_knows_the_tokenizer_of_the_corpus_that_it_learnt_from(made, tmp_path):
    "Whatever the flags say of text: a prepared corpus is tokenised already."
    ok("prepare", made.data, "--tokenizer", "words", "--out", tmp_path / "c", "--workers", "1")
    ok("classify", "--dataset", tmp_path / "c", *SCRATCH, "--out", tmp_path / "run")
    assert bundle.load(tmp_path / "run").tokenizer["kind"] == "words"


def test_the_documents_held_out_are_said(made, tmp_path):
    r = command("classify", "--dataset", made.one, *SCRATCH, "--seed", "3", "--out", tmp_path / "run")
    said = r.out + r.err
    assert "no test split: 6 of 24" in said and "no valid split: 3 of 18" in said  # of each class 2 of 8, 1 of 6
    assert record(tmp_path / "run")["result"]["test_documents"] == 6


@pytest.mark.parametrize("stage", [pretrain, finetune_lm, classify])
def test_every_flag_of_a_setting_has_words(stage):
    for name, p in inspect.signature(stage.main).parameters.items():
        if hasattr(p.annotation, "__metadata__"): assert re.match(r"\w", p.annotation.__metadata__[0]), name


# --- interrupted and continued ---

def test_a_run_that_is_older_than_a_setting_goes_on(made, tmp_path):
    args = "--dataset", made.data, "--model", made.lm, *FINETUNE, "--out", tmp_path / "run"
    ok("finetune_lm", *args)
    old = record(tmp_path / "run")
    del old["settings"]["keep_words"]
    (tmp_path / "run/run.json").write_text(json.dumps(old))
    assert "is finished" in ok("finetune_lm", *args)
    r = command("finetune_lm", *args, "--keep-words")
    assert r.code == 1 and "keep_words: False there, True here" in r.err


class Interrupted(Exception): pass


STAGES = dict(pretrain=["--corpus", "one", *PRETRAIN], finetune_lm=["--dataset", "data", "--model", "lm", *FINETUNE],
              classify=["--dataset", "data", "--model", "tuned", *CLASSIFY])


def stage(made, name: str, *more, out: Path):
    return command(name, *(getattr(made, a, a) if a in ("one", "data", "lm", "tuned") else a for a in STAGES[name]),
                   *more, "--out", out)


@pytest.fixture(scope="module")
def uninterrupted(made, tmp_path_factory):
    "A run of each stage, made when it is asked for."
    done, root = {}, tmp_path_factory.mktemp("uninterrupted")

    def of(name: str, *more) -> Path:
        if (name, more) not in done:
            done[name, more] = root / str(len(done))
            assert stage(made, name, *more, out=done[name, more]).code == 0
        return done[name, more]
    return of


NTASGD = ["--draw", "merity", "--keep-best", "--optimizer", "ntasgd", "--lr", "1"]
PLACES = {"first step": (stepping, "step", 1), "third step": (stepping, "step", 3),
          "second epoch": (stepping, "step", 15),
          "first evaluation": (loop, "averaged", 1),
          "second evaluation": (loop, "averaged", 2), "first metrics": (records.Run, "metrics", 1),
          "model": (bundle.Bundle, "save", 1),
          "result": (records.Run, "finish", 1)}


@pytest.mark.parametrize("name, more, place", [
    *[("pretrain", [], place) for place in PLACES], *[("classify", ["--keep-best"], place) for place in PLACES],
    *[("finetune_lm", [], place) for place in ("third step", "second evaluation")],
    *[("pretrain", NTASGD, place) for place in ("third step", "second evaluation")],
    *[(name, ["--max-steps", "4"], "first evaluation") for name in ("pretrain", "classify")]])
def test_an_interrupted_run_goes_on_to_the_same_weights(made, uninterrupted, tmp_path, name, more, place):
    "Bit for bit, and the same metrics but for the seconds."
    owner, attribute, call = PLACES[place]
    original, calls = getattr(owner, attribute), []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == call: raise Interrupted
        return original(*args, **kwargs)

    more = [*more, "--checkpoint-minutes", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, attribute, failing)
        with pytest.raises(Interrupted): stage(made, name, *more, out=tmp_path / "run")
    assert "result" not in record(tmp_path / "run")
    again = stage(made, name, *more, out=tmp_path / "run")
    assert again.code == 0 and ("continuing at step" in again.out) == (attribute != "step" or call > 1)
    whole = uninterrupted(name, *more)
    assert weights(tmp_path / "run") == weights(whole)
    assert metrics(tmp_path / "run") == metrics(whole)
    assert record(tmp_path / "run")["best_epoch"] == record(whole)["best_epoch"]


def test_metrics_are_whole_where_the_last_ones_were_not_written(made, uninterrupted, tmp_path):
    "Interrupted between the last checkpoint and metrics.csv."
    original = records.Run.metrics
    with pytest.MonkeyPatch.context() as patch:
        def failing(run, found):
            if len(found) == 2: raise Interrupted
            original(run, found)
        patch.setattr(records.Run, "metrics", failing)
        with pytest.raises(Interrupted): stage(made, "pretrain", out=tmp_path / "run")
    assert stage(made, "pretrain", out=tmp_path / "run").code == 0
    assert metrics(tmp_path / "run") == metrics(made.lm)


@pytest.mark.parametrize("change, what", [
    (["--lr", "0.5"], f"lr: {preset('demo', 'pretrain')['lr']} there, 0.5 here"),
    (["--seed", "9"], "seed: 0 there, 9 here"),
    (["--backwards"], "backwards: False there, True here"), (["--hidden", "13"], "hidden: 12 there, 13 here")])
def test_a_run_with_other_settings_is_not_continued(made, change, what):
    before = (made.lm / "run.json").read_bytes()
    r = command("pretrain", "--corpus", made.one, *PRETRAIN, *change, "--out", made.lm)
    assert r.code == 1 and what in r.err and (made.lm / "run.json").read_bytes() == before


def test_a_folder_of_another_stage_is_not_continued(made):
    r = command("finetune_lm", "--dataset", made.data, "--model", made.tuned, *FINETUNE, "--out", made.lm)
    assert r.code == 1 and "stage: pretrain there, finetune_lm here" in r.err


# --- early stopping and the best epoch ---

def test_training_stops_when_validation_has_no_patience_left(made, tmp_path):
    "A rate of 0 makes no epoch better than the first."
    ok("pretrain", "--corpus", made.one, *PRETRAIN, "--epochs", "6", "--lr", "0", "--patience", "2", "--out",
       tmp_path / "run")
    assert len(metrics(tmp_path / "run")) == 3 and record(tmp_path / "run")["best_epoch"] == 1


def test_evaluations_can_be_rarer_than_epochs(made, tmp_path):
    "Every second epoch here, and the last; training goes on as without them."
    for n in (1, 2):
        ok("pretrain", "--corpus", made.one, *PRETRAIN, "--epochs", "5", "--validate-every", n, "--no-keep-best",
           "--out", tmp_path / str(n))
    every, second = (metrics(tmp_path / n) for n in "12")
    assert second == [every[i] for i in (1, 3, 4)] and weights(tmp_path / "1") == weights(tmp_path / "2")


def test_a_run_knows_how_its_own_table_is_read(tmp_path):
    "Column and encoding need not be said again; what is said counts."
    documents = [("caf\xe9 fine", "good"), ("dull", "bad")] * 12
    path = table(tmp_path / "t.csv", documents, ("body", "kind"))
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    ok("classify", "--dataset", path, *SCRATCH, "--out", tmp_path / "run", "--text-column", "body", "--label-column",
       "kind", "--encoding", "latin-1")
    found = json.loads(ok("evaluate", tmp_path / "run"))
    assert found["documents"] == record(tmp_path / "run")["result"]["test_documents"]
    new = table(tmp_path / "new.csv", documents, ("body", "text"))
    assert len(ok("predict", tmp_path / "run", "--input", new).splitlines()) == 25
    swapped = table(tmp_path / "swapped.csv", [(c, t) for t, c in documents], ("text", "body"))
    assert ok("predict", tmp_path / "run", "--input", swapped) == ok("predict", tmp_path / "run", "--input", new)
    assert ok("predict", tmp_path / "run", "--input", swapped, "--text-column", "text") != ok(
        "predict", tmp_path / "run", "--input", new)


def test_a_run_records_no_network_but_its_own(made):
    "With a model network and vocabulary are the model's, whatever the preset says."
    assert "emb" not in record(made.classifier)["settings"]


def test_a_part_of_the_test_split_is_the_same_for_training_and_evaluating(made, tmp_path):
    args = ["--dataset", made.data, "--model", made.tuned, *CLASSIFY, "--tested", "7", "--out", tmp_path / "run"]
    ok("classify", *args)
    result = record(tmp_path / "run")["result"]
    found = json.loads(ok("evaluate", tmp_path / "run", "--tested", "7"))
    assert result["test_documents"] == found["documents"] == 7 and result["test_error"] == pytest.approx(found["error"])
    assert json.loads(ok("evaluate", tmp_path / "run"))["documents"] == 18


@pytest.mark.parametrize("flag, kept", [("--keep-words", True), ("--no-keep-words", False)])
def test_the_models_words_that_the_texts_lack_are_kept_on_request(made, tmp_path, flag, kept):
    few = table(tmp_path / "few.csv", [(f"A quite unlikely story {i}", "so bad".split()[i % 2]) for i in range(20)])
    ok("finetune_lm", "--dataset", few, "--model", made.lm, *FINETUNE, flag, "--out", tmp_path / "run")
    old, new = (set(bundle.load(run).vocab.tokens) for run in (made.lm, tmp_path / "run"))
    assert "unlikely" in new - old and ("boring" in new) == (old <= new) == kept


def validation_loss(made, run: Path) -> float:
    "Of the saved model, computed here."
    b = bundle.load(run)
    with redirect_stdout(io.StringIO()):
        splits = with_held_out(preparing.prepared(str(made.one), "lm", Tokenizer()).words(b.vocab), "valid", 0.02, 0)
    return mean_loss(b.model, LanguageModelStream(splits["valid"], 4, Windows(8)).batches())[0]


@pytest.mark.parametrize("flag, epoch", [("--keep-best", "best"), ("--no-keep-best", "last")])
def test_the_model_is_that_of_the_best_or_the_last_epoch(made, tmp_path, flag, epoch):
    "The third epoch is at a rate that spoils what was learnt."
    ok("pretrain", "--corpus", made.one, *PRETRAIN, "--phases", '[{"epochs": 2}, {"epochs": 2, "lr": 5}]',
       "--schedule", "constant", "--schedule-over", "phase", flag, "--out", tmp_path / "run")
    losses = [float(r["valid_loss"]) for r in metrics(tmp_path / "run")]
    assert losses[-1] > min(losses)
    expected = min(losses) if epoch == "best" else losses[-1]
    assert record(tmp_path / "run")["result"]["valid_loss"] == expected
    written = rows((tmp_path / "run/metrics.csv").read_text())
    assert record(tmp_path / "run")["seconds"] == float(written[-1]["seconds"]) > float(written[0]["seconds"])
    assert validation_loss(made, tmp_path / "run") == pytest.approx(expected, abs=1e-6)


def test_max_steps_ends_a_run(made, tmp_path):
    ok("pretrain", "--corpus", made.one, *PRETRAIN, "--max-steps", "3", "--out", tmp_path / "run")
    assert [r["step"] for r in metrics(tmp_path / "run")] == ["3"]


def test_splits_are_read_in_the_order_in_which_they_are_named(made, tmp_path):
    table(tmp_path / "d/train.csv", films(4, 0))
    write(tmp_path / "d/unsup.csv", "text\nsome more of it\n")
    tokens = {}
    for names in "train", "unsup", "unsup+train", "train+unsup+train":
        run = tmp_path / names
        ok("finetune_lm", "--dataset", tmp_path / "d", "--model", made.lm, *FINETUNE, "--lm-splits", names, "--out",
           run)
        tokens[names] = record(run)["result"]["train_tokens"]
    assert tokens["unsup+train"] == tokens["train+unsup+train"] == tokens["train"] + tokens["unsup"] > tokens["unsup"]


# --- as a process of its own ---

def process(name: str, *args, stdin: str = "") -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", f"ulmfit.{name}", *map(str, args)], cwd=REPOSITORY, input=stdin,
                          capture_output=True, text=True)


def test_wrong_use_exits_with_1_and_one_line(made, tmp_path):
    r = process("predict", made.lm)
    assert r.returncode == 1 and len(r.stderr.splitlines()) == 1 and not r.stdout


def test_an_unknown_flag_exits_with_2(made):
    r = process("predict", made.classifier, "--colour", "red")
    assert r.returncode == 2 and "--colour" in r.stderr and "Traceback" not in r.stderr


def test_a_process_predicts_what_a_call_does(made):
    r = process("predict", made.classifier, stdin="The film was fine\ndull\n")
    assert r.returncode == 0 and not r.stderr
    assert r.stdout == ok("predict", made.classifier, stdin="The film was fine\ndull\n")


def test_a_corpus_is_prepared_by_a_process(made, tmp_path):
    assert process("prepare", made.data, "--tokenizer", "words", "--out", tmp_path / "c").returncode == 0
    here = preparing.prepared(str(made.data), None, Tokenizer("words"))
    assert Corpus(tmp_path / "c").fingerprint == here.fingerprint


def test_the_language_model_does_not_read_what_the_classifier_is_tested_on(made, tmp_path, monkeypatch):
    "Held out of one table by both stages alike; with --labelled it reads the classifier's texts and no others."
    one, seen = table(tmp_path / "one.csv", [(f"word{i} film", "ab"[i % 2]) for i in range(40)]), {}
    for stage, cls in ("finetune_lm", "LanguageModelStream"), ("classify", "DocumentBatches"):
        module = __import__(f"ulmfit.corpus.{'stream' if stage == 'finetune_lm' else 'buckets'}", fromlist=[cls])
        own = getattr(module, cls)

        def spied(docs, *args, own=own, stage=stage, **how):
            seen.setdefault(stage, []).append({tuple(docs[i][1:-1]) for i in range(len(docs))})
            return own(docs, *args, **how)
        monkeypatch.setattr(module, cls, spied)
    lm = tmp_path / "lm"
    ok("finetune_lm", "--dataset", one, "--model", made.lm, *FINETUNE, "--labelled", 12, "--max-steps", 1, "--out", lm)
    ok("classify", "--dataset", one, "--model", lm, *CLASSIFY, "--labelled", 12, "--max-steps", 1, "--out",
       tmp_path / "c")
    (text, valid), (labelled, valid_too, test) = seen["finetune_lm"], seen["classify"]
    assert (text, valid) == (labelled, valid_too) and len(labelled) == 12 and len(test) == 8
    assert not test & (text | valid)


def test_a_classifier_leaves_what_it_predicts_for_the_test_split(made, tmp_path):
    "And `evaluate` writes the same."
    left = rows((made.classifier / "predictions.csv").read_text())
    wrong = sum(r["label"] != r["predicted"] for r in left)
    assert len(left) == 18 and 100 * wrong / 18 == pytest.approx(record(made.classifier)["result"]["test_error"])
    ok("evaluate", made.classifier, "--predictions", tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == (made.classifier / "predictions.csv").read_text()


def test_the_python_of_the_readme_gives_what_predict_gives(made, tmp_path):
    readme = (REPOSITORY / "README.md").read_text()
    lines = readme[readme.index("    import torch\n"):].splitlines()
    program = "\n".join(line[4:] for line in lines[:next(i for i, x in enumerate(lines) if x and x[0] != " ")])
    assert "runs/reviews" in program
    with redirect_stdout(io.StringIO()) as out: exec(program.replace("runs/reviews", str(made.classifier)), {})
    texts = tmp_path / "t.txt"
    texts.write_text("I liked it.\nNever again.\n")
    assert out.getvalue().strip() == str([r["label"] for r in rows(ok("predict", made.classifier, "--input", texts))])
