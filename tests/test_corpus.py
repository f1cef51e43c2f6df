"Files to prepared corpora: each format in its official form, what a card promises, ids that decode to the tokens."
import csv
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fastcore.script import CliError
from hypothesis import given, settings, strategies as st
from ulmfit.corpus import prepare as preparing, pydocs, readers, registry
from ulmfit.corpus.prepare import prepare, prepared
from ulmfit.corpus.registry import Source, find_file, open_source
from ulmfit.corpus.store import (Corpus, CorpusWriter, Documents, hold_out, sample_labelled, smallest_type,
                                 with_held_out)
from ulmfit.text.tokenizer import Tokenizer

quick = settings(deadline=None, max_examples=50)
PACK = {"": lambda b: b, ".gz": gzip.compress, ".xz": lzma.compress}
tokenizer = Tokenizer()


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    "A `data/` of the test's own, and no mirror."
    root = tmp_path / "data"
    root.mkdir()
    for module in (registry, preparing): monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.delenv("ULMFIT_DATA", raising=False)
    return root


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def texts(documents) -> list[str]: return [text for text, _ in documents]


def by_split(source: Source) -> dict[str, list]:
    found = {}
    for split, document in source.read(): found.setdefault(split, []).append(document)
    return found


def says(*parts: str):
    "One line of error that has all of these."
    class Says:
        def __enter__(self): return self
        def __exit__(self, kind, error, _):
            assert kind is CliError, f"{kind} instead of an error for the user"
            assert "\n" not in str(error)
            for part in parts: assert part in str(error), str(error)
            return True
    return Says()


# --- WikiText ---

first = " \n = First = \n \n It begins . \n \n = = Section = = \n \n = = = Deeper = = = \n \n Text @-@ like . \n \n"
second = " = A second title : with , marks = \n \n The <unk> goes on . \n"


def test_an_article_of_wikitext_is_a_document(tmp_path):
    "From title to title: headings of sections, with more signs, begin no document."
    assert texts(readers.read_wikitext(write(tmp_path / "w.tokens", first + second))) == [first, second]


def test_wikitext_loses_no_line(tmp_path):
    assert "".join(texts(readers.read_wikitext(
        write(tmp_path / "w.tokens", first + second + first)))) == first + second + first


def test_wikitext_that_begins_within_an_article_keeps_its_beginning(tmp_path):
    assert texts(readers.read_wikitext(write(tmp_path / "w.tokens", " The end of one . \n" + second))) == [
        " The end of one . \n", second]


@pytest.mark.parametrize("title", ["K", "It", "24", "I.", "Ō", "A = B"])
def test_a_short_title_of_wikitext_is_a_title(tmp_path, title):
    article = f" = {title} = \n \n Text . \n \n"
    assert texts(readers.read_wikitext(write(tmp_path / "w.tokens", second + article))) == [second, article]


# --- WikiExtractor ---

extracted = ('<doc id="12" url="https://…" title="One">\nOne\n\nIts text.\n\n</doc>\n'
             '<doc id="13" url="" title="Two">\nTwo\n\n< a line\n</doc>\n')


def test_a_page_of_wikiextractor_is_a_document(tmp_path):
    assert texts(readers.read_wikiextractor(write(tmp_path / "wiki_00", extracted))) == ["One\n\nIts text.",
                                                                                         "Two\n\n< a line"]


def test_an_empty_page_of_wikiextractor_is_left_out(tmp_path):
    assert texts(readers.read_wikiextractor(write(tmp_path / "wiki_00", '<doc id="1">\n</doc>\n' + extracted)))[
        0].startswith("One")


# --- IMDb ---

def imdb(path: Path, members: dict[str, str], mode: str) -> Path:
    with tarfile.open(path, f"w:{mode}") as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


reviews = {"aclImdb/README": "no review", "aclImdb/train/urls_pos.txt": "no review",
           "aclImdb/train/labeledBow.feat": "0",
           "aclImdb/test/neg/0_2.txt": "bad", "aclImdb/test/pos/0_9.txt": "good",
           "aclImdb/train/unsup/7_0.txt": "who knows",
           "aclImdb/train/neg/3_1.txt": "worse", "aclImdb/train/pos/9_10.txt": "best<br />of é",
           "aclImdb/train/neg/.hidden": "x"}


