"""Readers: one per format of file, each yields documents `(text, label)`; the label is None where there is none.

Bad input ends with one line that names the file and the line or byte. Files may be plain, `.gz` or `.xz`.
"""
import codecs, csv, io, json, os, re, sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TextIO

from fastcore.script import CliError

from .archives import Member, open_bytes, readable, tar_members

Document = tuple[str, str | None]
TABLES = (".csv", ".tsv", ".jsonl")
LONG = 1_000_000  # characters: a document of plain text ends after so many at its next line, a line at a blank
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a review may be megabytes long


def suffix(path: Path) -> str:
    "That of a file's form, in small letters: `.csv` of Reviews.CSV.gz."
    return next((s for s in map(str.lower, reversed(path.suffixes)) if s not in (".gz", ".xz")), "")


def is_table(path: Path) -> bool: return suffix(path) in TABLES and is_shown(path)
def is_text(path: Path) -> bool: return suffix(path) == ".txt" and is_shown(path)


def is_shown(path: Path) -> bool:
    "A file, and none that a program hides while it writes; to open a pipe would be to wait."
    return path.is_file() and not path.name.startswith(".")


def first_bad_byte(path: Path | Member, encoding: str) -> int:
    "Offset of the first byte of the file that `encoding` cannot read."
    decoder, done = codecs.getincrementaldecoder(encoding)(), 0
    with open_bytes(path) as f:
        while block := f.read(1 << 20):
            waiting = len(decoder.getstate()[0])  # bytes of the last block that wait for their rest
            try: decoder.decode(block)
            except UnicodeDecodeError as e: return done - waiting + e.start
            except UnicodeError: return done  # UTF-16 without its mark
            done += len(block)
    return done - len(decoder.getstate()[0])  # the file ends within a character


def codec_of(encoding: str) -> str:
    "Python's name of a text encoding; a leading byte-order mark of UTF-8 is no text."
    try: codec = codecs.lookup(encoding)
    except LookupError: codec = None
    # base64, rot13 … are codecs too; a line's end in a name is overlooked there
    if codec is None or not encoding.isprintable() or not getattr(codec, "_is_text_encoding", True):
        raise CliError(f"no encoding is called {encoding!r}")
    return "utf-8-sig" if codec.name == "utf-8" else codec.name


def hint(path: Path | Member) -> str:
    "What to do about a file in another encoding, or one that is no text at all."
    with open_bytes(path) as raw: begin = raw.read(2)
    if begin == b"PK": return "it is a zip or an Excel file, no text: save it as CSV"
    encodings = "utf-16" if begin in (b"\xff\xfe", b"\xfe\xff") else "latin-1, cp1252 …"
    return f"name the encoding with --encoding ({encodings})"


@contextmanager
def open_text(path: Path | Member, encoding: str = "utf-8"):
    "A text file, opened; what cannot be read in it becomes one line of error."
    if not isinstance(path, Member) and not os.path.isfile(path := Path(path)):
        if not os.path.exists(path) or not path.is_fifo(): raise CliError(f"{path}: no such file")
    codec = codec_of(encoding)
    try:
        with open_bytes(path) as raw, io.TextIOWrapper(raw, encoding=codec, newline="") as f: yield f
    except UnicodeDecodeError:
        raise CliError(f"{path}: byte {first_bad_byte(path, codec)} is not {encoding}; {hint(path)}") from None
    except UnicodeError as e: raise CliError(f"{path} is not {encoding}: {e}") from None
    except OSError as e: raise CliError(f"{path} cannot be read ({e.strerror or e})") from None


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[Document]:
    "A text a line; an empty line is an empty text."
    with open_text(path, encoding) as f: yield from ((text, None) for text in without_ends(f))


def without_ends(lines: Iterable[str]) -> Iterator[str]: return (line.rstrip("\r\n") for line in lines)


def read_paragraphs(path: Path, encoding: str = "utf-8") -> Iterator[Document]:
    "A plain text: documents end at empty lines, or where they have become very long."
    yield from gathered(path, encoding, lambda line: not line.strip())


def read_book(path: Path, encoding: str = "utf-8") -> Iterator[Document]:
    "A plain text that is one document, or several where it is very long."
    yield from gathered(path, encoding, lambda line: False)


def gathered(path: Path, encoding: str, ends: Callable[[str], bool]) -> Iterator[Document]:
    "Documents of the lines up to one that `ends` them, which is dropped."
    with open_text(path, encoding) as f:
        lines, size = [], 0
        for line in pieces_of_lines(f):
            if not (end := ends(line)):
                lines.append(line)
                size += len(line)
            if lines and (end or size >= LONG):
                yield "".join(lines).strip(), None
                lines, size = [], 0
        if lines: yield "".join(lines).strip(), None


def pieces_of_lines(f: TextIO) -> Iterator[str]:
    "The lines; a very long one in pieces that end at a blank, or where there is none anywhere."
    rest = ""
    while more := f.readline(LONG):
        piece = rest + more
        whole = piece.endswith("\n") or len(more) < LONG
        cut = len(piece) if whole else piece.rfind(" ") + 1 or len(piece)
        yield piece[:cut]
        rest = piece[cut:]
    if rest: yield rest


