"The command line from end to end, on a very small model: what people type and find, and what wrong use is told."
import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import (CLASSIFY, FINETUNE, PRETRAIN, REPOSITORY, SCRATCH, command, films, metrics, ok, record, rows,
                      table, weights, write)
from fastcore.script import CliError
from hypothesis import given, settings, strategies as st
from ulmfit.corpus import prepare as preparing, registry
from ulmfit.corpus.store import Corpus, with_held_out
from ulmfit.corpus.stream import LanguageModelStream, Windows
from ulmfit.generate import filtered, generate, write_out
from ulmfit.model import bundle
from ulmfit.model.classifier import log_loss
from ulmfit.model.inference import documents
from ulmfit.model.language_model import mean_loss
from ulmfit.text.tokenizer import Tokenizer
from ulmfit.training import loop, records
from ulmfit.training.settings import preset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A dataset with a test split, and models of all stages, forwards and backwards."
    root = tmp_path_factory.mktemp("commands")
    Tokenizer()("spaCy is loaded before the processes that tokenise are forked")
    with pytest.MonkeyPatch.context() as patch:
        for module in (registry, preparing): patch.setattr(module, "ROOT", root / "data")
        patch.delenv("ULMFIT_DATA", raising=False)
        data, one = root / "films", table(root / "one.csv", films(8, 2))
        table(data / "train.csv", films(14, 0))
        table(data / "test.csv", films(6, 1))
        said = dict(
            lm=ok("pretrain", "--corpus", one, *PRETRAIN, "--out", root / "lm"),
            tuned=ok("finetune_lm", "--dataset", data, "--model", root / "lm", *FINETUNE, "--out", root / "tuned"),
            classifier=ok("classify", "--dataset", data, "--model", root / "tuned", *CLASSIFY, "--out",
                          root / "classifier"),
            lm_b=ok("pretrain", "--corpus", one, *PRETRAIN, "--backwards", "--out", root / "lm_b"),
            classifier_b=ok("classify", "--dataset", data, "--model", root / "lm_b", *CLASSIFY, "--out",
                            root / "classifier_b"))
        yield SimpleNamespace(root=root, data=data, one=one, said=said, **{name: root / name for name in said})


# --- what a run leaves ---

def test_each_stage_prints_the_command_that_comes_next(made):
    assert made.said["lm"].splitlines()[-1] == f"next: make finetune-lm FROM={made.lm}"
    assert made.said["tuned"].splitlines()[-1] == f"next: make classify FROM={made.tuned} DATASET={made.data}"
    assert made.said["classifier"].splitlines()[-1].startswith(f"next: python -m ulmfit.predict {made.classifier}")


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
    assert {p.name for p in folder.iterdir()} == {"run.json", "metrics.csv", "model"}
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


# --- interrupted and continued ---

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
PLACES = {"first step": (loop, "step", 1), "third step": (loop, "step", 3), "second epoch": (loop, "step", 15),
          "first evaluation": (loop, "averaged", 1),
          "second evaluation": (loop, "averaged", 2), "first metrics": (records.Run, "metrics", 1),
          "model": (bundle.Bundle, "save", 1),
          "result": (records.Run, "finish", 1)}


@pytest.mark.parametrize("name, more, place", [
    *[("pretrain", [], place) for place in PLACES], *[("classify", ["--keep-best"], place) for place in PLACES],
    *[("finetune_lm", [], place) for place in ("third step", "second evaluation")],
    *[("pretrain", NTASGD, place) for place in ("third step", "second evaluation")]])
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
    (["--lr", "0.5"], f"lr: {preset('demo', 'pretrain')['lr']} there, 0.5 here"), (["--seed", "9"], "seed: 0 there, 9 here"),
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
    assert validation_loss(made, tmp_path / "run") == pytest.approx(expected, abs=1e-6)


def test_max_steps_ends_a_run(made, tmp_path):
    ok("pretrain", "--corpus", made.one, *PRETRAIN, "--max-steps", "3", "--out", tmp_path / "run")
    assert [r["step"] for r in metrics(tmp_path / "run")] == ["3"]


# --- evaluate ---

@torch.no_grad()
def alone(run: Path, texts: list[str]) -> np.ndarray:
    "Class probabilities, each text read by itself."
    b, found = bundle.load(run), []
    for ids in (documents(b, [t])[0] for t in texts):
        if b.backwards: ids = np.concatenate([ids[:1], ids[:0:-1]])
        found.append(b.model(torch.from_numpy(ids)[:, None], torch.tensor([len(ids)])).softmax(dim=1)[0].numpy())
    return np.stack(found)


