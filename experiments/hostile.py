"""Hostile input for `experiments.fuzz`: a surface is a function that builds a case in a folder and returns what to run.

Cases are random, or valid and then damaged; `rng` decides on everything, so a case can be made again.
"""
import gzip, hashlib, io, json, lzma, os, random, shutil, sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import lru_cache, partial
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path

from fastcore.script import parse_cli

from ulmfit.text import subwords
from ulmfit.text.memo import Memo
from ulmfit.text.rules import NAMED_RULES, clean, mark
from ulmfit.text.tokenizer import SPACY, WORDS, Tokenizer
from ulmfit.text.vocab import Vocab

MARKS = ["xxunk", "xxbos", "xxup", "xxrep 3 a", "<unk>", " @-@ ", "<br />", "\\n", "&amp;", "#39;", "&#x110000;",
         "&#0;", "...", "don't",
         ":)", "и др.", "z.B.", "http://a.b/c?d=e", "\r\n", "\n\n", "\x85", "\u2028", "\0", "\ufeff",
         "\u200d", "👩‍👩‍👧", "مرحبا", "汉字", "İ", "ß", "ﬁ", "a\u0301", " = T = ", "<doc id=1>", "</doc>", '"', ",",
         "\t"]
ENCODINGS = ["utf-8", "latin-1", "utf-16", "utf-7", "cp1252", "shift_jis", "idna", "punycode", "unicode_escape",
             "raw_unicode_escape", "rot13", "base64", "klingon", "", "utf-8\n"]
VALUES = ["", " ", "-1", "0", "1", "2", "7", "0.5", "-0.5", "1.5", "nan", "inf", "-inf", "1e308", "1e999", "٣", "0x10",
          "1_0", "true", "none", "null", "[]", "{}", "[1, 2]", '[{"last": 1}]', '[{"epochs": -1}]', '[{"lr": "x"}]',
          "[1, null, {}]", "/dev/null", "/proc/self/mem", "..", "~", "\udcff", "é", "x" * 300, "train+train", "+",
          "[" * 9000]
HUGE = ["99999999", "4294967296", "9223372036854775808"]
# a large number here asks for much work, which is no mistake
WORK = {"words", "layers", "workers", "epochs", "max_steps", "documents", "subwords", "batch"}
PLACES = {"out", "output", "plot"}
TINY = dict(pretrain="--emb 4 --hidden 4 --layers 1", finetune_lm="", classify="--max-length 20")
TRAIN = "--batch 4 --bptt 5 --max-steps 2 --device cpu"


def text(rng: random.Random) -> str:
    "A text of anything."
    def piece() -> str:
        kind = rng.random()
        if kind < 0.4: return rng.choice(MARKS)
        if kind < 0.6: return "".join(chr(rng.randrange(32, 127)) for _ in range(rng.randint(1, 12)))
        if kind < 0.8: return chr(rng.choice([rng.randrange(0xd800), rng.randrange(0xe000, 0x110000)]))
        return rng.choice("aA!. \né1") * rng.choice([2, 3, 9, 200])
    made = rng.choice(["", " "]).join(piece() for _ in range(rng.choice([0, 1, 3, 10, 60])))
    return made * rng.choice([100, 1000]) if rng.random() < 0.01 else made


def damaged(rng: random.Random, data: bytes) -> bytes:
    "Some bytes other than they were, more or fewer."
    data = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 2, 8])):
        at = rng.randint(0, len(data))
        piece = rng.choice([b'"', b",", b"\n", b"\r", b"\0", b"\xff", b"\xe9", b"\t", b"{", b"[" * 3000, "é".encode(),
                            rng.randbytes(4)])
        data[at:at + rng.choice([0, 1, 5, 1000])] = piece * rng.choice([1, 1, 40])
    return bytes(data[:rng.randint(0, len(data))] if rng.random() < 0.2 else data)


def value(rng: random.Random):
    "A value of JSON that nobody expects."
    return rng.choice([None, True, -1, 0, 1, 2**31, 2**70, 0.5, -1e308, float("nan"), float("inf"), "", "x", "\ud800",
                       "a" * 5000, [], {}, [[]], {"a": {}}, [1, "x", None]])


def changed(rng: random.Random, node):
    "JSON with something in it changed, removed or added."
    if isinstance(node, dict) and node and rng.random() < 0.85:
        key = rng.choice(sorted(node))
        return {k: v for k, v in node.items() if k != key} if rng.random() < 0.2 else node | {
            key if rng.random() < 0.9 else "other": changed(rng, node[key])}
    if isinstance(node, list) and node and rng.random() < 0.7:
        at = rng.randrange(len(node))
        return [*node[:at], *([] if rng.random() < 0.3 else [changed(rng, node[at])]), *node[at + 1:]]
    return value(rng)


