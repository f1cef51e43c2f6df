"The house of the design: which floor may stand on which, what training needs, and that what is written down is there."
import ast
import re
import shutil
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest
from corpora import says
from ulmfit import classify, finetune_lm, pretrain
from ulmfit.corpus import prepare as preparing
from ulmfit.corpus.source import Source
from ulmfit.text.tokenizer import Tokenizer
from ulmfit.training.settings import PRESETS, choose, onward, preset

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "ulmfit"
FILES = sorted(PACKAGE.rglob("*.py"))
STAGES = dict(pretrain=pretrain, finetune_lm=finetune_lm, classify=classify)
# What a folder may import beside itself. A file at the top (stage, tool) may import every folder, and no such file.
FLOORS = dict(text=[], kernels=[], training=[], corpus=["text"],
              model=["kernels", "training", "corpus", "text.vocab", "text.tokenizer"])
SMALL = {"ulmfit", "ulmfit.__init__", "ulmfit.locks"}  # the version, and what any floor may take
TRAINING_NEEDS = {"torch", "numpy", "fastcore", "safetensors", "tqdm", "filelock"}  # the last comes with torch


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(p): p for p in FILES}


def imports(path: Path) -> list[str]:
    "Full names of what a file imports, at any depth; `from .a import b` is `….a.b` where b is a module, else `….a`."
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = name_of(path).split(".") + (["__init__"] if path.name == "__init__.py" else [])
            base = ".".join(filter(None, [*package[:-node.level], node.module or ""])) if node.level else node.module
            found += [f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names]
    return found


def own(path: Path) -> list[str]:
    return [m.removeprefix("ulmfit.") for m in imports(path) if m.split(".")[0] == "ulmfit" and m not in SMALL]


def test_the_imports_are_read():
    "The reader below everything else in this file."
    assert {"text.vocab", "model.encoder", "model.classifier",
            "model.language_model"} <= set(own(PACKAGE / "model/bundle.py"))
    assert {"model.bundle", "training.loop"} <= set(own(PACKAGE / "finetune_lm.py"))


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_stands_on_those_below(floor):
    allowed = [floor, *FLOORS[floor]]
    for path in sorted((PACKAGE / floor).glob("*.py")):
        for module in own(path):
            assert any(module == a or module.startswith(f"{a}.") for a in allowed), f"{path.name} imports {module}"


def test_every_folder_is_a_floor():
    assert {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()} == set(FLOORS)


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_stages_and_tools_do_not_import_each_other(path):
    for module in own(path): assert module.split(".")[0] in FLOORS, f"{path.name} imports {module}"


def test_nothing_is_imported_in_a_circle():
    TopologicalSorter({name_of(p): {m for m in imports(p) if m in MODULES and m != name_of(
        p)} for p in FILES}).prepare()


@pytest.mark.parametrize("path",
                         [p for p in FILES if p.parent.name in ("kernels", "training", "model") or p.stem in STAGES],
                         ids=name_of)
def test_training_imports_little(path):
    for module in imports(path):
        top = module.split(".")[0]
        assert top in TRAINING_NEEDS | {"ulmfit"} | sys.stdlib_module_names, f"{path.name} imports {module}"


@pytest.fixture
def corpus(tmp_path):
    documents = [("train", (f"text of a few words {i}", "ab"[i % 2])) for i in range(24)]
    return preparing.prepare(Source("s", "classification", lambda: iter(documents)), Tokenizer("words"),
                             tmp_path / "corpus", 1)


def test_training_from_a_prepared_corpus_loads_neither_spacy_nor_pandas_nor_sklearn(corpus, tmp_path):
    "All three stages, in a process of their own."
    small = "batch=4, bptt=5, min_freq=1, max_steps=2, epochs=1, device='cpu'"
    program = f"""
import sys
from pathlib import Path
import ulmfit.pretrain, ulmfit.finetune_lm, ulmfit.classify
data, a, b, c = {str(corpus.folder)!r}, *(Path({str(tmp_path)!r}) / name for name in 'abc')
ulmfit.pretrain.main(corpus=data, out=a, tokenizer='words', emb=4, hidden=4, {small})
ulmfit.finetune_lm.main(dataset=data, model=a, out=b, {small})
ulmfit.classify.main(dataset=data, model=b, out=c, labelled=0, {small.replace('min_freq=1, ', '')})
print(sorted({{'spacy', 'pandas', 'sklearn', 'matplotlib'}} & set(sys.modules)))
"""
    r = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert r.stdout.splitlines()[-1] == "[]" and (tmp_path / "c/model/model.safetensors").exists()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_of_a_size_to_be_read(path): assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_says_what_it_is_for(path): assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_that_is_loaded_can_run_code(path):
    tree, source = ast.parse(path.read_text()), path.read_text()
    assert not {"pickle", "dill", "cloudpickle", "shelve", "marshal"} & {m.split(".")[0] for m in imports(path)}
    assert f"weights_only={False}" not in source.replace(" ", "") and "allow_pickle=True" not in source.replace(" ", "")
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        if ast.unparse(call.func) == "torch.load": assert any(k.arg == "weights_only" for k in call.keywords)
        assert ast.unparse(call.func) not in ("eval", "exec")


