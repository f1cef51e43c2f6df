"Preparation: ids that decode to the tokens, whole or absent, the same however they were made."
import json
import signal
import subprocess
import sys
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from corpora import says, write
from fastcore.script import CliError
from ulmfit.corpus import prepare as preparing
from ulmfit.corpus.prepare import prepare, prepared
from ulmfit.corpus.source import Source
from ulmfit.corpus.shards import merge
from ulmfit.corpus.store import Corpus, check_files, smallest_type
from ulmfit.corpus.writer import CorpusWriter
from ulmfit.text.memo import Memo
from ulmfit.text.rules import SCRIPTS
from ulmfit.text.tokenizer import Tokenizer

tokenizer = Tokenizer()
pytestmark = pytest.mark.usefixtures("library")


rows = [("A good film, GOOD!", "pos"), ("", "neg"), ("Bad bad bad <br /> film", "neg"), ("so so", "mid"),
        ("film film", "pos")] * 3


def source(documents: list | None = None, **more) -> Source:
    documents = rows if documents is None else documents
    parts = [("train", d) for d in documents] + [("test", d) for d in documents[::-1]]
    return Source("films", "classification", lambda: iter(parts), **more)


def tokens(corpus: Corpus, split: str) -> list[list[str]]:
    return [[corpus.lexicon[i] for i in corpus.splits[split][n]] for n in range(len(corpus.splits[split]))]


def test_a_prepared_corpus_decodes_to_the_tokens(tmp_path):
    corpus = prepare(source(), tokenizer, tmp_path / "c", 1)
    assert tokens(corpus, "train") == [tokenizer(text) for text, _ in rows]
    assert tokens(corpus, "test") == [tokenizer(text) for text, _ in rows[::-1]]


def test_labels_are_numbers_of_the_sorted_classes(tmp_path):
    corpus = prepare(source(), tokenizer, tmp_path / "c", 1)
    assert corpus.classes == ["mid", "neg", "pos"]
    assert [corpus.classes[i] for i in corpus.splits["test"].labels] == [label for _, label in rows[::-1]]


def test_offsets_cut_the_ids_into_documents(tmp_path):
    docs = prepare(source(), tokenizer, tmp_path / "c", 1).splits["train"]
    assert docs.offsets.tolist() == np.cumsum([0, *(len(tokenizer(text)) for text, _ in rows)]).tolist()
    assert len(docs.ids) == docs.offsets[-1]


def test_the_lexicon_has_the_most_frequent_first_and_ties_by_token(tmp_path):
    corpus = prepare(source(), tokenizer, tmp_path / "c", 1)
    counts = Counter(t for s in corpus.splits for d in tokens(corpus, s) for t in d)
    assert corpus.lexicon == sorted(counts, key=lambda t: (-counts[t], t))