def damage_json(rng: random.Random, path: Path):
    if rng.random() < 0.3: path.write_bytes(damaged(rng, path.read_bytes()))
    else: path.write_text(json.dumps(changed(rng, json.loads(path.read_text()))))


class Failed(Exception): "A command's exit status is not 0; its last line of error."


def command(name: str, *args, stdin: bytes = b"A fine film\n"):
    "`python -m ulmfit.NAME ARGS` within this process; CliError or `Failed` where its exit status is not 0."
    main, kept = import_module(f"ulmfit.{name}").main, (sys.argv, sys.stdin)
    sys.argv = [f"ulmfit.{name}", *map(str, args)]
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True) for _ in range(2))
    try:
        with redirect_stdout(out), redirect_stderr(err):
            positional, named, _ = parse_cli(main.__wrapped__, pos=["name"] if name == "data" else None)
            main(*positional, **named)
    except SystemExit as e:
        if e.code: raise Failed(err.buffer.getvalue().decode().rstrip("\n").splitlines()[-1]) from None
    finally: sys.argv, sys.stdin = kept


# --- surfaces ---

def rules(rng: random.Random, ground: Path, folder: Path) -> Callable:
    texts, which = text(rng), NAMED_RULES[rng.choice(sorted(NAMED_RULES))]
    return lambda: (list(mark(clean(texts, which).split(" "), which)), subwords.spaced(texts, which))


@lru_cache
def remembered(tokenizer: Tokenizer) -> tuple[Memo, list[str]]: return Memo(tokenizer, most=2000), []


def tokenizer(rng: random.Random, ground: Path, folder: Path) -> Callable:
    "The tokens of the memory must be the tokenizer's."
    texts = [text(rng) for _ in range(rng.randint(0, 4))]
    one = Tokenizer(rng.choice([SPACY, SPACY, WORDS]), rng.choice(["en", "de", "ru", "zh"]))

    def both():
        memo, names = remembered(one)
        begun = memo.begun
        numbers, _ = memo(texts)
        if memo.begun != begun: names.clear()
        names.extend(memo.news())
        assert [names[n] for n in numbers] == [token for t in texts for token in one(t)], "the memory has other tokens"
    return both


def table(rng: random.Random) -> bytes:
    "A CSV that may be one."
    def cell() -> str:
        made = rng.choice(["good", "bad", text(rng)])
        return '"' + made.replace('"', '""') + '"' if rng.random() < 0.7 else made
    rows = [["text", "label"], *([cell(), rng.choice(["a", "b", cell()])] for _ in range(rng.choice([0, 3, 12])))]
    data = rng.choice(["\n", "\r\n", "\r"]).join(rng.choice([",", ",", "\t"]).join(r) for r in rows).encode()
    return damaged(rng, data) if rng.random() < 0.7 else data


def packed(rng: random.Random, path: Path, data: bytes) -> Path:
    "A file, compressed or not, and perhaps not as its name says."
    end = rng.choice(["", "", "", ".gz", ".xz"])
    pack = dict([(".gz", gzip.compress), (".xz", lzma.compress)]).get(end, bytes) if rng.random() < 0.9 else bytes
    data = pack(data)
    path = path.with_name(path.name + end)
    path.write_bytes(damaged(rng, data) if end and rng.random() < 0.4 else data)
    return path


def used(rng: random.Random, path: Path, ground: Path, folder: Path) -> Callable:
    "A command that reads a corpus of one's own."
    how = []
    if rng.random() < 0.3: how += ["--encoding", rng.choice(ENCODINGS)]
    if rng.random() < 0.1: how += ["--text-column", rng.choice(["text+label", "label", "", "+", "é"])]
    kinds = ["--kind", rng.choice(["lm", "classification"])] if rng.random() < 0.3 else []
    what = rng.random()
    if what < 0.15:
        words = ["--tokenizer", "words", "--workers", 1, "--out", folder / "out"]
        return partial(command, "prepare", path, *how, *kinds, *words)
    if what < 0.25 and path.is_file():
        return partial(command, "predict", ground / "classifier", "--input", path, *how, "--output", folder / "out.csv")
    return partial(command, "data", "check", path, *how, *kinds)


def csv(rng: random.Random, ground: Path, folder: Path) -> Callable:
    path = packed(rng, folder / rng.choice(["t.csv", "t.csv", "t.tsv", "train.csv", "t.txt"]), table(rng))
    return used(rng, path, ground, folder)


NAMES = ["train", "test", "valid", "unsup", "pos", "neg", "a b", "é", "wiki_00", ".hidden", "x.txt", "y.txt",
         "train.csv", "test.tsv", "\udcff.txt"]


