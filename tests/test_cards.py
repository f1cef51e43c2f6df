"Cards: what a card promises, and where its files are looked for."
import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from corpora import PACK, by_split, says, texts, write
from ulmfit.corpus import registry
from ulmfit.corpus.prepare import prepare
from ulmfit.corpus.registry import find, get, open_source
from ulmfit.corpus.source import Source
from ulmfit.text.tokenizer import Tokenizer

tokenizer = Tokenizer()
pytestmark = pytest.mark.usefixtures("library")


content = b"NUM:dist How far ?\nLOC:city Which city ?\n"


def card(about: dict | None = None, **more) -> dict:
    digest = hashlib.sha256(content).hexdigest()
    return dict(name="questions", files=[
        dict(name="q.label", split="train", bytes=len(content), sha256=digest) | (about or {})]) | more


def found(about: dict | None = None) -> tuple[Path, bool]:
    c = card(about)
    return find(c, c["files"][0])


@pytest.mark.parametrize("pack", PACK)
def test_a_file_is_found_in_the_mirror_before_the_downloads(tmp_path, library, monkeypatch, pack):
    monkeypatch.setenv("ULMFIT_DATA", str(tmp_path / "mirror"))
    for folder in (tmp_path / "mirror/questions", library / "downloads/questions"):
        folder.mkdir(parents=True)
        (folder / f"q.label{pack}").write_bytes(PACK[pack](content))
    assert found() == (tmp_path / f"mirror/questions/q.label{pack}", True)


def test_a_file_is_found_in_the_downloads(library):
    path = write(library / "downloads/questions/q.label", content.decode())
    assert found() == (path, True)


def test_a_file_of_another_size_is_refused(library):
    path = write(library / "downloads/questions/q.label", "short")
    with says(str(path), "5 bytes", f"{len(content)}"): found()


def test_a_file_of_another_hash_is_refused(library):
    other = content.replace(b"far", b"big")
    path = write(library / "downloads/questions/q.label", other.decode())
    with says(str(path), hashlib.sha256(other).hexdigest(), hashlib.sha256(content).hexdigest()): found()


def test_a_missing_file_is_named_with_size_hash_address_and_place(library):
    c = card(dict(urls=["http://there/q"]))
    assert find(c, c["files"][0]) == (None, False)
    with says("q.label", f"{len(content)} bytes", hashlib.sha256(content).hexdigest(), "http://there/q",
              str(library / "downloads/questions"), "ULMFIT_DATA"): get(c, c["files"][0])


def test_a_file_without_an_address_is_named_with_how_to_make_it(library):
    c = card(how="run the extractor")
    with says("q.label", "run the extractor", str(library / "downloads/questions")): get(c, c["files"][0])


def test_a_part_of_a_file_is_taken_and_said_to_be_one(library, capsys, tmp_path):
    write(library / "questions.toml", 'name = "questions"\nkinds = ["classification"]\nreader = "trec"\n'
          'documents = { train = 99 }\n[[files]]\n'
          'split = "train"\nname = "q.label"\npartial = ["some.label"]\nbytes = 9\nsha256 = "0"\n')
    write(library / "downloads/questions/some.label", content.decode())
    corpus = prepare(open_source("questions"), tokenizer, tmp_path / "out", 1)
    assert "some.label is only a part of q.label" in capsys.readouterr().err
    assert corpus.manifest["notes"] == ["questions: some.label is only a part of q.label"]


def questions(library: Path, text: str, documents: int, classes: str = "") -> Source:
    write(library / "questions.toml", f'name = "questions"\nkinds = ["classification"]\nreader = "trec"\n{classes}\n'
          f'documents = {{ train = {documents} }}\n[[files]]\nsplit = "train"\nname = "q.label"\n')
    write(library / "downloads/questions/q.label", text)
    return open_source("questions")


def test_another_number_of_documents_than_the_cards_is_an_error(tmp_path, library):
    with says("2 documents in train", "3"):
        prepare(questions(library, content.decode(), 3), tokenizer, tmp_path / "out", 1)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("classes, wrong", [('["LOC", "NUM", "HUM"]', "'HUM'"), ('["LOC"]', "'NUM'")],
                         ids=["one more", "one less"])
def test_other_classes_than_the_cards_are_an_error(tmp_path, library, classes, wrong):
    with says(wrong):
        prepare(questions(library, content.decode(), 2, f"classes = {classes}"), tokenizer, tmp_path / "out", 1)


def test_a_card_for_another_kind_is_an_error(library):
    questions(library, "", 0)
    with says("questions", "classification", "lm"): open_source("questions", "lm")


ZHANG = """name = "topics"
kinds = ["classification"]
reader = "zhang"
classes = ["One", "Two"]
documents = { train = { One = 2, Two = 1 }, test = { One = 1, Two = 0 } }
[archive]
name = "topics_csv.tgz"
bytes = BYTES
sha256 = "SHA"
[[files]]
split = "train"
name = "train.csv"
member = "topics_csv/train.csv"
[[files]]
split = "test"
name = "test.csv"
member = "topics_csv/test.csv"
"""
RECORDS = {"topics_csv/test.csv": '"1","t","x"\n', "topics_csv/train.csv": '"1","a","b"\n"2","c","d"\n"1","e","f"\n'}


