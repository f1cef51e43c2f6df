"""What the figures say: means over seeds beside the paper's, differences with intervals, claims that hold or not."""
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, median, stdev

from scipy.stats import binomtest, t as student

from .plan import HERE
from .run import EACH, saved

CONFIDENCE = 0.95
HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot tell at this scale"
MEASURES = dict(valid_error="validation error, %", test_error="test error, %", value="",
                valid_perplexity="validation perplexity of the fine-tuned language model")


@dataclass
class Difference:
    "How much lower the error of one row is than another's, paired over seeds: mean, and half of its interval."
    pairs: list[tuple[float, float]]  # (better, than), a pair each seed

    @cached_property
    def mean(self) -> float: return mean(b - a for a, b in self.pairs)

    @cached_property
    def half(self) -> float:
        "Half of the interval by Student's t; without end for one seed."
        n = len(self.pairs)
        if n < 2: return float("inf")
        return student.ppf((1 + CONFIDENCE) / 2, n - 1) * stdev(b - a for a, b in self.pairs) / n ** 0.5

    @property
    def verdict(self) -> str:
        if self.mean - self.half > 0: return HOLDS
        return FAILS if self.mean + self.half < 0 else OPEN

    def __str__(self) -> str:
        return f"{self.mean:+.2f}" + (f" ± {self.half:.2f}" if len(self.pairs) > 1 else " (one seed)")


class Results:
    "The figures of a scale, and the paper's."
    def __init__(self, path: Path):
        self.scale, self.rows = path.stem, saved(path)
        self.curves = saved(path.with_name(f"{path.stem}-curves.csv"))
        self.paper = {(r["table"], r["row"], r["dataset"]): r["error"] for r in saved(HERE / "paper.csv")}

    def of(self, table: str) -> list[dict]: return [r for r in self.rows if r["table"] == table]

    def cell(self, table: str, row: str, column: tuple) -> list[dict]:
        "What a place in a table is made of: the figures of each seed."
        return [r for r in self.of(table) if (r["row"], r["dataset"], r["labelled"]) == (row, *column)]

    def errors(self, table: str, row: str, column: tuple, measure: str) -> dict[str, float]:
        "By seed."
        return {r["seed"]: float(r[measure]) for r in self.cell(table, row, column) if r[measure]}

    def runs(self, table: str, row: str, column: tuple) -> set[str]:
        return {r["run"] for r in self.cell(table, row, column)}

    def columns(self, table: str) -> list[tuple[str, str]]:
        "Datasets and numbers of labels, in order."
        return sorted({(r["dataset"], r["labelled"]) for r in self.of(table)}, key=lambda c: (c[0], int(c[1]) or 10**9))

    def difference(self, table: str, better: str, than: str, column: tuple, measure: str) -> Difference | None:
        a, b = (self.errors(table, row, column, measure) for row in (better, than))
        both = sorted(a.keys() & b.keys())
        return Difference([(a[s], b[s]) for s in both]) if both else None


def shown(column: tuple[str, str]) -> str: return column[0] + (f", {int(column[1]):,} labels" if int(column[1]) else "")


def figure(errors: list[float], measure: str) -> str:
    "Mean, standard deviation and number of seeds; what no seed decides as it is."
    if not errors: return ""
    if measure == "value": return f"{errors[0]:,.0f}"
    if measure == "valid_perplexity": return f"{mean(errors):.2f}"  # all seeds start from one language model
    if len({*errors}) == 1: return f"{errors[0]:.2f} ({len(errors) if len(errors) == 1 else 'all seeds alike'})"
    return f"{mean(errors):.2f} ± {stdev(errors):.2f} ({len(errors)})"


def main_table(results: Results, table: str, about: dict, measure: str) -> tuple[list[str], list[list[str]]]:
    "Head and rows: for each dataset the paper's figure, if it has this measure, and ours."
    columns = results.columns(table)
    head = [MEASURES[measure]]
    known = measure == about["measure"] and any(k[0] == table for k in results.paper)
    for c in columns: head += [shown(c), "paper"] if known else [shown(c)]
    rows = []
    for row in about["row"]:
        cells = [row["name"]]
        for c in columns:
            cells.append(figure([*results.errors(table, row["name"], c, measure).values()], measure))
            if known: cells.append(results.paper.get((table, row["name"], c[0]), ""))
        rows.append(cells)
    return head, rows


def claims_table(results: Results, table: str, about: dict) -> tuple[list[str], list[list[str]]]:
    "For each claim and dataset whether it holds, the difference and its interval; on the test documents, too."
    rows, measures = [], [about["measure"], *{"test_error"} - {about["measure"]}]
    for claim in about.get("claim", []):
        better, than = claim["better"], claim["than"]
        for c in results.columns(table):
            found = [results.difference(table, better, than, c, m) for m in measures]
            if not found[0] or results.runs(table, better, c) == results.runs(table, than, c): continue
            p = by_chance(results, table, about["row"][0]["name"], {better, than}, c)
            told = [t for m, d in zip(measures, found)
                    for t in ((verdict(d, p if m == "test_error" else None), str(d)) if d else ("", ""))]
            paper = [results.paper.get((table, row, c[0])) for row in (than, better)]
            theirs = f"{float(paper[0]) - float(paper[1]):+.2f}" if all(paper) else ""
            rows.append([claim["text"], shown(c), *told[:2], theirs, *told[2:]])
    more = ["on the test documents", "points gained"] if len(measures) > 1 else []
    return ["claim", "on", "here", "points gained", "in the paper", *more], rows


