"What one does with a trained model from the command line: evaluate, predict, generate, embed."
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import CLASSIFY, FINETUNE, SCRATCH, command, films, ok, record, rows, table, write
from hypothesis import example, given, settings, strategies as st
from ulmfit.generate import filtered, generate, write_out
from ulmfit.model import bundle
from ulmfit.model.classifier import log_loss
from ulmfit.model.inference import documents


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


def test_a_model_fine_tuned_on_texts_without_labels_is_evaluated_on_what_it_has_not_read(made, tmp_path):
    "No texts for testing were held out before those for validation."
    text = write(tmp_path / "t.txt", "\n\n".join(t for t, _ in films(8, 3)))
    ok("finetune_lm", "--dataset", text, "--model", made.lm, *FINETUNE, "--out", tmp_path / "run")
    found = evaluated(tmp_path / "run", "--split", "valid", "--batch", "4")["loss"]
    assert found == pytest.approx(record(tmp_path / "run")["result"]["valid_loss"], abs=1e-6)
    assert "no split test" in command("evaluate", tmp_path / "run").err


def test_a_language_model_is_evaluated_on_any_text(made, tmp_path):
    found = evaluated(made.lm, "--corpus", write(tmp_path / "t.txt", "The film was fine ,\n\nThe zyzzyva was dull ,"),
                      "--split", "train")
    assert found["tokens"] == 2 * 7 - 1 and found["perplexity"] == pytest.approx(np.exp(found["loss"]))
    assert found["unknown_percent"] == pytest.approx(100 / 14)


def test_a_file_for_testing_alone_is_evaluated(made, tmp_path):
    "Also where all of it is of one class; what the model does not know is refused."
    for texts in films(6, 1), [d for d in films(6, 1) if d[1] == "so"]:
        found = evaluated(made.classifier, "--dataset", table(tmp_path / f"{len(texts)}/test.csv", texts))
        assert found["documents"] == len(texts)
    assert found["error_of_class"]["bad"] is None and found["error_of_class"]["so"] == found["error"]
    r = command("evaluate", made.classifier, "--dataset", table(tmp_path / "test.csv", [("a", "odd")]))
    assert r.code == 1 and "odd" in r.err


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


def test_a_class_may_be_called_label(tmp_path):
    data = table(tmp_path / "d.csv", [("a b", "label"), ("c d", "other")] * 8)
    ok("classify", "--dataset", data, *SCRATCH, "--epochs", "1", "--out", tmp_path / "run")
    found, = predicted(tmp_path / "run", stdin="a b")
    p = [float(found[c]) for c in ("label (class)", "other")]
    assert found["label"] == ["label", "other"][p[1] > p[0]] and sum(p) == pytest.approx(1, abs=3e-6)


def test_no_text_gives_no_prediction(made): assert predicted(made.classifier, stdin="") == []


def test_several_classifiers_give_the_mean_of_their_probabilities(made):
    lines = "\n".join(t for t in TEXTS if "\n" not in t)
    one, other, both = (chances(predicted(*runs, stdin=lines)) for runs in (
        [made.classifier], [made.classifier_b], [made.classifier, made.classifier_b]))
    assert both == pytest.approx((one + other) / 2, abs=2e-6) and np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("split", ["test", "valid"])
def test_what_several_classifiers_held_out_must_be_the_same(made, tmp_path, split):
    "Else each is tested on what another has learnt."
    how = ["--dataset", made.one, "--model", made.lm, *CLASSIFY, "--epochs", "1"]
    for seed in "01":
        ok("classify", *how, "--seed", seed, "--out", tmp_path / seed)
        ok("classify", *how, "--seed", seed, "--split-seed", "3", "--out", tmp_path / f"same{seed}")
    r = command("evaluate", tmp_path / "0", tmp_path / "1", "--split", split)
    assert r.code == 1 and "--split-seed" in r.err.splitlines()[-1]
    assert evaluated(tmp_path / "same0", tmp_path / "same1", "--split", split)["documents"] > 0


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
@example(torch.tensor([0.0, 9.0, 1e-9]), 1.75, 0, 0.9921875)
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
    ("xxwrep 3 no", "no no no"), ("xxwrep 2 xxmaj no way", "No No way"), ("xxwrep 2 xxup no", "NO NO"),
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
