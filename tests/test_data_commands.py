"`ulmfit.data`, `prepare` and `merge` as people type them, and subwords through all stages."
import hashlib
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from commands import CLASSIFY, FINETUNE, PRETRAIN, SCRATCH, command, films, ok, record, rows, table, write
from ulmfit.corpus.store import Corpus
from ulmfit.text.tokenizer import Tokenizer

CARD = """name = "questions"
kinds = ["classification"]
reader = "trec"
documents = { train = { LOC = 1, NUM = 2 }, test = { NUM = 1 } }
how = "ask for them"
[[files]]
split = "train"
name = "train.label"
bytes = BYTES
sha256 = "SHA"
partial = ["some.label"]
[[files]]
split = "test"
name = "test.label"
"""
TRAIN, TEST = "NUM:dist How far ?\nLOC:city Which city ?\nNUM:date When ?\n", "NUM:date What year ?\n"


@pytest.fixture
def questions(library) -> Path:
    "A dataset that has a card, and all its files."
    write(library / "questions.toml", CARD.replace("BYTES", str(len(TRAIN))).replace(
        "SHA", hashlib.sha256(TRAIN.encode()).hexdigest()))
    write(library / "downloads/questions/train.label", TRAIN)
    write(library / "downloads/questions/test.label", TEST)
    return library / "downloads/questions"


def fails(*args) -> str:
    "The one line that a command ends with."
    r = command(*args)
    lines = [line for line in r.err.splitlines() if not line.startswith("note: ")]
    assert r.code == 1 and len(lines) == 1, r.err
    return lines[0]


# --- list, get, check ---

def listed() -> list[str]: return ok("data", "list").splitlines()[1].split(maxsplit=3)


def test_list_says_what_is_here_and_where(questions):
    assert listed() == ["questions", "classification", "here", str(questions)]


def test_list_names_what_is_missing(questions):
    (questions / "test.label").unlink()
    assert listed()[2:] == ["in", f"part  {questions}, without test.label"]


def test_list_names_what_is_a_part(questions):
    (questions / "train.label").rename(questions / "some.label")
    assert listed()[2:] == ["in", f"part  {questions}, only some.label"]


def test_list_names_what_is_damaged(questions):
    write(questions / "train.label", TRAIN.replace("far", "fat"))
    assert "damaged" in listed() and "sha256" in listed()[3]


def test_list_says_how_to_get_what_has_no_address(questions):
    for p in questions.iterdir(): p.unlink()
    assert listed()[2:] == ["missing", "no address: ask for them"]


def test_get_says_where_a_file_is(questions):
    assert ok("data", "get", "questions").splitlines()[0] == f"train.label: {questions / 'train.label'}"


def test_get_names_what_it_cannot_fetch(questions):
    (questions / "test.label").unlink()
    assert "test.label is not here" in (said := fails("data", "get", "questions")) and "ask for them" in said


def test_check_holds_the_numbers_against_the_card(questions):
    said = ok("data", "check", "questions").splitlines()
    assert said == ["train: 3 documents, 8 words", "    LOC: 1", "    NUM: 2",
                    "test: 1 documents, 3 words", "    NUM: 1", "as the card says"]


def test_check_names_a_number_that_is_not_the_cards(questions):
    write(questions / "test.label", TEST * 2)
    r = command("data", "check", "questions")
    assert r.code == 1 and "test: 2 (the card says 1) documents" in r.out and "2 found where the card says 1" in r.err


def test_check_of_a_part_names_the_numbers_of_the_whole(questions):
    (questions / "train.label").unlink()
    write(questions / "some.label", TRAIN[:19])
    r = command("data", "check", "questions")
    assert r.code == 0 and "train: 1 (the card says 3) documents" in r.out and "only a part" in r.err


def test_check_looks_into_a_compressed_copy(questions):
    import gzip
    (questions / "train.label").unlink()
    (questions / "train.label.gz").write_bytes(gzip.compress(TRAIN.replace("far", "fat").encode()))
    assert "train.label.gz" in (said := fails("data", "check", "questions")) and "sha256 of its content" in said