@pytest.mark.parametrize("n, dtype", [(0, "u1"), (1, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (65537, "u4")])
def test_ids_have_the_smallest_type(n, dtype): assert smallest_type(n) == np.dtype(dtype)


@pytest.mark.parametrize("n, dtype", [(250, "u1"), (300, "u2")])
def test_a_lexicon_decides_the_type_of_the_ids_on_disk(tmp_path, n, dtype):
    corpus = prepare(source([(f"word{i}", "ab"[i % 2]) for i in range(n)]), Tokenizer("words"), tmp_path / "c", 1)
    assert np.load(tmp_path / "c/train.ids.npy").dtype == np.dtype(dtype) and len(corpus.lexicon) == n + 1


def files(folder: Path) -> dict[str, bytes]: return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def small_blocks(monkeypatch): monkeypatch.setattr(preparing, "BLOCK", 2)


@pytest.mark.parametrize("tokenizer", [Tokenizer(), Tokenizer("words")], ids=["spacy", "words"])
def test_preparation_does_not_depend_on_the_number_of_processes(tmp_path, small_blocks, tokenizer):
    for workers in (1, 2, 3): prepare(source(), tokenizer, tmp_path / str(workers), workers)
    assert files(tmp_path / "1") == files(tmp_path / "2") == files(tmp_path / "3")


def test_a_memory_that_begins_anew_changes_nothing(tmp_path, small_blocks, monkeypatch):
    prepare(source(), tokenizer, tmp_path / "a", 2)
    monkeypatch.setattr(preparing, "memo", lru_cache(lambda tokenizer: Memo(tokenizer, most=3)))
    prepare(source(), tokenizer, tmp_path / "b", 2)
    assert files(tmp_path / "a") == files(tmp_path / "b")


# --- shards ---

@pytest.mark.parametrize("n", [1, 2, 3, 7, 30])
def test_shards_joined_are_the_corpus_of_one_run(tmp_path, small_blocks, n):
    "For more shards than blocks too, and joined in any order."
    prepare(source(), tokenizer, tmp_path / "one", 1)
    for i in range(1, n + 1): assert prepare(source(), tokenizer, tmp_path / f"s/{i}", 1, (i, n)) is None
    merge(sorted((tmp_path / "s").iterdir(), reverse=True), tmp_path / "joined")
    assert files(tmp_path / "one") == files(tmp_path / "joined")


def test_shards_of_a_source_with_mixed_splits_are_the_corpus_of_one_run(tmp_path, small_blocks):
    "Splits that take turns, documents without a label, a class that only one shard has seen."
    documents = [(split, (f"text {i} of {split}", label)) for i in range(9) for split, label in
                 [("train", "ab"[i % 2]), ("unsup", None), ("test", "b")]] + [("train", ("rare", "c"))]
    mixed = Source("mixed", "classification", lambda: iter(documents))
    prepare(mixed, tokenizer, tmp_path / "one", 2)
    for i in (1, 2, 3): prepare(mixed, tokenizer, tmp_path / f"{i}", 1, (i, 3))
    merge([tmp_path / str(i) for i in (1, 2, 3)], tmp_path / "joined")
    assert files(tmp_path / "one") == files(tmp_path / "joined")


@pytest.fixture
def shards(tmp_path, small_blocks) -> list[Path]:
    for i in (1, 2): prepare(source(), tokenizer, tmp_path / f"s{i}", 1, (i, 2))
    return [tmp_path / "s1", tmp_path / "s2"]


def test_a_shard_is_no_corpus(shards):
    with says("shard 1 of 2", "ulmfit.merge"): Corpus(shards[0])


def test_not_all_the_shards_are_refused(tmp_path, shards):
    with says("1/2"): merge(shards[:1], tmp_path / "joined")
    with says("1/2"): merge([shards[0], shards[0]], tmp_path / "joined")


def test_a_shard_of_another_corpus_is_named_with_what_differs(tmp_path, shards):
    prepare(source(), Tokenizer(lang="de"), tmp_path / "other", 1, (2, 2))
    with says("other", "lang: de there, en here"): merge([shards[0], tmp_path / "other"], tmp_path / "joined")


def test_a_damaged_shard_is_refused(tmp_path, shards):
    data = bytearray((shards[1] / "train.ids.npy").read_bytes())
    data[-1] ^= 1
    (shards[1] / "train.ids.npy").write_bytes(data)
    with says("train.ids.npy", "damaged"): merge(shards, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_what_a_card_promises_is_seen_when_shards_are_joined(tmp_path, small_blocks):
    less = source(expected=dict(train=99))
    for i in (1, 2): prepare(less, tokenizer, tmp_path / f"s{i}", 1, (i, 2))
    with says("15 documents in train", "99"): merge([tmp_path / "s1", tmp_path / "s2"], tmp_path / "joined")


# --- whole or absent ---

def test_a_prepared_folder_appears_only_when_it_is_complete(tmp_path):
    def broken():
        yield "train", ("a", "x")
        raise CliError("no more")
    with says("no more"): prepare(Source("s", "classification", broken), tokenizer, tmp_path / "c", 1)
    assert not list(tmp_path.glob("c*"))


def test_preparation_does_not_remove_a_folder_that_is_no_prepared_corpus(tmp_path):
    "`--out` may be a slip."
    mine = write(tmp_path / "mine/thesis.txt", "years of work")
    try: prepare(source(), tokenizer, tmp_path / "mine", 1)
    except CliError as e: assert "mine" in str(e)
    assert mine.exists()


@pytest.mark.parametrize("out, what", [("n" * 300, "too long"), ("a_file/c", "File exists")])
def test_a_folder_that_cannot_be_is_named(tmp_path, out, what):
    write(tmp_path / "a_file", "")
    with says("cannot be written", what): prepare(source(), tokenizer, tmp_path / out, 1)


def test_a_place_where_nothing_can_be_written_is_not_taken_for_a_busy_one():
    with says("cannot be written"): prepare(source(), tokenizer, Path("/proc/c"), 1)


def test_what_came_while_it_waited_is_kept(tmp_path):
    writer = CorpusWriter(tmp_path / "c")
    mine = write(tmp_path / "c/thesis.txt", "years of work")
    with says("c is there already"): writer.__enter__()
    assert mine.exists() and not list(tmp_path.glob(".c*"))


@pytest.mark.parametrize("content", ["{}", "[]", '{"name": "a web app", "icons": []}', '{"format": 2}'])
def test_a_manifest_of_something_else_is_named(tmp_path, content):
    write(tmp_path / "c/manifest.json", content)
    with says("manifest.json", "not the manifest of a prepared corpus"): prepare(source(), tokenizer, tmp_path / "c", 1)


def test_a_source_is_prepared_once_for_its_content_and_tokenizer(tmp_path, library):
    path = write(tmp_path / "t.csv", "text,label\na b,x\nc d,y\n")
    one = prepared(str(path), None, tokenizer)
    assert prepared(str(path), None, tokenizer).folder == one.folder and one.folder.parent == library / "prepared"
    assert prepared(str(path), None, Tokenizer(lang="de")).folder != one.folder
    write(path, "text,label\na b,x\nc e,y\n")
    assert prepared(str(path), None, tokenizer).folder != one.folder


def test_a_prepared_corpus_of_another_format_is_refused(tmp_path):
    folder = prepare(source(), tokenizer, tmp_path / "c", 1).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    write(folder / "manifest.json", json.dumps(manifest | dict(format=99)))
    with says("99", "prepare it again"): Corpus(folder)


def test_a_corpus_of_no_text_is_an_error(tmp_path):
    with says("no text"): prepare(Source("s", "lm", lambda: iter([])), tokenizer, tmp_path / "c", 1)


def test_a_writer_leaves_nothing_behind_where_it_is_not_finished(tmp_path):
    with CorpusWriter(tmp_path / "c") as w: w.add("train", np.array([w.lexicon["a"]] * 2), [2], None)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_a_killed_preparation_leaves_nothing_that_looks_finished(tmp_path):
    "And the next one is not disturbed by what is left."
    program = f"""
import os
from pathlib import Path
from ulmfit.corpus.prepare import prepare
from ulmfit.corpus.source import Source
from ulmfit.text.tokenizer import Tokenizer
def documents():
    for i in range(2000): yield "train", (f"text {{i}}", None)
    os.kill(os.getpid(), 9)
prepare(Source("s", "lm", documents), Tokenizer("words"), Path({str(tmp_path / "c")!r}), 1)
"""
    # its output ends when the last of the processes that it had started does
    killed = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE,
                            timeout=30)
    assert killed.returncode == -9
    assert not (tmp_path / "c").exists() and list(tmp_path.glob(".c.part/*"))
    corpus = prepare(Source("s", "lm", lambda: iter([("train", ("a b", None))])), Tokenizer("words"), tmp_path / "c", 1)
    assert tokens(corpus, "train") == [["a", "b", "xxeos"]] and not list(tmp_path.glob(".c*"))


@pytest.mark.parametrize("number, said, everyone", [
    (signal.SIGINT, "interrupted", True), (signal.SIGTERM, "terminated", True), (signal.SIGTERM, "terminated", False)])
def test_a_signal_is_one_line_and_leaves_nothing(tmp_path, number, said, everyone):
    "To all processes, as a terminal and a service manager send it, or to the first alone; the others end as well."
    program = f"""
import os
from pathlib import Path
from ulmfit.corpus.prepare import prepare
from ulmfit.corpus.source import Source
from ulmfit.text.tokenizer import Tokenizer
from ulmfit.training.signals import heed
heed()
def documents():
    for i in range(9000): yield "train", (f"text {{i}}", None)
    os.kill({0 if everyone else "os.getpid()"}, {int(number)})
    while True: yield "train", ("more", None)
prepare(Source("s", "lm", documents), Tokenizer("words"), Path({str(tmp_path / "c")!r}), 2)
"""
    # its output ends when the last of its processes does
    r = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], capture_output=True, text=True,
                       start_new_session=True, timeout=60)
    assert (r.returncode, r.stderr) == (128 + number, f"{said}\n")
    assert not list(tmp_path.glob("*c*"))