@pytest.mark.parametrize("mode", ["gz", "xz", ""])
def test_imdb_is_read_from_its_archive(tmp_path, mode):
    "Reviews with their class, unlabelled ones a split of their own, foreign members left out."
    assert list(readers.read_imdb(imdb(tmp_path / "a.tar", reviews, mode))) == [
        ("test", ("bad", "neg")), ("test", ("good", "pos")), ("unsup", ("who knows", None)),
        ("train", ("worse", "neg")),
        ("train", ("best<br />of é", "pos"))]


@pytest.mark.parametrize("mode", ["gz", "xz"])
def test_a_cut_archive_is_an_error(tmp_path, mode):
    path = imdb(tmp_path / "a.tar", reviews | {"aclImdb/train/pos/1_9.txt": "".join(map(chr, range(300, 9000)))}, mode)
    path.write_bytes(path.read_bytes()[:-2000])
    with says(str(path), "damaged"): list(readers.read_imdb(path))


def test_the_card_of_imdb_puts_training_first(tmp_path, library):
    "Though the archive has test first: the classes are those of the training documents."
    write(library / "imdb.toml", 'name = "imdb"\nkinds = ["classification"]\nreader = "imdb"\n'
          'classes = ["neg", "pos"]\n'
          'documents = { train = 2, test = 2, unsup = 1 }\n[[files]]\nname = "a.tar.gz"\nalso = ["b.tar"]\n')
    (library / "downloads/imdb").mkdir(parents=True)
    imdb(library / "downloads/imdb/b.tar.xz", reviews, "xz")
    corpus = prepare(open_source("imdb"), tokenizer, tmp_path / "out", 1)
    assert corpus.classes == ["neg", "pos"]
    assert {s: len(d) for s, d in corpus.splits.items()} == dict(train=2, test=2, unsup=1)
    assert corpus.splits["train"].labels.tolist() == [0, 1] and corpus.splits["unsup"].labels is None


# --- TREC ---

def test_trec_is_read_in_latin_1_and_its_stray_byte_is_a_blank(tmp_path):
    path = write(tmp_path / "t.label",
                 "DESC:manner How did serfdom develop ?\nENTY:termeq What is its sister\xf0city ?\n", "latin-1")
    assert list(readers.read_trec(path)) == [
        ("How did serfdom develop ?", "DESC"), ("What is its sister city ?", "ENTY")]
    assert [label for _, label in readers.read_trec(path, fine=True)] == ["DESC:manner", "ENTY:termeq"]


def test_a_line_without_a_class_is_named(tmp_path):
    with says("t.label:2:"): list(readers.read_trec(write(tmp_path / "t.label", "NUM:dist How far ?\nHow far ?\n")))


# --- Zhang et al. ---

def test_zhangs_csv_has_no_header_and_classes_from_1(tmp_path):
    path = write(tmp_path / "z.csv",
                 '"3","Title","Text with ""quotes"", a comma and\\na line"\n"1","#39;t","x\\\\y"\n')
    assert list(readers.read_zhang(path, ["a", "b", "c"])) == [
        ('Title xxfld Text with "quotes", a comma and\\na line', "c"), ("#39;t xxfld x\\\\y", "a")]
    assert tokenizer('Title xxfld said ""\\nso')[4:] == ["said", '"', '"', "\n", "so"]


@pytest.mark.parametrize("row, wrong",
                         [('"4","t","x"', "'4'"), ('"0","t","x"', "'0'"), ('"x","t","x"', "'x'"),
                          ('"1","t"', "2 fields, 3")])
def test_a_row_that_is_not_zhangs_is_named(tmp_path, row, wrong):
    with says("z.csv:2:", wrong):
        list(readers.read_zhang(write(tmp_path / "z.csv", f'"1","a","b"\n{row}\n'), ["a", "b", "c"]))


# --- tables ---

table = [["id", "title", "body", "stars"], ["1", "Good, isn't it", 'said "yes"\nand no', " 5 "], ["2", "", "", "1"]]


@pytest.mark.parametrize("pack", PACK)
@pytest.mark.parametrize("suffix, dialect", [(".csv", "excel"), (".tsv", "excel-tab")])
def test_a_table_is_read_by_its_columns(tmp_path, suffix, dialect, pack):
    "Quotes, commas and line ends in a field; plain or compressed; a byte-order mark is no text."
    out = io.StringIO()
    csv.writer(out, dialect).writerows(table)
    path = tmp_path / f"t{suffix}{pack}"
    path.write_bytes(PACK[pack](b"\xef\xbb\xbf" + out.getvalue().encode()))
    assert list(readers.read_table(path, "body", "stars")) == [('said "yes"\nand no', "5"), ("", "1")]
    assert texts(readers.read_table(path, "title+body", "id")) == ['Good, isn\'t it xxfld said "yes"\nand no',
                                                                   " xxfld "]
    assert list(readers.read_table(path, "id", None)) == [("1", None), ("2", None)]