def test_check_of_a_prepared_corpus_finds_a_changed_byte(tmp_path, library):
    ok("prepare", table(tmp_path / "t.csv", films(3, 0)), "--out", tmp_path / "c", "--workers", "1")
    assert "every file is as it was written" in ok("data", "check", tmp_path / "c")
    path = tmp_path / "c/train.ids.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert "train.ids.npy is damaged" in fails("data", "check", tmp_path / "c")


@pytest.mark.parametrize("args, said", [
    (["look"], "'look'"), (["show"], "which dataset"), (["get", "nothing"], "'nothing'"),
    (["show", "questions", "--documents", "-1"], "--documents")])
def test_wrong_use_of_data_is_one_line(questions, args, said): assert said in fails("data", *args)


def test_show_is_the_report_and_a_picture(questions, tmp_path):
    pytest.importorskip("matplotlib")
    said = ok("data", "show", "questions", "--min-freq", "1", "--plot", tmp_path / "q.png")
    assert "identical documents" in said and (tmp_path / "q.png").read_bytes().startswith(b"\x89PNG")


# --- prepare and merge ---

def test_shards_are_prepared_and_joined(tmp_path, library):
    data = table(tmp_path / "t.csv", films(200, 0))
    ok("prepare", data, "--out", tmp_path / "one", "--workers", "1")
    for i in (1, 2): assert "ulmfit.merge" in ok("prepare", data, "--out", tmp_path / f"s{i}", "--shard", f"{i}/2")
    ok("merge", tmp_path / "s2", tmp_path / "s1", "--out", tmp_path / "joined")
    assert Corpus(tmp_path / "joined").fingerprint == Corpus(tmp_path / "one").fingerprint


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "/", "1/0"])
def test_a_shard_that_cannot_be_is_named(tmp_path, library, shard):
    assert f"--shard {shard}" in fails("prepare", table(tmp_path / "t.csv", films(2, 0)), "--shard", shard)


@pytest.mark.parametrize("flag, value", [("--workers", "0"), ("--workers", "-1"), ("--out", "."), ("--out", "/")])
def test_a_setting_that_cannot_be_is_named(tmp_path, library, flag, value):
    assert f"{flag} {value}: " in fails("prepare", table(tmp_path / "t.csv", films(2, 0)), flag, value)


def test_a_run_says_that_its_data_are_a_part(questions, tmp_path):
    (questions / "train.label").unlink()
    write(questions / "some.label", "".join(f"{c}:x Is {i} a {c} ?\n" for i in range(9) for c in ("LOC", "NUM")))
    ok("classify", "--dataset", "questions", *SCRATCH, "--out", tmp_path / "run")
    assert record(tmp_path / "run")["notes"] == ["questions: some.label is only a part of train.label"]


# --- subwords through all stages ---

@pytest.mark.skipif(not importlib.util.find_spec("sentencepiece"), reason="SentencePiece is an extra")
def test_subwords_serve_all_stages_without_being_named_again(tmp_path, library):
    general = write(tmp_path / "general.txt", "\n\n".join(text for text, _ in films(30, 1)))
    data = table(tmp_path / "films.csv", [(f"{text} quite unlike the others", label) for text, label in films(20, 0)])
    ok("pretrain", "--corpus", general, *PRETRAIN, "--tokenizer", "subwords", "--subwords", "90",
       "--out", tmp_path / "a")
    said = ok("finetune_lm", "--dataset", data, "--model", tmp_path / "a", *FINETUNE, "--out", tmp_path / "b")
    assert re.search(r"\nvocabulary: (\d+) of \1 tokens were known, 100.0% of the running text\n", said)
    ok("classify", "--dataset", data, "--model", tmp_path / "b", *CLASSIFY, "--out", tmp_path / "c")
    vocabularies = [(tmp_path / run / "model/vocab.json").read_text() for run in "abc"]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]
    found, = rows(ok("predict", tmp_path / "c", stdin="A fine film\n"))
    assert found["label"] in ("bad", "good", "so")
    assert "▁" not in ok("generate", tmp_path / "b", "--prompt", "The film", "--words", "8")
    ok("embed", tmp_path / "b", "--input", data, "--output", tmp_path / "v.npy")
    assert len(np.load(tmp_path / "v.npy")) == 60
    assert Tokenizer.from_dict(Corpus(next((library / "prepared").glob("films-class*"))).manifest["tokenizer"]).model