def test_two_preparations_of_one_folder_are_one_too_many(tmp_path):
    with CorpusWriter(tmp_path / "c") as first:
        with says("c is being prepared by another process"): prepare(source(), tokenizer, tmp_path / "c", 1)
        assert first.part.is_dir()  # and the first goes on
    prepare(source(), tokenizer, tmp_path / "c", 1)


def test_a_full_disk_leaves_nothing_and_what_was_there(tmp_path):
    "A limit on the size of files stands for the disk."
    prepare(source(), tokenizer, tmp_path / "before", 1)
    before = files(tmp_path / "before")
    program = f"""
import resource
from pathlib import Path
from fastcore.script import CliError
from ulmfit.corpus.prepare import prepare
from ulmfit.corpus.source import Source
from ulmfit.text.tokenizer import Tokenizer
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
documents = [("train", ("many words are here " * 100, None))] * 2000
try: prepare(Source("s", "lm", lambda: iter(documents)), Tokenizer("words"), Path({str(tmp_path / "c")!r}), 1)
except CliError as e: print(e)
"""
    r = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert r.stdout.endswith("/c cannot be written (File too large); nothing is left of it\n"), r.stdout + r.stderr
    assert not list(tmp_path.glob("*c*")) and files(tmp_path / "before") == before


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path):
    path = write(tmp_path / "t.txt", "one\n\ntwo\n")

    def documents():
        yield "train", ("one", None)
        write(path, "one\n\ntwo\n\nthree\n")
    with says("t.txt was changed while it was read"):
        prepare(Source("s", "lm", documents, [path]), tokenizer, tmp_path / "c", 1)
    assert not (tmp_path / "c").exists()