def test_an_empty_label_is_named(tmp_path):
    with says("t.csv:3:", "label is empty"):
        list(readers.read_table(write(tmp_path / "t.csv", "text,label\na,b\nc, \n")))


@pytest.mark.parametrize("data", [b"text,label\na," + b"\xff\n", b"text,label\n" + b"a,b\n" * 400_000 + b"\xc3"],
                         ids=["within", "cut at the end"])
def test_the_first_byte_that_is_not_utf8_is_named(tmp_path, data):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(UnicodeDecodeError) as e: data.decode()
    with says(f"byte {e.value.start} is not utf-8", "t.csv", "--encoding"):
        list(readers.read_table(tmp_path / "t.csv"))


@quick
@given(st.binary(max_size=12), st.integers(0, 3))
def test_the_first_bad_byte_is_the_decoders(tmp_path_factory, tail, before):
    "Also at the border of the blocks in which the file is read."
    data = b"a" * ((1 << 20) - before) + tail
    path = tmp_path_factory.mktemp("bytes") / "f.txt"
    path.write_bytes(data)
    try: data.decode("utf-8")
    except UnicodeDecodeError as e:
        if e.reason != "unexpected end of data": assert readers.first_bad_byte(path, "utf-8") == e.start


def test_another_encoding_is_read_when_it_is_named(tmp_path):
    path = write(tmp_path / "t.csv", "text,label\ncafé,né\n", "latin-1")
    assert list(readers.read_table(path, encoding="latin-1")) == [("café", "né")]


@pytest.mark.parametrize("pack", [".gz", ".xz"])
@pytest.mark.parametrize("damage",
                         [lambda b: b[:-20], lambda b: b[:200] + bytes(100) + b[300:], lambda b: b"not packed"],
                         ids=["cut", "changed", "not packed"])
def test_a_damaged_file_is_an_error(tmp_path, pack, damage):
    path = tmp_path / f"t.csv{pack}"
    path.write_bytes(damage(PACK[pack](b"text,label\n" + b"".join(b"%d,%d\n" % (i * i, i) for i in range(2000)))))
    with says(path.name): list(readers.read_table(path))


def test_an_encoding_that_does_not_exist_is_named(tmp_path):
    with says("'utf-9'"): list(readers.read_lines(write(tmp_path / "t.txt", "a"), "utf-9"))


# --- plain texts and folders ---

def test_paragraphs_end_at_empty_lines(tmp_path):
    path = write(tmp_path / "t.txt", "\n\none\nstill one\n  \n\n two \r\n\r\nthree")
    assert texts(readers.read_paragraphs(path)) == ["one\nstill one", "two", "three"]


def test_lines_are_texts_and_empty_ones_empty_texts(tmp_path):
    assert texts(readers.read_lines(write(tmp_path / "t.txt", "one\r\n\ntwo"))) == ["one", "", "two"]


@pytest.mark.parametrize("pack", PACK)
@pytest.mark.parametrize("text, n", [(first + second, 2), (extracted, 2), ("a\n\nb\n\nc\n", 3)],
                         ids=["wikitext", "wikiextractor", "paragraphs"])
def test_the_form_of_a_text_is_seen_by_its_first_line(tmp_path, text, n, pack):
    path = tmp_path / f"t.txt{pack}"
    path.write_bytes(PACK[pack](text.encode()))
    source = open_source(str(path))
    assert source.kind == "lm" and len(by_split(source)["train"]) == n


def test_in_a_folder_of_texts_a_file_is_a_document(tmp_path):
    for name in ("b/two.txt", "a.txt", "valid.txt"): write(tmp_path / "books" / name, f"text of\n\n{name}")
    assert by_split(open_source(str(tmp_path / "books"))) == dict(
        train=[("text of\n\na.txt", None), ("text of\n\nb/two.txt", None)], valid=[("text of\n\nvalid.txt", None)])


def label_folders(root: Path) -> Path:
    for split, label, n in [("train", "neg", 2), ("train", "pos", 1), ("test", "neg", 1), ("test", "pos", 1)]:
        for i in range(n): write(root / split / label / f"{i}.txt", f"{split} {label} {i}")
    return root


