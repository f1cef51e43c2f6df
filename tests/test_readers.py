"Files to documents: each format in its official form, and what is wrong with one in a line."
import csv
import io
import tarfile
from pathlib import Path

import pytest
from corpora import PACK, by_split, says, texts, write
from hypothesis import given, settings, strategies as st
from ulmfit.corpus import readers
from ulmfit.corpus.prepare import prepare
from ulmfit.corpus.registry import open_source
from ulmfit.text.tokenizer import Tokenizer

quick = settings(deadline=None, max_examples=50)
tokenizer = Tokenizer()
pytestmark = pytest.mark.usefixtures("library")


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


@pytest.mark.parametrize("text, line", [(extracted.removesuffix("</doc>\n"), 7), ('<doc id="1">\n' + extracted, 1)],
                         ids=["cut", "page within a page"])
@pytest.mark.parametrize("leave_out", [(), ("13",), ("1",)])
def test_a_page_that_does_not_end_is_named(tmp_path, text, line, leave_out):
    "Also one that is left out: the file is not what it should be."
    path = write(tmp_path / "wiki_00", text)
    with says(f"wiki_00:{line}:", "no </doc>"): list(readers.read_wikiextractor(path, leave_out=leave_out))


def test_text_outside_of_the_pages_is_named(tmp_path):
    with says("wiki_00:7:", "outside"): list(readers.read_wikiextractor(write(tmp_path / "wiki_00", extracted.replace(
        "</doc>\n<doc", "</doc>\nlost\n<doc"))))


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


def test_imdb_is_read_from_its_folder_as_well(tmp_path):
    "Extracted by hand, and found by its card."
    for name, text in reviews.items(): write(tmp_path / name, text)
    from_archive = list(readers.read_imdb(imdb(tmp_path / "a.tar", reviews, "")))
    assert sorted(readers.read_imdb(tmp_path / "aclImdb"), key=str) == sorted(from_archive, key=str)


def test_a_review_that_is_not_utf8_is_named(tmp_path):
    write(tmp_path / "aclImdb/train/pos/1_9.txt", "é", "latin-1")
    with says("1_9.txt", "byte 0"): list(readers.read_imdb(tmp_path / "aclImdb"))


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
@pytest.mark.parametrize("suffix, delimiter", [(".csv", ","), (".tsv", "\t"), (".csv", ";")])
def test_a_table_is_read_by_its_columns(tmp_path, suffix, delimiter, pack):
    "Quotes, commas and line ends in a field; plain or compressed; a byte-order mark is no text."
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(table)
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


def test_a_codec_that_makes_no_text_is_no_encoding(tmp_path):
    with says("'base64'"): list(readers.read_lines(write(tmp_path / "t.txt", "a"), "base64"))


def test_utf_16_without_its_mark_is_named(tmp_path):
    with says("t.txt is not utf-16"): list(readers.read_lines(write(tmp_path / "t.txt", "ab", "utf-16-le"), "utf-16"))


# --- plain texts and folders ---

def test_a_very_long_paragraph_ends_at_its_next_line(tmp_path, monkeypatch):
    "So that a text without an empty line is not one document of its size; nothing is lost."
    monkeypatch.setattr(readers, "LONG", 10)
    path = write(tmp_path / "t.txt", "one line\nand more\nthe next\n\nlast\n")
    assert texts(readers.read_paragraphs(path)) == ["one line\nand more", "the next", "last"]


@pytest.mark.parametrize("text, pieces", [
    ("aaa bbb ccc ddd eee fff", ["aaa bbb ccc ddd eee", "fff"]), ("a" * 25, ["a" * 10, "a" * 10, "a" * 5]),
    ("aaaa bbbbb\nccc", ["aaaa bbbbb", "ccc"]), ("aaaa bbbb cc\ndd\n", ["aaaa bbbb", "cc\ndd"])])
def test_a_very_long_line_ends_at_a_blank(tmp_path, monkeypatch, text, pieces):
    "And where there is none, anywhere: no text is held in memory for want of line breaks."
    monkeypatch.setattr(readers, "LONG", 10)
    assert texts(readers.read_book(write(tmp_path / "t.txt", text))) == pieces


@quick
@given(st.text(alphabet="ab \n\r", max_size=60))
def test_no_line_loses_anything_in_pieces(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "LONG", 7)
        assert "".join(readers.pieces_of_lines(io.StringIO(text, newline=""))) == text


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


