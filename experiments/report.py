"""The report: the paper's tables beside what was measured here, and which of its claims hold.

    python -m experiments.report        (make report)

Reads `experiments/results/tables/*.csv`, which the runner wrote, and `experiments/paper.csv`; writes
`experiments/REPORT.md` and `experiments/report.html`, a page of its own with the plots in it. Nothing in them is typed.
"""
import html, io, re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import matplotlib
from fastcore.script import CliError, call_parse
from matplotlib.figure import Figure

from ulmfit.training.files import write_text

from .findings import (FAILS, HOLDS, MEASURES, OPEN, Results, best_epochs, claims_table, cost_table, introduction,
                       main_table, mcnemar_table, provenance, shown)
from .plan import HERE, names, read_toml
from .run import RESULTS


def plots(results: Results, table: str, about: dict) -> Iterator[str]:
    "SVG pictures: error over labels where a table has several numbers of them, else over epochs."
    if "labels" in about: yield from over_labels(results, table, about)
    else: yield from over_epochs(results, table, [r["name"] for r in about["row"]], "learning curves")
    if table == "table7": yield from over_epochs(results, table, ["Full", "Freez + discr + stlr"], "Figure 4")


def over_labels(results: Results, table: str, about: dict) -> Iterator[str]:
    "Figure 3."
    for dataset in dict.fromkeys(c[0] for c in results.columns(table)):
        columns = {n: c for c in results.columns(table) if c[0] == dataset and (n := labels(results, table, c))}
        fig, ax = canvas(f"{dataset}: {MEASURES[about['measure']]}")
        for row in about["row"]:
            found = {n: [*e.values()] for n, c in columns.items()
                     if (e := results.errors(table, row["name"], c, about["measure"]))}
            bars = [stdev(e) if len(e) > 1 else 0 for e in found.values()]
            if len(found) > 1: ax.errorbar([*found], [*map(mean, found.values())], bars, marker="o", capsize=3,
                                           label=row["name"])
        if ax.containers:
            ax.set(xscale="log", xlabel="labelled documents")
            ax.set_xticks([*columns], [f"{n:,}" for n in columns])
            ax.minorticks_off()
            yield svg(fig, ax)


def labels(results: Results, table: str, column: tuple[str, str]) -> int:
    "How many documents of a column have labels: all are those of Table 1, but for validation; 0 if it is not there."
    dataset, labelled = column
    if int(labelled): return int(labelled)
    there = results.errors("table1", "Training examples", (dataset, "0"), "value")
    held_out = next(r["valid_documents"] for r in results.of(table) if (r["dataset"], r["labelled"]) == column)
    return int(there["0"]) - int(held_out or 0) if there else 0


def over_epochs(results: Results, table: str, rows: list[str], name: str) -> Iterator[str]:
    "Validation error of classifiers, a picture for each dataset."
    for column in results.columns(table):
        fig, ax = canvas(f"{shown(column)}: validation error ({name})")
        for row in rows:
            runs = results.runs(table, row, column)
            points: dict[int, list[float]] = {}
            for r in results.curves:
                if r["run"] in runs: points.setdefault(int(r["epoch"]), []).append(float(r["valid_error"]))
            points = {e: found for e, found in points.items() if len(found) == len(runs)}  # as far as all seeds went
            if points: ax.plot(sorted(points), [mean(points[e]) for e in sorted(points)], marker=".", label=row)
        ax.set(xlabel="epoch")
        if ax.lines: yield svg(fig, ax)


def canvas(title: str):
    fig = Figure(figsize=(6, 3.6), layout="constrained")
    ax = fig.subplots()
    ax.set(title=title, ylabel="%")
    ax.grid(alpha=0.3)
    return fig, ax


def svg(fig: Figure, ax) -> str:
    ax.legend()
    out = io.StringIO()
    how = {"svg.hashsalt": "ulmfit", "svg.fonttype": "none"}  # ids that stay the same; words as text, not as outlines
    with matplotlib.rc_context(how): fig.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg"):]


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)