def evaluated(*args) -> dict: return json.loads(ok("evaluate", *args).splitlines()[-1])


def test_a_classifier_is_evaluated_on_its_own_test_split(made):
    found = evaluated(made.classifier)
    assert found["error"] == record(made.classifier)["result"]["test_error"] and found["documents"] == 18
    assert sum(map(sum, found["confusion"])) == 18 and list(found["error_of_class"]) == ["bad", "good", "so"]


def test_a_validation_split_that_was_held_out_is_found_again(made):
    assert evaluated(made.classifier, "--split", "valid")["error"] == record(made.classifier)["result"]["valid_error"]


def test_a_pretrained_model_is_evaluated_on_the_runs_own_text(made):
    found = evaluated(made.lm, "--split", "valid", "--batch", "4")["loss"]
    assert found == pytest.approx(record(made.lm)["result"]["valid_loss"], abs=1e-6)


def test_a_fine_tuned_model_is_evaluated_on_the_runs_own_text(made):
    found = evaluated(made.tuned, "--split", "valid", "--batch", "4")["loss"]
    assert found == pytest.approx(record(made.tuned)["result"]["valid_loss"], abs=1e-6)


def test_a_language_model_is_evaluated_on_any_text(made, tmp_path):
    found = evaluated(made.lm, "--corpus", write(tmp_path / "t.txt", "The film was fine ,\n\nThe zyzzyva was dull ,"),
                      "--split", "train")
    assert found["tokens"] == 2 * 7 - 1 and found["perplexity"] == pytest.approx(np.exp(found["loss"]))
    assert found["unknown_percent"] == pytest.approx(100 / 14)


def test_classes_of_another_dataset_are_matched_by_name(made, tmp_path):
    "A file that lacks a class of the model's numbers its classes otherwise."
    both = [d for d in films(6, 1) if d[1] != "bad"]
    table(tmp_path / "d/train.csv", both)
    table(tmp_path / "d/test.csv", both)
    texts, labels = zip(*both)
    p = alone(made.classifier, texts)
    wrong = np.mean([["bad", "good", "so"][i] != label for i, label in zip(p.argmax(axis=1), labels)])
    assert evaluated(made.classifier, "--dataset", tmp_path / "d")["error"] == pytest.approx(100 * wrong)


# --- predict ---

TEXTS = ["The film was great , lovely", "", "dull and boring, awful", "Zyzzyva\n\"quoted\" 👍", "fine " * 40]


def predicted(*args, **how) -> list[dict]: return rows(ok("predict", *args, **how))


def chances(found: list[dict]) -> np.ndarray:
    return np.array([[float(r[c]) for c in ("bad", "good", "so")] for r in found])


def test_predictions_have_a_label_and_probabilities_that_sum_to_1(made, tmp_path):
    found = predicted(made.classifier, "--input", table(tmp_path / "t.csv", [(t,) for t in TEXTS], ["text"]))
    assert [list(r) for r in found] == [["label", "bad", "good", "so"]] * len(TEXTS)
    assert chances(found).sum(axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=3e-6)
    assert [r["label"] for r in found] == [["bad", "good", "so"][i] for i in chances(found).argmax(axis=1)]


def test_predictions_keep_the_order_and_do_not_depend_on_the_texts_beside(made, tmp_path):
    together = chances(predicted(made.classifier, "--input",
                                 table(tmp_path / "t.csv", [(t,) for t in TEXTS], ["text"])))
    assert together == pytest.approx(alone(made.classifier, TEXTS), abs=1e-6)


def test_a_table_a_file_of_lines_and_standard_input_are_predicted_alike(made, tmp_path):
    texts = [t for t in TEXTS if "\n" not in t]
    column = table(tmp_path / "t.tsv.csv", [("x", t) for t in texts], ["id", "review"])
    column = column.rename(tmp_path / "t.csv")
    found = predicted(made.classifier, "--input", column, "--text-column", "review")
    lines = "\n".join(texts) + "\n"
    assert found == predicted(made.classifier, "--input", write(tmp_path / "t.txt", lines))
    assert found == predicted(made.classifier, stdin=lines)