def test_folders_of_labels_are_a_corpus(tmp_path):
    source = open_source(str(label_folders(tmp_path / "c")))
    assert source.kind == "classification" and by_split(source) == dict(
        train=[("train neg 0", "neg"), ("train neg 1", "neg"), ("train pos 0", "pos")],
        test=[("test neg 0", "neg"), ("test pos 0", "pos")])


def test_folders_of_labels_keep_their_splits_as_text_of_a_language_model(tmp_path):
    "No language model reads the texts for testing unasked."
    assert len(by_split(open_source(str(label_folders(tmp_path / "c")), "lm")).get("test", [])) == 2


def test_a_folder_of_tables_has_a_split_a_file(tmp_path):
    for split in ("train", "dev", "test"): write(tmp_path / f"c/{split}.csv", f"text,label\n{split},x\n")
    write(tmp_path / "c/unsup.csv", "text\nno label\n")
    assert by_split(open_source(str(tmp_path / "c"))) == dict(
        train=[("train", "x")], valid=[("dev", "x")], test=[("test", "x")], unsup=[("no label", None)])


def test_a_source_that_does_not_exist_is_named(library):
    write(library / "one.toml", 'name = "one"\n')
    with says("nothing.csv", "one"): open_source("nothing.csv")


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "c").mkdir()
    with says("c", "no .txt, .csv or .tsv"): open_source(str(tmp_path / "c"))


# --- cards ---

content = b"NUM:dist How far ?\nLOC:city Which city ?\n"


def card(about: dict | None = None, **more) -> dict:
    digest = hashlib.sha256(content).hexdigest()
    return dict(name="questions", files=[
        dict(name="q.label", split="train", bytes=len(content), sha256=digest) | (about or {})]) | more


def found(about: dict | None = None) -> tuple[Path, bool]:
    c = card(about)
    return find_file(c, c["files"][0])


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
    with says("q.label", f"{len(content)} bytes", hashlib.sha256(content).hexdigest(), "http://there/q",
              str(library / "downloads/questions"),
              "ULMFIT_DATA"): found(dict(urls=["http://there/q"]))


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


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "data").glob("*.toml")), ids=lambda p: p.stem)
def test_every_card_says_what_it_is(path):
    c = registry.tomllib.loads(path.read_text())
    assert c["name"] == path.stem and {"title", "kinds", "reader", "licence", "citation"} <= set(c)
    for file in c.get("files", []):
        assert ("sha256" in file) == ("bytes" in file) and (c["reader"] == "imdb" or "split" in file)


# --- preparation ---

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


def test_preparation_does_not_depend_on_the_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "blocks", lambda documents, size=2, of=preparing.blocks: of(documents, 2))
    for workers in (1, 2): prepare(source(), tokenizer, tmp_path / str(workers), workers)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in "12")
    assert one == two


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
    with CorpusWriter(tmp_path / "c") as w: w.add("train", ["a"], np.array([0, 0]), [2], None)
    assert not list(tmp_path.iterdir()) or [p.name for p in tmp_path.iterdir()] == ["data"]


def test_the_vocabulary_is_that_of_the_splits_asked_for(tmp_path):
    parts = [("train", ("a a b", "x")), ("train", ("a", "y")), ("test", ("c c c c", "x"))]
    corpus = prepare(Source("s", "classification", lambda: iter(parts)), Tokenizer("words"), tmp_path / "c", 1)
    assert corpus.vocab(["train"], 100, 1).tokens[9:] == ["a", "b"]
    assert corpus.words(corpus.vocab(["train"], 100, 1))["test"][0].tolist() == [0, 0, 0, 0, 3]


# --- samples ---

def labelled(labels: list[int]) -> Documents:
    return Documents(np.arange(len(labels)), np.arange(len(labels) + 1), np.asarray(labels, dtype=np.int32))


label_lists = st.lists(st.integers(0, 4), min_size=2, max_size=80)


@quick
@given(label_lists, st.floats(0, 0.9), st.integers(0, 5))
def test_a_document_is_kept_or_held_out(labels, fraction, seed):
    kept, held = hold_out(labelled(labels), fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(labels))) and len(held) >= 1


@quick
@given(label_lists, st.floats(0, 1), st.integers(0, 5))
def test_of_each_class_the_same_share_is_held_out(labels, fraction, seed):
    _, held = hold_out(labelled(labels), fraction, seed)
    if sum(shares := [round(labels.count(c) * fraction) for c in range(5)]):
        assert [sum(labels[i] == c for i in held) for c in range(5)] == shares