def whole(cell: str) -> str:
    "A figure and its spread stay on one line, however narrow the screen."
    return re.sub(r" (?=±|\(\d)|(?<=±) ", "\N{NO-BREAK SPACE}", cell)


def html_table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        marks = {HOLDS: "yes", FAILS: "no", OPEN: "open"}
        filled = (f'<{tag} class="{marks.get(c, "")}">{whole(html.escape(c))}</{tag}>' for c in cells)
        return f"<tr>{''.join(filled)}</tr>"
    return ('<div class="wide"><table>' + line(head, "th") + "".join(line(r, "td") for r in rows) + "</table></div>")


STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:auto;padding:1rem;color:#222;background:#fff}
h1,h2,h3{line-height:1.2}.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;margin:.6rem 0}
td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:left;white-space:nowrap}
.yes{background:#dff3df}.no{background:#f8dcdc}.open{background:#f3f0dc}svg{max-width:100%;height:auto}
th:first-child,td:first-child{position:sticky;left:0;background:#fff}code{font-size:.75rem}details{margin:.4rem 0}
@media(max-width:40rem){th,td{white-space:normal;padding:.25rem .35rem}td:first-child{min-width:7rem}}"""


def sections(results: Results) -> Iterator[tuple[str, str, object]]:
    "(kind, title, content) from the top: what a page is made of, whatever it is written in."
    for table in sorted(names("tables"), key=lambda name: (not name.startswith("table"), name)):
        if not results.of(table): continue
        about = read_toml("tables", table)
        yield "heading", about["title"], None
        for measure in about["measure"], *about.get("also", []):
            yield "table", "", main_table(results, table, about, measure)
        if said := best_epochs(about): yield "text", "", said
        for title, (head, rows) in (("Claims", claims_table(results, table, about)),
                                    ("Against the first row, test documents", mcnemar_table(results, table, about)),
                                    ("Cost", cost_table(results, table, about))):
            if rows: yield "table", title, (head, rows)
        for picture in plots(results, table, about): yield "picture", "", picture
        yield "provenance", "Where each figure comes from", provenance(results, table)


def as_markdown(everything: list[Results]) -> str:
    out = ["# The paper's tables, measured", "Made by `make report` from `experiments/results/tables/`; pictures and "
           "the command behind each figure are in `report.html`."]
    for results in everything:
        out += [f"## Scale {results.scale}", introduction(results)]
        for kind, title, content in sections(results):
            if kind == "heading": out.append(f"### {title}")
            if kind == "text": out.append(content)
            if kind == "table": out += [*([f"**{title}**"] if title else []), markdown(*content)]
    return "\n\n".join(out) + "\n"


def as_html(everything: list[Results]) -> str:
    out = ["<h1>The paper's tables, measured</h1>"]
    for results in everything:
        told = re.sub("`(.*?)`", r"<code>\1</code>", html.escape(introduction(results)))
        out += [f"<h2>Scale {html.escape(results.scale)}</h2><p>{told}</p>"]
        for kind, title, content in sections(results):
            if kind == "heading": out.append(f"<h3>{html.escape(title)}</h3>")
            if kind == "table": out.append((f"<h4>{html.escape(title)}</h4>" if title else "") + html_table(*content))
            if kind == "text": out.append(f"<p>{html.escape(content)}</p>")
            if kind == "picture": out.append(content)
            if kind == "provenance":
                out.append(f"<details><summary>{html.escape(title)}</summary>{html_table(*content)}</details>")
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width,initial-scale=1"><title>ULMFiT, measured</title><style>{STYLE}</style></head>'
            f"<body>{''.join(out)}</body></html>\n")


@call_parse
def main(
    results: Path = RESULTS,  # folder of the figures
    out: Path = HERE,  # folder of REPORT.md and report.html
):
    "Write the report."
    found = [Results(p) for p in sorted(results.glob("*.csv")) if not p.stem.endswith("-curves")]
    if not found: raise CliError(f"there are no figures in {results} yet: make tables")
    write_text(out / "REPORT.md", as_markdown(found))
    write_text(out / "report.html", as_html(found))
    print(f"{out / 'REPORT.md'} and {out / 'report.html'}: {', '.join(r.scale for r in found)}")