def test_predictions_are_written_to_a_file(made, tmp_path):
    out = tmp_path / "new" / "out.csv"
    assert "2 texts" in ok("predict", made.classifier, "--output", out, stdin="fine\ndull")
    assert rows(out.read_text()) == predicted(made.classifier, stdin="fine\ndull")


def test_no_text_gives_no_prediction(made): assert predicted(made.classifier, stdin="") == []


def test_several_classifiers_give_the_mean_of_their_probabilities(made):
    lines = "\n".join(t for t in TEXTS if "\n" not in t)
    one, other, both = (chances(predicted(*runs, stdin=lines)) for runs in (
        [made.classifier], [made.classifier_b], [made.classifier, made.classifier_b]))
    assert both == pytest.approx((one + other) / 2, abs=2e-6) and np.abs(one - other).max() > 1e-3


def test_several_classifiers_are_evaluated_by_the_mean_of_their_probabilities(made):
    texts, labels = zip(*films(6, 1))
    found = evaluated(made.classifier, made.classifier_b)
    each = [alone(run, texts) for run in (made.classifier, made.classifier_b)]
    targets = [["bad", "good", "so"].index(label) for label in labels]
    assert found["loss"] == pytest.approx(log_loss(np.mean(each, axis=0), targets), abs=1e-6)


# --- generate ---

def written(run: Path, *args) -> str: return ok("generate", run, *args).removesuffix("\n")


def test_what_is_generated_begins_with_the_prompt(made):
    assert written(made.lm, "--prompt", "the film was", "--words", "6").startswith("the film was ")


def test_a_backwards_model_writes_before_the_prompt(made):
    assert written(made.lm_b, "--prompt", "film was fine", "--words", "6").endswith(" film was fine")


def test_no_words_are_the_prompt(made):
    assert written(made.lm, "--prompt", "The film was great", "--words", "0") == "The film was great"


def lm_ids(made, words: int, seed: int = 0, **how) -> list[int]:
    b = bundle.load(made.lm)
    return generate(b.model, b.vocab.ids(["xxbos", "the"]), words, torch.Generator().manual_seed(seed), **how)


def test_as_many_words_are_generated_as_asked_for(made): assert len(lm_ids(made, 17)) == 17


def test_a_seed_decides_the_text(made):
    a, b, c = (written(made.lm, "--words", "25", "--seed", s) for s in "112")
    assert a == b != c


@pytest.mark.parametrize("how", [["--top-k", "1"], ["--top-p", "1e-9"], ["--temperature", "1e-4"]],
                         ids=lambda how: how[0])
def test_the_likeliest_words_do_not_depend_on_the_seed(made, how):
    likeliest = written(made.lm, "--top-k", "1", "--words", "12")
    assert {written(made.lm, *how, "--words", "12", "--seed", s) for s in "123"} == {likeliest}


def test_the_unknown_word_is_not_written_unless_it_is_allowed(made):
    b = bundle.load(made.lm)
    with torch.no_grad(): b.model.decoder_bias[b.vocab.unk] = 99.0
    prompt, rng = [b.vocab.bos], torch.Generator().manual_seed(0)
    assert b.vocab.unk in generate(b.model, prompt, 9, rng)
    assert b.vocab.unk not in generate(b.model, prompt, 9, rng, banned=[b.vocab.unk])


def test_generating_from_the_state_equals_reading_the_text_again(made):
    b, out = bundle.load(made.lm), [2, 9]
    for _ in range(8): out.append(int(b.model(torch.tensor(out)[:, None])[0][-1, 0].argmax()))
    assert lm_ids(made, 8, top_k=1) == generate(b.model, b.vocab.ids(["xxbos", "the"]), 8, torch.Generator(), top_k=1)
    assert generate(b.model, [2, 9], 8, torch.Generator(), top_k=1) == out[2:]


logits = st.lists(st.floats(-9, 9, width=32), min_size=2, max_size=12, unique=True).map(torch.tensor)


@settings(deadline=None, max_examples=80)
@given(logits, st.floats(0.1, 3), st.integers(0, 14), st.floats(0.01, 1))
def test_filtered_probabilities_keep_the_likeliest(scores, temperature, k, top_p):
    p, plain = filtered(scores, temperature, k, top_p), (scores.double() / temperature).softmax(dim=0)
    assert float(p.sum()) == pytest.approx(1) and int(p.argmax()) == int(plain.argmax())
    kept = p > 0
    assert not k or int(kept.sum()) <= k
    assert kept.all() or float(plain[kept].min()) >= float(plain[~kept].max())


