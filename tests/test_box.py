"Models that travel with the code: 8-bit weights, names, what the stages start from where nothing is said."
import json

import pytest
import torch
from commands import CLASSIFY, FINETUNE, command, ok, record
from corpora import says
from hypothesis import given, strategies as st
from ulmfit.model import bundle
from ulmfit.model.compact import compact, expand


@pytest.fixture
def box(made, tmp_path, monkeypatch):
    "A `data/models` with `tiny` in it, in both directions."
    monkeypatch.setattr(bundle, "MODELS", tmp_path / "models")
    for run, direction in (made.lm, "forwards"), (made.lm_b, "backwards"):
        ok("export", run, "--out", tmp_path / "models/tiny" / direction)
    return tmp_path / "models/tiny"


# --- 8 bits a weight ---

@given(rows=st.integers(1, 6), columns=st.integers(1, 6), size=st.floats(1e-20, 1e20), seed=st.integers(0, 99))
def test_an_entry_is_half_a_step_off_at_most(rows, columns, size, seed):
    w = size * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    found = expand(compact(dict(w=w)))["w"]
    step = w.abs().amax(dim=1, keepdim=True) / 127
    assert ((found - w).abs() <= 0.5001 * step).all()


def test_rows_of_zeros_and_vectors_stay_what_they_are():
    weights = dict(w=torch.tensor([[0.0, 0.0], [1.0, -1.0]]), b=torch.tensor([0.1, 1 / 3]))
    found = expand(compact(weights))
    assert all(torch.equal(found[k], weights[k]) for k in weights) and found.keys() == weights.keys()


def test_a_matrix_takes_a_byte_an_entry():
    stored = compact(dict(w=torch.randn(4, 8)))
    assert (stored["w"].dtype, stored["w.scale"].shape) == (torch.int8, (4,))


@pytest.mark.parametrize("run", ["lm", "classifier"])
def test_a_compact_bundle_opens_as_any_other(made, tmp_path, run):
    ok("export", made.root / run, "--out", tmp_path / "b")
    old, new = bundle.load(made.root / run), bundle.load(tmp_path / "b")
    assert (new.kind, new.vocab, new.classes, new.tokenizer) == (old.kind, old.vocab, old.classes, old.tokenizer)
    for name, w in old.model.state_dict().items():
        torch.testing.assert_close(new.model.state_dict()[name], w, rtol=0, atol=w.abs().max().item() / 250)


def test_an_expanded_bundle_saved_again_is_the_same(box, tmp_path):
    "Nothing creeps: a compact bundle of a compact bundle has its weights."
    ok("export", box / "forwards", "--out", tmp_path / "again")
    for name, w in bundle.load(box / "forwards").model.state_dict().items():
        torch.testing.assert_close(bundle.load(tmp_path / "again").model.state_dict()[name], w, rtol=1e-6, atol=0)


# --- by name ---

def test_a_model_goes_by_its_name_and_direction(box, made, tmp_path):
    out = ok("finetune_lm", "--dataset", made.data, "--model", "tiny", "--backwards", *FINETUNE, "--max-steps", 1,
             "--out", tmp_path / "run")
    assert "starting from tiny (backwards, " in out and "tokens were known" in out
    assert record(tmp_path / "run")["model"] == bundle.fingerprint(box / "backwards")
    assert bundle.load(tmp_path / "run").backwards


def test_a_folder_wins_over_a_name(box, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bundle.located("tiny") == box / "forwards"
    (tmp_path / "tiny").mkdir()
    assert bundle.located("tiny") == tmp_path.__class__("tiny")


def test_an_unknown_name_is_answered_with_those_there_are(box):
    with says("huge: no such run or model (models by name: tiny)"): bundle.load("huge")


@pytest.mark.parametrize("stage, how", [("finetune_lm", FINETUNE), ("classify", CLASSIFY)])
def test_a_stage_starts_from_en_small_unless_told_otherwise(box, made, tmp_path, stage, how):
    box.rename(box.with_name("en-small"))
    out = ok(stage, "--dataset", made.data, *how, "--max-steps", 1, "--out", tmp_path / "run")
    assert "starting from en-small (forwards, " in out


def test_the_target_alone(made, tmp_path):
    out = ok("finetune_lm", "--dataset", made.data, "--model", "none", "--backwards", "--emb", 8, "--hidden", 12,
             "--layers", 2, *FINETUNE, "--max-steps", 1, "--out", tmp_path / "run")
    assert "starting from random weights" in out and "known" not in out
    assert record(tmp_path / "run")["model"] is None and bundle.load(tmp_path / "run").backwards


def test_how_many_words_a_classifier_does_not_know_is_said(made, tmp_path):
    strange = tmp_path / "strange.csv"
    strange.write_text("text,label\n" + "uvw xyz,a\nuvw klm,b\n" * 8)
    out = ok("classify", "--dataset", strange, "--model", made.lm, *CLASSIFY, "--max-steps", 1, "--out", tmp_path / "r")
    assert "66.7% of the words unknown" in out


def test_a_compact_bundle_says_its_format(box):
    assert json.loads((box / "forwards/config.json").read_text())["format"] == 3


def test_export_of_nothing(tmp_path):
    r = command("export", tmp_path / "none")
    assert r.code == 1 and "no such run or model" in r.err