def read_file(path: Path, encoding: str = "utf-8") -> Iterator[Document]:
    "The whole file as one document."
    with open_text(path, encoding) as f: yield f.read(), None


# A page's title has one `=` on either side, its sections have more.
_title = re.compile(r"^ = [^=](.*[^=])? = $")
_page = re.compile(r'<doc id="?(\d+)')


def read_wikitext(path: Path, encoding: str = "utf-8") -> Iterator[Document]:
    "WikiText: an article a document, from ` = Title = ` to the next; no line is lost."
    with open_text(path, encoding) as f:
        lines = []
        for line in f:
            if _title.match(line.rstrip("\r\n")) and any(x.strip() for x in lines):
                yield "".join(lines), None
                lines = []
            lines.append(line)
        if lines: yield "".join(lines), None


def read_wikiextractor(path: Path, encoding: str = "utf-8", leave_out: Collection[str] = ()) -> Iterator[Document]:
    "WikiExtractor's output: `<doc id=… >`, text with its title line, `</doc>`; without the pages of some ids."
    with open_text(path, encoding) as f:
        lines, start, wanted = [], 0, False  # start: the line of the page that is open

        def unclosed(): return CliError(f"{path}:{start}: the page that begins here has no </doc>; is the file cut?")
        for n, line in enumerate(f, 1):
            if line.startswith("<doc id="):
                if start: raise unclosed()
                lines, start = [], n
                wanted = not leave_out or (found := _page.match(line)) is None or found[1] not in leave_out
            elif line.startswith("</doc>"):
                if wanted and lines: yield "".join(lines).strip(), None
                start, wanted = 0, False
            elif wanted: lines.append(line)
            elif not start and line.strip(): raise CliError(f"{path}:{n}: text outside of <doc …> and </doc>")
        if start: raise unclosed()


def sniff_text(path: Path, encoding: str = "utf-8"):
    "Which reader a `.txt` wants: WikiExtractor, WikiText or plain paragraphs, by its first line with text."
    with open_text(path, encoding) as f: head = next((line for line in pieces_of_lines(f) if line.strip()), "")
    if head.startswith("<doc id="): return read_wikiextractor
    return read_wikitext if _title.match(head.rstrip("\r\n")) else read_paragraphs


def read_table(path: Path, text: str = "text", label: str | None = "label",
               encoding: str = "utf-8") -> Iterator[Document]:
    """A CSV with a header line; by its suffix a TSV, or JSON lines: an object a line, whose keys are the columns.

    `text` names one column, or several joined by ` xxfld `; `label` the class.
    """
    if suffix(Path(path)) == ".jsonl": yield from read_objects(path, text, label, encoding)
    else: yield from read_rows(path, text, label, encoding)


def wanted_columns(text: str, label: str | None, there: Collection[str]) -> list[str]:
    "The columns of a document: those of its text, then that of its class."
    return [*([text] if text in there else text.split("+")), *([label] if label else [])]


def as_document(place: str, fields: list[str], labelled: bool) -> Document:
    "The document of wanted columns' fields."
    if not labelled: return " xxfld ".join(fields), None
    *texts, label = fields
    if not label.strip(): raise CliError(f"{place}: the label is empty")
    return " xxfld ".join(texts), label.strip()


def read_objects(path: Path, text: str, label: str | None, encoding: str) -> Iterator[Document]:
    "JSON lines; numbers and truth values are taken as they are spelt, null as empty."
    with open_text(path, encoding) as f:
        for n, line in enumerate(f, 1):
            if not line.strip(): continue
            try: row = json.loads(line)
            except (ValueError, RecursionError): row = None
            if not isinstance(row, dict): raise CliError(f"{path}:{n}: no JSON object; one a line is expected")
            fields = []
            for column in wanted_columns(text, label, row):
                if column not in row:
                    raise CliError(f"{path}:{n}: nothing is called {column!r}; there are: {', '.join(row)} "
                                   "(--text-column, --label-column)")
                if isinstance(value := row[column], list | dict):
                    raise CliError(f"{path}:{n}: {column!r} is no text")
                fields.append("" if value is None else value if isinstance(value, str) else json.dumps(value))
            yield as_document(f"{path}:{n}", fields, bool(label))