@pytest.mark.parametrize("place", ["unsup/1.txt", "unsup/a/1.txt", "train/unsup/1.txt"])
def test_unlabelled_texts_have_no_class_at_any_depth(tmp_path, place):
    "The last is IMDb's own way."
    write(label_folders(tmp_path / "c") / place, "who knows")
    assert by_split(open_source(str(tmp_path / "c")))["unsup"] == [("who knows", None)]


def test_a_text_beside_the_folders_of_labels_is_named(tmp_path):
    write(label_folders(tmp_path / "c") / "train/urls.txt", "http://x")
    source = open_source(str(tmp_path / "c"))
    assert len(by_split(source)["train"]) == 3
    assert [n for n in source.notes if "urls.txt is not read" in n] == source.notes


def test_folders_of_labels_keep_their_splits_as_text_of_a_language_model(tmp_path):
    "No language model reads the texts for testing unasked."
    assert len(by_split(open_source(str(label_folders(tmp_path / "c")), "lm")).get("test", [])) == 2


def test_a_folder_of_tables_has_a_split_a_file(tmp_path):
    for split in ("train", "dev", "test"): write(tmp_path / f"c/{split}.csv", f"text,label\n{split},x\n")
    write(tmp_path / "c/unsup.csv", "text\nno label\n")
    assert by_split(open_source(str(tmp_path / "c"))) == dict(
        train=[("train", "x")], valid=[("dev", "x")], test=[("test", "x")], unsup=[("no label", None)])


@pytest.mark.parametrize("name, split", [
    ("validation.csv", "valid"), ("Testing.CSV", "test"), ("unlabeled.csv", "unsup"), ("test/part1.csv", "test"),
    ("dev/a/b.tsv.gz.csv", "valid")])
def test_a_table_belongs_to_the_split_that_it_or_its_folder_names(tmp_path, name, split):
    write(tmp_path / "c/train.csv", "text,label\na,x\n")
    write(tmp_path / "c" / name, "text,label\nb,x\n")
    source = open_source(str(tmp_path / "c"))
    assert by_split(source) == dict(train=[("a", "x")]) | {split: [("b", None if split == "unsup" else "x")]}
    assert not source.notes


def test_a_table_that_names_no_split_beside_others_that_do_is_said(tmp_path):
    for name in ("train", "test", "more"): write(tmp_path / f"c/{name}.csv", "text,label\na,x\n")
    assert [n for n in open_source(str(tmp_path / "c")).notes if "more.csv is read as training data" in n]


@pytest.mark.parametrize("name", ["train.csv.bak", "test.csv.part", ".train.csv.123.tmp", ".train.csv", "train.csv~"])
def test_what_a_program_left_beside_a_table_is_not_read(tmp_path, name):
    write(tmp_path / "c/train.csv", "text,label\na,x\n")
    write(tmp_path / "c" / name, "text,label\nb,x\n")
    assert by_split(open_source(str(tmp_path / "c"))) == dict(train=[("a", "x")])


@pytest.mark.parametrize("name", ["1.txt~", ".1.txt.swp", "1.txtX", "1.txt.bak"])
def test_what_a_program_left_beside_a_text_is_not_read(tmp_path, name):
    source = open_source(str(write(label_folders(tmp_path / "c") / "train/pos" / name, "x") and tmp_path / "c"))
    assert len(by_split(source)["train"]) == 3 == len([p for p in source.files if "train" in p.parts])


def test_capital_letters_in_a_name_change_nothing(tmp_path):
    write(tmp_path / "Rev.CSV", "text,label\na,x\n")
    source = open_source(str(tmp_path / "Rev.CSV"))
    assert source.kind == "classification" and by_split(source) == dict(train=[("a", "x")])
    assert readers.read_texts(str(tmp_path / "Rev.CSV")) == ["a"]
    label_folders(tmp_path / "c")
    (tmp_path / "c/train").rename(tmp_path / "c/Train")
    assert open_source(str(tmp_path / "c")).kind == "classification"


def test_a_kind_that_there_is_not(tmp_path):
    path = write(tmp_path / "a.csv", "text\na\n")
    with says("'classfication'", "classification"): open_source(str(path), "classfication")


def test_quotes_that_are_text_of_a_tsv_lose_no_row(tmp_path):
    path = write(tmp_path / "t.tsv", 'label\ttext\npos\t"Great film\nneg\tbad\npos\tfine"\nneg\tok\n')
    with says("t.tsv:4:", "quotes are text", ".csv"): list(readers.read_table(path))
    path = write(tmp_path / "u.tsv", 'label\ttext\npos\t"two\nlines"\nneg\t"a\ttab"\n')
    assert [t for t, _ in readers.read_table(path)] == ["two\nlines", "a\ttab"]


