"""Shards: parts of a corpus that were prepared apart, on several machines say, become the corpus that one run gives."""
import json
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from fastcore.script import CliError

from .prepare import differences, finish, is_there
from .store import Corpus, check_files, read_manifest
from .writer import CorpusWriter


def merge(folders: Sequence[Path], out: Path) -> Corpus:
    "Join the shards of a corpus: bit by bit the corpus that one run gives."
    shards = {tuple(m["shard"] or (0, 0)): (Path(f), m) for f, m in ((f, read_manifest(f)) for f in folders)}
    (_, first), n = next(iter(shards.values())), len(folders)
    if sorted(shards) != [(i, n) for i in range(1, n + 1)]:
        there = ", ".join(f"{i}/{k}" if k else "a whole corpus" for i, k in sorted(shards))
        raise CliError(f"these are not all the shards of one corpus: {there}")
    if is_there(Path(out), first["identity"], None): return Corpus(out)
    for folder, manifest in shards.values():
        if manifest["identity"] != first["identity"]:
            raise CliError(f"{folder} is of another corpus ({differences(manifest['identity'], first['identity'])})")
        if manifest["tokenizer"] != first["tokenizer"]:
            raise CliError(f"{folder} has learnt other subwords than the first shard; prepare all on one version")
        check_files(folder, manifest["files"], contents=True)
    with CorpusWriter(out) as writer:
        for split in sorted({s for _, m in shards.values() for s in m["splits"]}):
            parts = [shard_blocks(*shards[i, n], split, writer) for i in range(1, n + 1)]
            for part in cycle(parts):  # a block of each in turn, as they were dealt out
                if (block := next(part, None)) is None: break  # then the others have no more either
                writer.add(split, *block)
        finish(writer, None, **{k: first[k] for k in ("name", "kind", "tokenizer", "notes", "identity", "promised")})
    return Corpus(out)


def shard_blocks(folder: Path, manifest: dict, split: str, writer: CorpusWriter) -> Iterator[tuple]:
    "(ids, lengths, labels) of each block of a shard, in the writer's numbers."
    if split not in manifest["splits"]: return
    lexicon = json.loads((folder / "lexicon.json").read_text())
    table = np.fromiter(map(writer.lexicon.__getitem__, lexicon), dtype=np.uint32, count=len(lexicon))
    def read(part): return np.load(folder / f"{split}.{part}.npy", mmap_mode="r" if part == "ids" else None)
    ids, offsets, at = read("ids"), read("offsets"), 0
    labels = read("labels") if f"{split}.labels.npy" in manifest["files"] else None
    classes = np.array([writer.classes[c] for c in manifest["classes"]])
    for size in read("blocks"):
        inside = offsets[at:at + size + 1]
        yield (table[ids[inside[0]:inside[-1]]], np.diff(inside).tolist(),
               None if labels is None else classes[labels[at:at + size]].tolist())
        at += size