def read_rows(path: Path, text: str, label: str | None, encoding: str) -> Iterator[Document]:
    "A CSV or TSV; where the comma is a decimal point, a CSV's first line has semicolons and none."
    with open_text(path, encoding) as f:
        first = f.readline()
        delimiter = "\t" if suffix(Path(path)) == ".tsv" else ";" if ";" in first and "," not in first else ","
        rows = csv.reader(chain([first], f), delimiter=delimiter, strict=True)
        header = next(checked_rows(path, rows), None)
        if header is None: raise CliError(f"{path}: the file is empty")
        wanted = wanted_columns(text, label, header)
        for column in wanted:
            if (n := header.count(column)) != 1:
                raise CliError(f"{path}:1: {n or 'no'} column{'s are' if n else ' is'} called {column!r}; "
                               f"there are: {', '.join(header)} (--text-column, --label-column)")
        at = [header.index(c) for c in wanted]
        for row in checked_rows(path, rows, len(header)):
            fields = [row[i] for i in at]
            if delimiter == "\t" and any("\t" in f and "\n" in f for f in fields):
                raise CliError(f"{path}:{rows.line_num}: a quoted field that ends here has tabs and line breaks in it; "
                               "if its quotes are text, give the table as .csv")
            yield as_document(f"{path}:{rows.line_num}", fields, bool(label))


def checked_rows(path: Path, rows, width: int | None = None) -> Iterator[list[str]]:
    "Rows of a csv reader, each with `width` fields; of one field an empty line is an empty one, but not at the end."
    start, empty = rows.line_num + 1, 0
    try:
        for row in rows:
            if row and width and len(row) != width:
                raise CliError(f"{path}:{rows.line_num}: {len(row)} fields, {width} are expected "
                               "(is a quote or a comma amiss?)")
            if row:
                yield from ([""] for _ in range(empty if width == 1 else 0))
                yield row
            empty = 0 if row else empty + 1
            start = rows.line_num + 1
    except csv.Error as e: raise CliError(f"{path}:{start}: {e} in the record that begins here") from None


def read_zhang(path: Path, names: list[str], encoding: str = "utf-8") -> Iterator[Document]:
    "Zhang et al.'s CSV (AG News …): no header, class from 1, then title and text; a field's mark is between them."
    with open_text(path, encoding) as f:
        rows, width = csv.reader(f, strict=True), None
        for row in checked_rows(path, rows):
            width = width or len(row)
            if len(row) != width or width < 2:
                raise CliError(f"{path}:{rows.line_num}: {len(row)} fields, {width} are expected")
            if not (row[0].isdecimal() and 1 <= int(row[0]) <= len(names)):
                raise CliError(f"{path}:{rows.line_num}: class {row[0]!r} is not one of 1 … {len(names)}")
            yield " xxfld ".join(row[1:]), names[int(row[0]) - 1]


def read_trec(path: Path, fine: bool = False) -> Iterator[Document]:
    "TREC questions: `COARSE:fine question`, in Latin-1; the one stray byte (0xF0) is read as a blank."
    with open_text(path, "latin-1") as f:
        for n, line in enumerate(f, 1):
            label, _, question = line.rstrip("\n").replace("\xf0", " ").partition(" ")
            if ":" not in label: raise CliError(f"{path}:{n}: no `CLASS:kind` at the start of the line")
            yield question, label if fine else label.partition(":")[0]


_review = re.compile(r"(?:.*/)?(train|test)/(pos|neg|unsup)/\d+_\d+\.txt")


def read_imdb(path: Path) -> Iterator[tuple[str, Document]]:
    "aclImdb, its archive or folder: (split, document); the 50,000 unlabelled reviews are the split `unsup`."
    for name, content in folder_members(path) if path.is_dir() else tar_members(path):
        if not (found := _review.fullmatch(name)): continue
        split, label = found.groups()
        try:
            with readable(path): text = content.read().decode("utf-8")
        except UnicodeDecodeError as e: raise CliError(f"{path}/{name}: byte {e.start} is not utf-8") from None
        yield ("unsup", (text, None)) if label == "unsup" else (split, (text, label))


def folder_members(folder: Path) -> Iterator[tuple[str, io.BytesIO]]:
    "Name and content of each file of a folder, as an archive of it would give them."
    for path in sorted(filter(Path.is_file, folder.rglob("*.txt"))):
        yield path.relative_to(folder).as_posix(), io.BytesIO(path.read_bytes())


def read_label_folder(folder: Path, label: str | None, encoding: str = "utf-8") -> Iterator[Document]:
    "`*.txt` (or .gz, .xz) at any depth: a file a document, in order of names; all have this label."
    for file in sorted(filter(is_text, folder.rglob("*"))):
        for text, _ in read_file(file, encoding): yield text, label


def read_texts(source: str, text_column: str = "text", encoding: str = "utf-8") -> list[str]:
    "Texts to work on: a column of a .csv, .tsv or .jsonl, a text a line of any other file, or of standard input (`-`)."
    if source == "-":
        try: text = sys.stdin.buffer.read().decode(codec_of(encoding))
        except UnicodeDecodeError as e:
            raise CliError(f"standard input: byte {e.start} is not {encoding}; "
                           "name the encoding with --encoding") from None
        except UnicodeError as e: raise CliError(f"standard input is not {encoding}: {e}") from None
        return [*without_ends(io.StringIO(text, newline=""))]
    path = Path(source)
    documents = read_table(path, text_column, None, encoding) if suffix(path) in TABLES else read_lines(path, encoding)
    return [text for text, _ in documents]