def test_the_same_seed_holds_out_the_same_documents():
    (a, b), (c, d), (_, e) = (hold_out(labelled([0, 1] * 50), 0.2, seed) for seed in (3, 3, 4))
    assert np.array_equal(a, c) and np.array_equal(b, d) and not np.array_equal(b, e)


def test_what_is_held_out_is_said(capsys):
    splits = with_held_out(dict(train=labelled([0, 1] * 10)), "valid", 0.2, 7)
    assert (len(splits["train"]), len(splits["valid"])) == (16, 4)
    assert "".join(capsys.readouterr()) == "no valid split: 4 of 20 training documents are held out (seed 7)\n"


def test_a_split_that_is_there_stays(capsys):
    there = dict(train=labelled([0, 1]), valid=labelled([1]))
    assert with_held_out(there, "valid", 0.2, 7) is there and not capsys.readouterr().out


@quick
@given(label_lists, st.data())
def test_a_labelled_sample_has_the_size_asked_for_and_every_class(labels, data):
    n = data.draw(st.integers(len(set(labels)), len(labels)))
    rows = sample_labelled(labelled(labels), n, 0)
    assert len(set(rows)) == len(rows) == n and {labels[i] for i in rows} == set(labels)


def test_a_labelled_sample_has_the_classes_in_proportion():
    rows = sample_labelled(labelled([0] * 60 + [1] * 30 + [2] * 10), 20, 0)
    assert np.bincount(np.repeat([0, 1, 2], [60, 30, 10])[rows]).tolist() == [12, 6, 2]


def test_the_same_seed_gives_the_same_sample():
    a, b, c = (sample_labelled(labelled([0, 1] * 50), 20, seed).tolist() for seed in (3, 3, 4))
    assert a == b != c


@pytest.mark.parametrize("n, wrong", [(1, "at least 2"), (5, "4 are there")])
def test_a_sample_that_cannot_be_is_an_error(n, wrong):
    with says(wrong): sample_labelled(labelled([0, 1, 0, 1]), n, 0)


# --- pydocs ---

def sentence(i: int) -> str:
    return f"The item number {i} is described here in a sentence of more than twelve words for you."


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    "A few made-up libraries, `alpha` and `beta` the target's; `gamma` has copied from `beta`."
    def library(name: str, numbers):
        examples = "    Examples\n    --------\n    >>> f()"
        functions = [f'def f{i}():\n    """{sentence(i)}\n\n{examples}\n    """\n' for i in numbers]
        write(tmp_path / f"lib/{name}/m.py", f'"""{sentence(numbers[0])}"""\n' + "\n".join(functions))
        write(tmp_path / f"lib/{name}/broken.py", "def (:\n")
    library("gamma", range(60, 120))
    library("alpha", range(60))
    library("beta", range(50, 100))
    monkeypatch.setattr(pydocs, "GENERAL", ("gamma", "alpha", "beta"))
    monkeypatch.setattr(pydocs, "TARGETS", ("alpha", "beta"))
    monkeypatch.setattr(pydocs, "sources", lambda name: sorted((tmp_path / "lib" / name).glob("*.py")))


def general() -> list[str]: return [text for _, (text, _) in pydocs.read_general()]


def task(split: str) -> list[tuple[str, str]]: return [document for s, document in pydocs.read_task() if s == split]


def test_the_general_corpus_has_no_text_for_testing(libraries):
    "Not even one that another library has copied."
    test = {text for text, _ in task("test")}
    assert test and not test & set(general())


def test_the_general_corpus_has_every_other_text_once(libraries):
    train = {text for text, _ in task("train")}
    assert len(general()) == len(set(general())) and train <= set(general())


def test_a_text_of_the_task_is_for_training_or_testing_and_of_one_library(libraries):
    train, test = (Counter(text for text, _ in task(s)) for s in ("train", "test"))
    assert not set(train) & set(test) and set((train + test).values()) == {1} and len(train + test) == 100
    assert 0.1 < len(test) / 100 < 0.4


def test_the_examples_of_a_docstring_are_no_text(libraries):
    assert not any(">>>" in t or "Examples" in t for t in general())


def test_names_of_libraries_are_masked():
    text = "A NumPy array, or pandas DataFrame.\n\nParameters\n----------\nx : torch"
    assert pydocs.description(text) == "A library array, or library library."