# --- presets ---

def stages_of(path: Path) -> set[str]: return {*tomllib.loads(path.read_text())}


@pytest.mark.parametrize("name, stage", sorted((p.stem, s) for p in PRESETS.glob("*.toml") for s in stages_of(p)))
def test_a_preset_is_known_to_its_stage(name, stage):
    "And so is what it wants otherwise from scratch."
    for v in (preset(name, stage), preset(name, stage, from_nothing=True)):
        chosen = {k: x for block in choose(STAGES[stage].SETTINGS, v, {}) for k, x in vars(block).items()}
        assert {k: chosen[k] for k in v} == v


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda p: p.stem)
def test_a_preset_is_for_stages(path):
    assert stages_of(path) <= set(STAGES)


def test_a_preset_without_the_stage_is_refused():
    with says("awd.toml", "no [classify]"): preset("awd", "classify")


@pytest.mark.parametrize("name", sorted(p.stem for p in PRESETS.glob("*.toml") if stages_of(p) >= {*STAGES}))
def test_what_starts_from_nothing_is_as_large_in_both_later_stages(name):
    def sizes(stage: str) -> set:
        values = {k: v for k, v in preset(name, stage).items() if not isinstance(v, dict)}
        blocks = choose(STAGES[stage].SETTINGS, values, {})
        return {(k, v) for block in blocks for k, v in vars(block).items() if k in ("emb", "hidden", "layers")}
    assert sizes("finetune_lm") == sizes("classify") and len(sizes("classify")) == 3


@pytest.mark.parametrize("stage", STAGES)
def test_a_setting_has_one_meaning_in_a_stage(stage):
    "No name stands in two of its blocks, or is one of its own flags too."
    from dataclasses import fields
    own_flags = {n for n, p in signature(STAGES[stage].main.__wrapped__).parameters.items(
        ) if p.kind == p.POSITIONAL_OR_KEYWORD}
    names = [f.name for block in STAGES[stage].SETTINGS for f in fields(block)]
    assert len(names) == len(set(names)) and not own_flags & set(names)


# --- what is written down ---

MAKEFILE = (REPOSITORY / "Makefile").read_text()


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_help_lists_every_target():
    said = subprocess.run(["make", "-s", "help"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    targets = {t for t in re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.M)}
    assert targets == set(re.findall(r"^\s+make ([a-z-]+)", said, re.M))
    assert targets <= set(re.search(r"^\.PHONY: (.*)", MAKEFILE, re.M)[1].split())


def written_commands() -> list[tuple[str, list[str]]]:
    "(module, flags) of every `python -m ulmfit.…` that is written down."
    found = []
    for path in [REPOSITORY / "README.md", REPOSITORY / "Makefile", *FILES]:
        for line in path.read_text(encoding="utf-8").replace("$(PY)", "python").splitlines():
            for m in re.finditer(r"python\S* -m (ulmfit(?:\.\w+)+)([^`#|]*)", line):
                found.append((m[1], re.findall(r"--([a-z][a-z0-9-]*)", m[2])))
    return found


def test_a_command_that_is_written_down_exists():
    assert len(written_commands()) > 20
    for module, flags in written_commands():
        known = {n.replace("_", "-") for n in signature(import_module(module).main).parameters}
        assert set(flags) <= known | {"help", "no-keep-best"}, f"{module}: {set(flags) - known}"


def test_every_command_is_a_console_script():
    scripts = re.findall(r"ulmfit-\S+ = (ulmfit\.\w+):main", (REPOSITORY / "setup.cfg").read_text())
    assert set(scripts) == {f"ulmfit.{p.stem}" for p in PACKAGE.glob("*.py")} - SMALL


@pytest.mark.parametrize("name, then", [("paper", "paper"), ("awd", "small"), ("mine.toml", "mine.toml")])
def test_the_next_stage_has_a_preset(name, then):
    assert onward(name, "finetune_lm") == then