def test_top_p_keeps_as_many_words_as_make_it_up():
    assert (filtered(torch.tensor([0.5, 0.3, 0.15, 0.05]).log(), 1, 0, 0.7) > 0).tolist() == [True, True, False, False]


@pytest.mark.parametrize("tokens, text", [
    ("xxbos xxmaj the xxup bbc , ( a film ) .", "The BBC, (a film)."), ("xxrep 3 ! it 's", "!!! it's"),
    ("xxwrep 3 no", "no no no "),
    ("xxmaj", ""), ("xxrep", ""), ("xxrep x y", "y"), ("it does n't", "it doesn't"), ("a xxeos b", "a b")])
def test_tokens_are_written_as_text(tokens, text): assert write_out(tokens.split()) == text


# --- embed ---

def pooled(run: Path, text: str, layer: int = -1) -> np.ndarray:
    b = bundle.load(run)
    ids = documents(b, [text])[0]
    if b.backwards: ids = np.concatenate([ids[:1], ids[:0:-1]])
    with torch.no_grad(): x = b.model.encoder(torch.from_numpy(ids)[:, None]).layers[layer][:, 0]
    return torch.cat([x[-1], x.amax(dim=0), x.mean(dim=0)]).numpy()


@pytest.mark.parametrize("run, layer, width",
                         [("lm", -1, 24), ("lm", 0, 36), ("lm_b", -1, 24), ("classifier", -1, 24)])
@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_a_vector_is_the_concat_pooling_of_a_layer(made, tmp_path, run, layer, width, suffix):
    source, out = table(tmp_path / "t.csv", [(t,) for t in TEXTS], ["text"]), tmp_path / f"out{suffix}"
    ok("embed", made.root / run, "--input", source, "--output", out, "--layer", layer)
    found = np.load(out) if suffix == ".npy" else np.loadtxt(out, delimiter=",")
    assert found.shape == (len(TEXTS), width)
    assert found == pytest.approx(np.stack([pooled(made.root / run, t, layer) for t in TEXTS]), abs=1e-5)


@pytest.mark.parametrize("run", ["lm", "lm_b"])
@pytest.mark.parametrize("limit", [70, 8], ids=["whole", "only the end that is read"])
def test_a_vector_of_a_token_is_the_output_there(made, tmp_path, run, limit):
    "With the name of the token beside it; of a document longer than `max_length` only what is pooled."
    text, b = "The film was dull , the story great and lovely and fine", bundle.load(made.root / run)
    ok("embed", made.root / run, "--output", tmp_path / "v.npy", "--tokens", "--bptt", "4", "--max-length", limit,
       stdin=text)
    ids = documents(b, [text])[0]
    order = np.r_[0, len(ids) - 1:0:-1] if b.backwards else np.arange(len(ids))
    with torch.no_grad(): x = b.model.encoder(torch.from_numpy(ids[order])[:, None]).last[:, 0].numpy()
    skipped = -(-max(0, len(ids) - limit) // 4) * 4
    places = sorted(order[skipped:])
    names, = tmp_path.glob("*tokens.csv")
    assert [(r["document"], r["token"]) for r in rows(names.read_text())] == [
        ("0", b.vocab.tokens[ids[i]]) for i in places]
    assert np.load(tmp_path / "v.npy") == pytest.approx(x[[list(order).index(i) for i in places]], abs=1e-5)


# --- wrong use ---

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
        "no such encoding": lambda: (bad("text,label\n", "--encoding", "klingon"), ["'klingon'"]),
        "one class": lambda: (bad("text,label\na,x\nb,x\n"), ["one class", "x"]),
        "a class without training examples": lambda: (
            ["classify", "--dataset", table(table(tmp / "d/train.csv", films(4, 0)).with_name("test.csv"),
                                            [("a", "odd")]).parent, *SCRATCH, "--out", new],
            ["'odd'", "test", "train"]),
        "a folder that is no model": lambda: (["predict", tmp], ["is not a model", "config.json"]),
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
        "labels of a corpus without": lambda: (
            ["classify", "--dataset", write(tmp / "t.txt", "a\n\nb"), *SCRATCH, "--out", new],
            ["t.txt", "classification"]),
        "too many labels asked for": lambda: (classify("--labelled", "999"), ["999"]),
        "too few rates": lambda: (pretrain("--rates", "[1, 2]"), ["--rates", "2", "3"]),
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
