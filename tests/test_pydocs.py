"`pydocs`: docstrings as a corpus, and what is kept out of what a language model reads."
from collections import Counter

import pytest
from corpora import write
from ulmfit.corpus import pydocs


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