def test_a_column_is_named_by_its_whole_name_and_stands_once(tmp_path):
    path = write(tmp_path / "t.csv", "title+body,label,x,x\na,b,c,d\n")
    assert list(readers.read_table(path, "title+body")) == [("a", "b")]
    with says("t.csv:1:", "2 columns are called 'x'"): list(readers.read_table(path, "x"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_articles_of_wikitext_begin_at_titles_whatever_ends_a_line(tmp_path, end):
    path = write(tmp_path / "w.txt", end.join([" = A = ", " one ", " = B = ", " two ", ""]))
    assert readers.sniff_text(path) is readers.read_wikitext and len(texts(readers.read_wikitext(path))) == 2


def test_lines_are_the_same_from_a_file_and_from_standard_input(tmp_path, monkeypatch):
    text = "a\rb\nc\r\n\nd"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
    found = [readers.read_texts(source) for source in ("-", str(write(tmp_path / "t.txt", text)))]
    assert found == [["a", "b", "c", "", "d"]] * 2


def test_a_source_that_does_not_exist_is_named(library):
    write(library / "one.toml", 'name = "one"\n')
    with says("nothing.csv", "one"): open_source("nothing.csv")


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "c").mkdir()
    with says("c", "no .txt, .csv, .tsv or .jsonl"): open_source(str(tmp_path / "c"))


def test_json_lines_are_a_table(tmp_path):
    lines = ['{"text": "a\\nb", "stars": 5}', "", '{"stars": true, "title": "t", "text": null}']
    path = write(tmp_path / "t.jsonl", "\n".join(lines))
    assert list(readers.read_table(path, label="stars")) == [("a\nb", "5"), ("", "true")]
    with says("t.jsonl:1:", "'title'", "text, stars", "--text-column"):
        list(readers.read_table(path, "title+text", None))
    assert readers.read_texts(str(path)) == ["a\nb", ""]
    assert open_source(str(write(tmp_path / "c/train.jsonl", '{"text": "a", "label": "x"}'))).kind == "classification"


@pytest.mark.parametrize("line, what", [
    ("[1]", "no JSON object"), ('{"text": "a"', "no JSON object"), ("[" * 10**5, "no JSON object"),
    ('{"text": ["a"], "label": "x"}', "'text' is no text"), ('{"text": "a", "label": null}', "the label is empty"),
    ('{"text": "a"}', "nothing is called 'label'")])
def test_json_lines_that_are_no_table_are_told(tmp_path, line, what):
    path = write(tmp_path / "t.jsonl", '{"text": "", "label": 0}\n' + line)
    with says("t.jsonl:2:", what): list(readers.read_table(path))


def test_an_empty_line_of_a_table_of_one_column_is_an_empty_text(tmp_path):
    "Predictions stand beside the texts; at the end of a file it is none, nor where there are more columns."
    assert readers.read_texts(str(write(tmp_path / "t.csv", 'text\n\na\n\n""\nb\n\n\n'))) == ["", "a", "", "", "b"]
    assert readers.read_texts(str(write(tmp_path / "u.csv", "id,text\n\n1,a\n\n2,b\n"))) == ["a", "b"]


@pytest.mark.parametrize("name, split", [
    ("films_test.csv", "test"), ("Test-films.csv", "test"), ("imdb dev.tsv", "valid"), ("unlabelled_2020.csv", "unsup"),
    ("train_test.csv", "train"), ("latest.csv", "train"), ("a_test_b.csv", "train")])
def test_a_table_of_a_folder_tells_its_split_by_its_first_or_last_word(tmp_path, name, split):
    header = "text\tlabel" if name.endswith("tsv") else "text,label"
    write(tmp_path / "c" / name, header + header.replace("text", "\na").replace("label", "x"))
    assert [*by_split(open_source(str(tmp_path / "c")))] == [split]


def test_a_single_table_is_training_data_whatever_its_words(tmp_path):
    path = write(tmp_path / "films_test.csv", "text,label\na,x\n")
    assert [*by_split(open_source(str(path)))] == ["train"]


def test_tables_beside_folders_of_classes_are_refused_and_beside_texts_told(tmp_path):
    write(tmp_path / "c/more.csv", "text,label\na,x\n")
    write(tmp_path / "c/readme.txt", "text")
    assert "1 files that are no tables" in open_source(str(tmp_path / "c")).notes[0]
    write(tmp_path / "c/train/pos/1.txt", "text")
    with says("more.csv", "folders of classes"): open_source(str(tmp_path / "c"))
