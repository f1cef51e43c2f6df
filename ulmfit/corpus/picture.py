"""A prepared corpus as one picture: lengths of its documents, balance of its classes, frequencies of its tokens."""
from pathlib import Path

import numpy as np
from fastcore.script import CliError

from ..text.vocab import Vocab
from .statistics import class_balance, percent, shown
from .store import Corpus

COLOURS = dict(train="#0072B2", valid="#E69F00", test="#009E73", unsup="#888888")  # the colour-blind tell them apart
OTHER, CUT = "#CC79A7", "#D55E00"  # a split of another name; the vocabulary's end
MOST_CLASSES = 20  # that have bars
STYLE = {"text.parse_math": False, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
         "axes.titlesize": 10, "axes.titlelocation": "left", "axes.titleweight": "bold", "legend.frameon": False,
         "axes.grid": True, "grid.color": "#e6e6e6", "axes.axisbelow": True, "axes.edgecolor": "#888888"}


def draw(corpus: Corpus, vocab: Vocab, path: Path):
    "Write the picture; the form follows from the file's suffix (.png, .svg, .pdf)."
    try: import matplotlib
    except ImportError: raise CliError("a picture needs matplotlib: pip install matplotlib") from None
    from matplotlib.figure import Figure
    with matplotlib.rc_context(STYLE):
        panels = [draw_lengths, draw_frequencies, *([draw_classes] if corpus.classes else [])]
        # without pyplot: no window, no state; PNG is drawn by Agg
        figure = Figure(figsize=(5 * len(panels), 4.2), dpi=150, layout="constrained")
        figure.suptitle(shown(corpus.name), x=0.01, ha="left", fontsize=12, weight="bold")
        for panel, axes in zip(panels, figure.subplots(1, len(panels))): panel(axes, corpus, vocab)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(corpus.splits))
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
        except (OSError, ValueError) as e: raise CliError(f"{path} cannot be written: {e}") from None


def plain_numbers(axis, between: bool = False):
    "1, 10, 100, 1,000 along a logarithmic axis, without powers of ten; 2 and 5 `between` them where there is room."
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if between else (1,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def draw_lengths(axes, corpus: Corpus, vocab: Vocab):
    "Histogram of each split's lengths; above it a line from 5% to 95%, thick from 25% to 75%, a dot at the median."
    lengths = {s: np.maximum(1, d.lengths) for s, d in corpus.splits.items() if len(d)}
    every = np.concatenate(list(lengths.values()))
    # half-integers, so that no bin of short lengths stays empty for lying between two integers
    bins = np.unique(np.round(np.geomspace(every.min(), every.max() + 1, 41))) - 0.5
    shares = [100 * np.histogram(n, bins)[0] / len(n) for n in lengths.values()]
    top, step, middle = max(map(np.max, shares)), 0.07, np.sqrt(float(every.min()) * float(every.max()))
    for i, ((split, n), share) in enumerate(zip(lengths.items(), shares)):
        colour, y = COLOURS.get(split, OTHER), top * (1.08 + step * (len(lengths) - 1 - i))
        axes.stairs(share, bins, color=colour, fill=True, alpha=0.15)
        axes.stairs(share, bins, color=colour, linewidth=1.3, label=f"{shown(split)} ({len(n):,})")
        low, quarter, median, three, high = np.quantile(n, (0.05, 0.25, 0.5, 0.75, 0.95))
        axes.plot([low, high], [y, y], color=colour, linewidth=1)
        axes.plot([quarter, three], [y, y], color=colour, linewidth=4, solid_capstyle="butt")
        axes.plot(median, y, "o", color="white", markeredgecolor=colour, markersize=5)
        # on the side where there is room
        end, shift, side = (low, -5, "right") if median > middle else (high, 5, "left")
        axes.annotate(f"median {median:,.0f}", (end, y), (shift, 0), textcoords="offset points", ha=side, va="center",
                      color=colour)
    axes.set(xscale="log", ylim=(0, top * (1.12 + step * len(lengths))), xlabel="tokens in a document",
             ylabel="% of the split's documents", title="Lengths (line 5–95%, thick 25–75%, dot: median)")
    plain_numbers(axes.xaxis, between=every.max() < 100 * every.min())


def draw_classes(axes, corpus: Corpus, vocab: Vocab):
    "Bars of each class's share, one for each split that has labels."
    balance = class_balance(corpus)
    classes = list(balance)[:MOST_CLASSES]
    splits = [s for s in corpus.splits if s in balance[classes[0]]]
    height = 0.8 / len(splits)
    for i, split in enumerate(splits):
        places = np.arange(len(classes)) + height * (i - (len(splits) - 1) / 2)
        shares = [balance[c][f"{split} %"] for c in classes]
        bars = axes.barh(places, shares, height * 0.9, color=COLOURS.get(split, OTHER))
        axes.bar_label(bars, [f"{balance[c][split]:,}" for c in classes], padding=3, fontsize=7, color="#555555")
    more = len(balance) - len(classes)
    axes.set_yticks(np.arange(len(classes)), [shown(c)[:24] for c in classes])
    axes.set(xlabel="% of the split's documents",
             title="Classes" + (f" (the first {len(classes)} of {len(balance):,})" if more else ""))
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    axes.margins(x=0.12)


def draw_frequencies(axes, corpus: Corpus, vocab: Vocab):
    "Zipf's plot of the training tokens: frequency by rank, and where the vocabulary ends."
    counts = corpus.splits["train"].counts(len(corpus.lexicon))
    known = vocab.table(corpus.lexicon) != vocab.unk
    kept, unknown = int((known & (counts > 0)).sum()), percent(counts[~known].sum(), counts.sum())
    frequencies = np.sort(counts[counts > 0])[::-1]
    ranks = np.arange(1, len(frequencies) + 1)
    axes.loglog(ranks, frequencies, color=COLOURS["train"], linewidth=1.8)
    axes.axvline(max(1, kept), color=CUT, linewidth=1, linestyle="--")
    axes.axvspan(max(1, kept), ranks[-1], color=CUT, alpha=0.12, linewidth=0)
    said = [f"the vocabulary keeps\n{kept:,} of {len(ranks):,}\ndistinct tokens;",
            f"{unknown:.2f}% of the text\nis unknown"]
    axes.annotate("\n".join(said), (max(1, kept), frequencies[0]), (-5, 0), textcoords="offset points", ha="right",
                  va="top", color=CUT)
    axes.set(xlabel="rank", ylabel="occurrences in train", title="Frequencies of tokens (Zipf)", ylim=(0.7, None))
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