def verdict(d: Difference, p: float | None) -> str:
    "The seeds' verdict, where the documents do not say that as large a difference comes by chance."
    return d.verdict if p is None or p <= 1 - CONFIDENCE else OPEN


def by_chance(results: Results, table: str, first: str, pair: set[str], column: tuple) -> float | None:
    "McNemar's p for two rows, one of which is the table's first; None where it is not known."
    return mcnemar(results, table, *pair - {first}, column)[1] if first in pair else None


def mcnemar(results: Results, table: str, row: str, column: tuple) -> tuple[list[tuple[int, int]], float | None]:
    """Test documents that only this row has wrong, and only the table's first row, by seed; the median of p.

    Each seed is a test of its own, as the documents are the same in all.
    """
    counts = ((r["only_wrong"], r["only_first_wrong"]) for r in results.cell(table, row, column))
    pairs = [(int(a), int(b)) for a, b in counts if a and a + b != "00"]
    return pairs, median(binomtest(a, a + b).pvalue for a, b in pairs) if pairs else None


def mcnemar_table(results: Results, table: str, about: dict) -> tuple[list[str], list[list[str]]]:
    "Test documents that only one of two models has wrong, against the table's first row: means of the counts."
    rows = []
    for row in about["row"]:
        for c in results.columns(table):
            pairs, p = mcnemar(results, table, row["name"], c)
            if pairs: rows.append([row["name"], shown(c), *(f"{mean(n):,.0f}" for n in zip(*pairs)), f"{p:.2g}"])
    return ["row", "on", "wrong here only", "wrong in the first row only", "p (McNemar, exact; median of seeds)"], rows


def cost_table(results: Results, table: str, about: dict) -> tuple[list[str], list[list[str]]]:
    "What a figure took: each stage that it needs, in order, on average over seeds."
    def mean_of(found: list[dict], key: str, unit: float, digits: int) -> str:
        each = [[float(v) / unit for v in r[key].split(EACH)] for r in found if r[key]]
        if len({*map(len, each)}) != 1: return ""  # nothing, or some from where not all stages had been
        return EACH.join(f"{mean(v):,.{digits}f}" for v in zip(*each))

    rows = [[row["name"], shown(c), mean_of(found, "seconds", 60, 1), mean_of(found, "documents_per_second", 1, 1),
             mean_of(found, "tokens_per_second", 1, 0), mean_of(found, "peak_memory_mib", 1, 0)]
            for row in about["row"] for c in results.columns(table) if (found := results.cell(table, row["name"], c))]
    return ["row", "on", "minutes, stage by stage", "documents/s", "language model, tokens/s", "peak MiB"], rows


def provenance(results: Results, table: str) -> tuple[list[str], list[list[str]]]:
    keys = ("row", "dataset", "labelled", "seed", "run", "data", "commit", "precision", "notes", "command")
    return [*keys], [[r.get(k, "") for k in keys] for r in results.of(table)]


def best_epochs(about: dict) -> str:
    "Which rows' validation errors are those of the epoch that had the lowest; nothing where all are alike."
    best = [r["name"] for r in about["row"] if r.get("classify", {}).get("keep_best")]
    if about["measure"] != "valid_error" or len(best) in (0, len(about["row"])): return ""
    return (f"With the weights of the epoch that is best on these validation documents, which favours them: "
            f"{', '.join(best)}. The others have those of their last. Test documents decide nothing.")


def core_hours(results: Results) -> float:
    "Of all that the figures needed; a job that several of them need is known again by its data and its seconds."
    jobs = {(r["dataset"], s) for r in results.rows for s in r["seconds"].split(EACH) if s}
    return sum(float(s) for _, s in jobs) / 3600


def introduction(results: Results) -> str:
    seeds = {r["seed"] for r in results.rows}
    precisions = sorted({p for r in results.rows for p in r.get("precision", "").split(", ") if p})
    partial = sorted({n for r in results.rows for n in r["notes"].split("; ") if n})
    return (f"{len(results.rows):,} figures, {len(seeds)} seeds. A figure is the mean over seeds ± standard deviation "
            f"(number of seeds). A gain is paired over seeds, with its {CONFIDENCE:.0%} interval by Student's t, which "
            "knows of the spread of labels, heads and batches, not of the documents' (a question of TREC-6 is 0.2 "
            "points) nor of the language models', of which a row has one; a claim holds where the whole interval is on "
            "its side, on test documents only if chance would not have as many of them fall so (McNemar, where one of "
            "the rows is the table's first). The preset's rates and dropouts were chosen on the same validation "
            "documents with other seeds; the rates of the paper's other rows (0.001 and the like) were not chosen "
            f"here. All of it took some {core_hours(results):,.0f} hours of a core, often with other work beside it. "
            + (f"Rows were trained in {' and '.join(precisions)}, as the machine had it (under `precision`). "
               if len(precisions) > 1 else "")
            + (f"Noted beside rows: {'; '.join(partial)}." if partial else ""))
