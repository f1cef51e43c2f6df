"What a corpus is of: hashes of its files, names, settings; and the same files give the same tokens as ever."
import hashlib
import json
import os
from pathlib import Path

import pytest
from corpora import says, write
from ulmfit.corpus import prepare as preparing, readers, source as sources
from ulmfit.corpus.prepare import READING, differences, identity, prepare
from ulmfit.corpus.registry import open_source
from ulmfit.corpus.source import Source, sha256, stamp
from ulmfit.text.rules import FASTAI, SCRIPTS, clean, mark
from ulmfit.text.tokenizer import TextSettings, Tokenizer

words = Tokenizer("words")
pytestmark = pytest.mark.usefixtures("library")

# --- the version of reading ---

HOSTILE = ["Coooool, I'm SO happy!!! <br /><br />the the the END", "AT&amp;T; fault; #39;s \\n x\\\\y 1@-@2 @,@ @.@",
           "ÉTÉ Été ΑΒΓ Привет МИР ǅ İstanbul ß ẞ",
           "a \u00a0 b\u0085c\u2028d\te\r\nf", "“Kiki's” (NASA) U.S.A. e-mail@x.org",
           "<unk> = Title = \n\n\n text ... ……", "日本語 한국어 ไทย हिन्दी العربية",
           "👩‍👩‍👧‍👦👍🏽 x" * 3, "$#36;5 &lt;b&gt; quot;x", ""]
FILES = {
    "read_lines": ("t.txt", "one\r\n\ntwo\n"), "read_paragraphs": ("t.txt", "\n\none\nmore\n  \n\n two \r\n"),
    "read_file": ("t.txt", " all\n\nof it\n"),
    "read_wikitext": ("w.tokens", " \n = A = \n \n Text @-@ . \n \n = = B = = \n more \n = C = \n end \n = D = \r\n "
                                  "it \r\n"),
    "read_wikiextractor": ("wiki_00", '<doc id="1" url="">\nOne\n\nText.\n</doc>\n\n<doc id="2">\n</doc>\n'),
    "read_table": ("t.csv", '\ufefftext,label\n"a, ""b""\nc", x \nd,y\n'),
    "read_trec": ("t.label", "NUM:dist How far ?\nDESC:def What is é ?\n")}
# by version; a new one is added when READING is raised, an old one never changes
GOLDEN = {1: "111f335795d197ed", 2: "ef8de3c6e21a8637"}


def test_the_same_files_give_the_same_tokens_as_ever(tmp_path):
    "Where this fails, prepared corpora of before are not those of now: raise READING, and note its hash here."
    found = [[*mark(clean(text, rules).split(" "), rules)] for text in HOSTILE for rules in (FASTAI, SCRIPTS)]
    for reader, (name, content) in FILES.items():
        path = write(tmp_path / reader / name, content, "latin-1" if reader == "read_trec" else "utf-8")
        found += [words(text) + [label] for text, label in getattr(readers, reader)(path)]
    assert hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16] == GOLDEN[READING]


# --- identity ---

@pytest.mark.parametrize("one, other", [("a.csv", "a.tsv"), ("train.txt", "test.txt")])
def test_the_name_of_a_file_is_part_of_what_it_is(tmp_path, one, other):
    "It tells form and split."
    write(tmp_path / "1" / one, "text\tlabel\na\tb\n")
    write(tmp_path / "2" / other, "text\tlabel\na\tb\n")
    prints = [open_source(str(tmp_path / n), "lm").fingerprint for n in "12"]
    assert prints[0] != prints[1]


def of(**settings) -> dict:
    return identity(Source("s", "lm", lambda: iter([])), Tokenizer.named(TextSettings(**settings)))


@pytest.mark.parametrize("module, name, value, what", [
    (preparing, "READING", 99, "reading"), (preparing, "version", lambda name: "99", "libraries"),
    (preparing, "FORMAT", 99, "format")])
def test_what_the_tokens_depend_on_is_part_of_what_a_corpus_is(monkeypatch, module, name, value, what):
    before = of()
    monkeypatch.setattr(module, name, value)
    assert differences(before, of()).startswith(f"{what}: ")


@pytest.mark.parametrize("settings, library", [
    (dict(lang="ja"), "sudachipy"), (dict(lang="th"), "pythainlp"), (dict(lang="en"), "spacy"),
    (dict(tokenizer="subwords"), "sentencepiece"), (dict(tokenizer="words"), "unicode")])
def test_the_library_that_makes_the_tokens_is_named(settings, library): assert library in of(**settings)["libraries"]


def test_a_change_while_the_text_is_hashed_is_seen(tmp_path, monkeypatch):
    path = write(tmp_path / "t.txt", "one\n\ntwo\n")
    whole = sources.digest

    def digest(p: Path) -> str:
        found = whole(p)
        write(path, "three\n")
        return found
    monkeypatch.setattr(sources, "digest", digest)
    with says("t.txt was changed while it was read"): prepare(open_source(str(path)), words, tmp_path / "c", 1)


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with says("pipe", "write it to a file"): open_source(str(tmp_path / "pipe"))


# --- hashes that are kept ---

@pytest.fixture
def large(tmp_path, monkeypatch) -> Path:
    "A file that counts as large, and has not been touched for a while."
    monkeypatch.setattr(sources, "LARGE", 4)
    monkeypatch.setattr(sources, "SETTLED", -1.0)
    return write(tmp_path / "large.txt", "large enough")


def hashed_anew(path: Path) -> str:
    "As another process would."
    sha256.cache_clear()
    return sha256(path, stamp(path))


def test_a_large_file_is_hashed_once(large, monkeypatch):
    before = hashed_anew(large)
    monkeypatch.setattr(sources, "digest", lambda path: "read again")
    assert hashed_anew(large) == before


def test_a_large_file_that_has_changed_is_hashed_again(large):
    hashed_anew(large)
    write(large, "LARGE ENOUGH")  # as long as before
    assert hashed_anew(large) == hashlib.sha256(b"LARGE ENOUGH").hexdigest()


def test_the_hash_of_a_file_that_has_just_changed_is_not_kept(large, library, monkeypatch):
    "Another change within the clock's grain would have the same stamp."
    monkeypatch.setattr(sources, "SETTLED", 60.0)
    hashed_anew(large)
    assert not (library / "prepared/hashes.json").exists()


@pytest.mark.parametrize("damage", ["{", "[]", '{"x": 1}'])
def test_damaged_hashes_are_made_again(large, library, damage):
    write(library / "prepared/hashes.json", damage)
    assert hashed_anew(large) == hashlib.sha256(b"large enough").hexdigest()


def test_hashes_that_cannot_be_kept_disturb_nothing(large, library):
    write(library / "prepared", "a file where the folder should be")
    assert hashed_anew(large) == hashlib.sha256(b"large enough").hexdigest()
