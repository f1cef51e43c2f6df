"""What preparation costs: six corpora from their files to ids on disk, and a text of 2 GB.

    python -m experiments.corpora                       all; figures in experiments/results/corpora.csv
    python -m experiments.corpora trec,imdb             some

Wall time of the whole command, its tokens per second, and the highest sum of resident memory over all its processes
(pages that they share are counted in each). The 2 GB are `enwiki` five times over, every fiftieth word another one in
each copy.
"""
import csv, json, os, re, shutil, subprocess, sys, time
from pathlib import Path
from zlib import crc32

from fastcore.script import call_parse

from ulmfit.corpus.registry import open_source
from ulmfit.training.files import write_text
from ulmfit.training.records import csv_text

from .bench.rounds import machine

WORK, RESULT = Path("runs/corpora"), Path(__file__).parent / "results" / "corpora.csv"
LARGE = "5 times enwiki"
NAMES = ("trec", "ag_news", "imdb", "ptb", "wikitext-2", "enwiki", LARGE)
COPIES, OTHERS = 5, 50


def resident(session: int) -> int:
    "Bytes of resident memory over all the processes of a session (Linux)."
    total = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int((path / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                total += int((path / "statm").read_text().split()[1])
        except (OSError, ValueError): pass  # it has just ended
    return total * os.sysconf("SC_PAGE_SIZE")


def measured(args: list) -> tuple[float, int]:
    "Seconds and peak memory of `python -m ulmfit.prepare ARGS`."
    began, peak = time.monotonic(), 0
    process = subprocess.Popen([sys.executable, "-m", "ulmfit.prepare", *map(str, args)], start_new_session=True)
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.1)
    if process.returncode: raise SystemExit(process.returncode)
    return time.monotonic() - began, peak


def large_text() -> Path:
    "The 2 GB."
    path = WORK / "large.txt"
    if path.exists(): return path
    with open(path.with_suffix(".part"), "w") as f:
        for copy in range(COPIES):
            def another(word: re.Match) -> str:
                return f"{word[0]}{copy}" if crc32(word[0].encode()) % OTHERS == copy else word[0]
            for _, (text, _) in open_source("enwiki").read():
                f.write((re.sub(r"[^\W\d_]+", another, text) if copy else text) + "\n\n")
    return path.with_suffix(".part").rename(path)


@call_parse(pos=["names"])
def main(
    names: str = ",".join(NAMES),  # of datasets, with commas between
):
    "Measure preparation."
    WORK.mkdir(parents=True, exist_ok=True)
    rows = {r["dataset"]: r for r in csv.DictReader(RESULT.open())} if RESULT.exists() else {}
    for name in names.split(","):
        words = ["--tokenizer", "words"] if name in ("ptb", "wikitext-2") else []
        what, out = large_text() if name == LARGE else name, WORK / "prepared"
        shutil.rmtree(out, ignore_errors=True)
        seconds, peak = measured([what, "--out", out, *words])
        again, _ = measured([what, "--out", out, *words])
        manifest = json.loads((out / "manifest.json").read_text())
        splits = manifest["splits"].values()
        tokens = sum(s["tokens"] for s in splits)
        rows[name] = dict(dataset=name, tokenizer="words" if words else "spacy",
                          documents=sum(s["documents"] for s in splits), tokens=tokens,
                          distinct=manifest["distinct_tokens"], seconds=f"{seconds:.1f}",
                          tokens_per_second=round(tokens / seconds), peak_memory_bytes=peak,
                          seconds_again=f"{again:.2f}", bytes_on_disk=sum(f.stat().st_size for f in out.iterdir()),
                          processor=machine()["processor"], notes="; ".join(manifest["notes"]))
        write_text(RESULT, csv_text(list(rows.values())))
        print(json.dumps(rows[name]))
    shutil.rmtree(WORK / "prepared", ignore_errors=True)