@pytest.fixture
def topics(library) -> Path:
    "A card whose files are members of an archive, the test split first."
    path = library / "downloads/topics/topics_csv.tgz"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, text in RECORDS.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    write(library / "topics.toml", ZHANG.replace("BYTES", str(path.stat().st_size)).replace("SHA", digest))
    return path


def test_files_are_read_from_the_archive_of_their_card(topics):
    assert by_split(open_source("topics")) == dict(
        train=[("a xxfld b", "One"), ("c xxfld d", "Two"), ("e xxfld f", "One")], test=[("t xxfld x", "One")])


def test_an_extracted_file_comes_before_the_archive(topics):
    write(topics.parent / "test.csv", '"2","other","y"\n')
    assert by_split(open_source("topics"))["test"] == [("other xxfld y", "Two")]


def test_a_changed_archive_is_refused(topics):
    topics.write_bytes(topics.read_bytes()[:-1] + b"x")
    with says("topics_csv.tgz", "sha256 is"): open_source("topics")


def test_the_number_of_documents_of_a_class_is_promised_too(tmp_path, topics, library):
    write(library / "topics.toml", (library / "topics.toml").read_text().replace("Two = 1 }", "Two = 2 }"))
    with says("1 documents of class Two in train", "2"): prepare(open_source("topics"), tokenizer, tmp_path / "out", 1)


def test_a_dataset_without_one_of_its_files_is_one_in_part(library, capsys, tmp_path):
    "As WikiText-103 without its 500 MB of training text is good for an evaluation."
    write(library / "w.toml", 'name = "w"\nkinds = ["lm"]\nreader = "wikitext"\n' + "".join(
        f'[[files]]\nsplit = "{s}"\nname = "w.{s}"\nurls = ["http://there/{s}"]\n' for s in ("train", "test")))
    write(library / "downloads/w/w.test", " = Title = \n")
    source = open_source("w")
    assert list(by_split(source)) == ["test"] and "w: without w.train, which is not here" in source.notes[0]


# --- pages that are left out ---

def wiki(library: Path, leave_out: str = "") -> Path:
    write(library / "wiki.toml", f'name = "wiki"\nkinds = ["lm"]\nreader = "wikiextractor"\n{leave_out}\n'
          'documents = { train = 2 }\n[[files]]\nsplit = "train"\nname = "wiki.txt"\n')
    return write(library / "downloads/wiki/wiki.txt",
                 "".join(f'<doc id="{i}" title="T{i}">\nT{i}\n\n</doc>\n' for i in (1, 12, 123)))


@pytest.mark.parametrize("asked, kept", [(None, ["T1", "T123"]), ("none", ["T1", "T12", "T123"]), ("1,123", ["T12"]),
                                         (" 1 , 12 ", ["T123"])])
def test_pages_are_left_out_by_the_card_or_by_those_who_ask(library, asked, kept):
    wiki(library, 'leave_out = ["12"]')
    source = open_source("wiki", leave_out=asked)
    assert texts(by_split(source)["train"]) == kept
    assert source.notes == [] if asked == "none" else "without the pages" in source.notes[0]
    assert source.expected == (dict(train=2) if asked is None else {})


def test_what_is_left_out_is_part_of_what_a_corpus_is(library):
    path = wiki(library)
    assert open_source("wiki").fingerprint != open_source("wiki", leave_out="12").fingerprint
    assert open_source(str(path)).fingerprint != open_source(str(path), leave_out="12").fingerprint


def test_pages_of_ones_own_dump_are_left_out(library, tmp_path):
    (tmp_path / "dump/AA").mkdir(parents=True)
    wiki(library).rename(tmp_path / "dump/AA/wiki_00")
    assert texts(by_split(open_source(str(tmp_path / "dump"), leave_out="12"))["train"]) == ["T1", "T123"]


def test_only_pages_can_be_left_out(library, tmp_path):
    questions(library, content.decode(), 2)
    with says("questions", "--leave-out"): open_source("questions", leave_out="1")
    with says("t.txt", "--leave-out"): by_split(open_source(str(write(tmp_path / "t.txt", "a\n")), leave_out="1"))


# --- the cards themselves ---

@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "data").glob("*.toml")), ids=lambda p: p.stem)
def test_every_card_says_what_it_is(path):
    c = registry.tomllib.loads(path.read_text())
    assert c["name"] == path.stem and {"title", "kinds", "reader", "licence", "citation"} <= set(c)
    for file in c.get("files", []):
        assert ("sha256" in file) == ("bytes" in file) and (c["reader"] == "imdb" or "split" in file)
        assert file.get("urls") or "member" in file and c["archive"]["urls"] or "how" in c
    for counts in c.get("documents", {}).values():
        if isinstance(counts, dict) and "classes" in c: assert set(counts) == set(c["classes"])