# --- what is there already ---

def test_what_is_there_is_not_prepared_again(tmp_path):
    one = prepare(source(), tokenizer, tmp_path / "c", 1)
    stamp = (tmp_path / "c/manifest.json").stat().st_mtime_ns

    def unread(): raise AssertionError("it was read again")
    again = prepare(Source("films", "classification", unread), tokenizer, tmp_path / "c", 1)
    assert again.fingerprint == one.fingerprint and (tmp_path / "c/manifest.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("other, what", [
    (Tokenizer(lang="de"), "lang: en there, de here"), (Tokenizer("words"), "tokenizer: spacy there, words here"),
    (Tokenizer(rules=SCRIPTS), "char_repeat: 3 there, 4 here")])
def test_another_corpus_in_the_folder_is_kept_and_what_differs_is_named(tmp_path, other, what):
    one = prepare(source(), tokenizer, tmp_path / "c", 1)
    with says("c holds another corpus", what): prepare(source(), other, tmp_path / "c", 1)
    assert Corpus(tmp_path / "c").fingerprint == one.fingerprint


def test_other_text_is_another_corpus(tmp_path):
    prepare(source(identity="a"), tokenizer, tmp_path / "c", 1)
    with says("text:"): prepare(source(identity="b"), tokenizer, tmp_path / "c", 1)


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:-1])],
                         ids=["missing", "cut"])
def test_a_damaged_corpus_is_refused(tmp_path, damage):
    prepare(source(), tokenizer, tmp_path / "c", 1)
    damage(tmp_path / "c/test.ids.npy")
    with says("test.ids.npy", "prepare it again"): Corpus(tmp_path / "c")


def test_a_changed_byte_is_found_by_the_checksums(tmp_path):
    corpus = prepare(source(), tokenizer, tmp_path / "c", 1)
    check_files(corpus.folder, corpus.manifest["files"], contents=True)
    data = bytearray((tmp_path / "c/test.ids.npy").read_bytes())
    data[-1] ^= 1
    (tmp_path / "c/test.ids.npy").write_bytes(data)
    with says("test.ids.npy", "damaged"): check_files(corpus.folder, corpus.manifest["files"], contents=True)


def test_the_vocabulary_is_that_of_the_splits_asked_for(tmp_path):
    parts = [("train", ("a a b", "x")), ("train", ("a", "y")), ("test", ("c c c c", "x"))]
    corpus = prepare(Source("s", "classification", lambda: iter(parts)), Tokenizer("words"), tmp_path / "c", 1)
    assert corpus.vocab(["train"], 100, 1).tokens[9:] == ["a", "b"]
    assert corpus.words(corpus.vocab(["train"], 100, 1))["test"][0].tolist() == [0, 0, 0, 0, 3]