def folders(rng: random.Random, ground: Path, folder: Path) -> Callable:
    root = folder / "corpus"

    def fill(at: Path, depth: int):
        at.mkdir()
        for name in rng.sample(NAMES, rng.choice([0, 1, 2, 4])):
            path, kind = at / name, rng.random()
            if kind < 0.45 and depth: fill(path, depth - 1)
            elif kind < 0.52: path.symlink_to(rng.choice([at, Path("missing"), path, Path("/dev/zero")]))
            elif kind < 0.56: os.mkfifo(path)
            else: packed(rng, path, table(rng) if "sv" in name else damaged(rng, text(rng).encode()))
    if rng.random() < 0.5: fill(root, 3)
    else:
        for split, label in [(s, n) for s in rng.sample(NAMES[:4], 2) for n in rng.sample(NAMES, 2)]:
            fill(root / split / label, 1) if (root / split).is_dir() else (root / split).mkdir(parents=True)
    return used(rng, root, ground, folder)


def bundle(rng: random.Random, ground: Path, folder: Path) -> Callable:
    "A damaged model; its hashes may be right again."
    shutil.copytree(ground / rng.choice(["lm", "classifier"]) / "model", at := folder / "model")
    name = rng.choice(["config.json", "config.json", "vocab.json", "model.safetensors"])
    if name.endswith("json"): damage_json(rng, at / name)
    else: (at / name).write_bytes(damaged(rng, (at / name).read_bytes()))
    if name != "config.json" and rng.random() < 0.8:
        config = json.loads((at / "config.json").read_text())
        config["sha256"][name] = hashlib.sha256((at / name).read_bytes()).hexdigest()
        try: config["vocab_fingerprint"] = Vocab.load(at / "vocab.json").fingerprint
        except Exception: pass  # it is none any more
        (at / "config.json").write_text(json.dumps(config))
    return rng.choice([partial(command, "predict", at, "--output", folder / "out.csv"), partial(command, "predict", at),
                       partial(command, "generate", at, "--words", 3),
                       partial(command, "embed", at, "--output", folder / "out.npy"),
                       partial(command, "evaluate", at, "--corpus", ground / "corpus", "--split", "train")])


def run_json(rng: random.Random, ground: Path, folder: Path) -> Callable:
    shutil.copytree(ground / (name := rng.choice(["lm", "classifier"])), at := folder / "out")
    damage_json(rng, at / "run.json")
    if rng.random() < 0.5: return partial(command, "evaluate", at, "--split", rng.choice(["train", "test"]))
    stage = dict(lm="pretrain", classifier="classify")[name]
    return partial(command, stage, *valid(stage, ground), "--out", at)


def valid(name: str, ground: Path) -> list:
    "Arguments with which a command does something, quickly."
    corpus, lm, classifier = ground / "corpus", ground / "lm", ground / "classifier"
    return dict(pretrain=["--corpus", corpus], finetune_lm=["--dataset", corpus, "--model", lm],
                classify=["--dataset", corpus, "--model", lm, "--plan", "full"], predict=[classifier],
                generate=[lm, "--words", 3], embed=[lm], evaluate=[classifier, "--dataset", corpus, "--split", "train"],
                data=["show", corpus], prepare=[ground / "texts.csv", "--tokenizer", "words", "--workers", 1],
                merge=[ground / "shard"])[name] + (f"{TRAIN} {TINY[name]}".split() if name in TINY else [])


def command_line(rng: random.Random, ground: Path, folder: Path) -> Callable:
    "Valid arguments, and others after them."
    name = rng.choice("pretrain finetune_lm classify predict generate embed evaluate data prepare merge".split())
    args = valid(name, ground)
    every = signature(import_module(f"ulmfit.{name}").main).parameters.values()
    flags = [p for p in every if p.kind != Parameter.VAR_KEYWORD]
    if rng.random() < 0.1: args = args[rng.randint(0, len(args)):]
    for p in rng.sample(flags, min(len(flags), rng.choice([1, 1, 2, 4]))):
        if p.default is Parameter.empty or p.name == "device":
            args = [*args, rng.choice(VALUES)] if rng.random() < 0.2 else args
        elif p.name in PLACES: args += [f"--{p.name}", folder / rng.choice(["a/b", "é", "x" * 300, "\udcff", "."])]
        else: args += [f"--{p.name.replace('_', '-')}",
                       rng.choice(VALUES + (ENCODINGS if p.name == "encoding" else [] if p.name in WORK else HUGE))]
    place = dict(embed=["--output", "out.npy"], predict=["--output", "out.csv"]).get(name, ["--out", "out"])
    if {"out", "output"} & {p.name for p in flags} and place[0] not in args: args += [place[0], folder / place[1]]
    return partial(command, name, *args, stdin=damaged(rng, text(rng).encode()))


SURFACES = dict(rules=(rules, 35), tokenizer=(tokenizer, 15), csv=(csv, 15), folders=(folders, 9), bundle=(bundle, 9),
                run_json=(run_json, 8), command_line=(command_line, 9))  # and its share of the cases in percent
