"""`pydocs`: the corpus that is always there. English prose from the docstrings of installed Python libraries.

Sources are read with `ast`; nothing is imported or run. General domain: every library. Target: the texts of some
(`TARGETS`). Task: which of those a text documents, its give-aways (the libraries' own names) masked. A quarter of the
target's texts are for testing; the general corpus leaves them out, so no language model has read them.
"""
import ast, gc, hashlib, importlib.util, inspect, re, sys, sysconfig, warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

GENERAL = ("stdlib", "numpy", "pandas", "torch", "spacy", "thinc", "sklearn", "scipy", "sympy", "networkx", "joblib",
           "fastcore", "hypothesis", "pydantic", "rich", "typer", "requests", "httpx", "jinja2", "fsspec", "tqdm",
           "pytest", "_pytest", "pip", "setuptools", "click", "packaging", "safetensors", "numba")
TARGETS = ("stdlib", "pandas", "torch", "scipy", "sympy", "networkx")
WORDS = (8, 400)  # length of a text of the general domain
TASK_WORDS = (8, 60)  # and of the task: what a thing is, said in a sentence or two
MAX_TARGET_TEXTS = 1500  # of a library, so that no class outweighs the others
_give_away = re.compile(r"\b(?:python|numpy|np|scipy|sp|pandas|pd|pytorch|torch|aten|sklearn|scikit[- ]?learn|"
                        r"scikit|sympy|networkx|nx|numpydoc|ndarrays?|ufuncs?|dataframes?)\b", re.IGNORECASE)
_code = re.compile(r"^\s*(?:>>>|\.\.\.|In \[|Out\[).*\n?|``?[^`\n]*``?", re.MULTILINE)
_examples = re.compile(r"^\s*Examples?:?:?\s*(\n\s*[-=~]{3,}\s*)?$", re.MULTILINE)  # from here on it is code
_section = re.compile(r"^\s*\S.*\n\s*[-=~]{3,}\s*$|"
                      r"^\s*(?:Args|Arguments|Returns|Parameters|Raises|Keyword|Attributes)[^\n]*:\s*$|"
                      r"^\s*:param|^\s*\.\. ", re.MULTILINE)


def sources(library: str) -> Iterator[Path]:
    "A library's source files, tests left out, found without importing it."
    if library == "stdlib":
        root, skip = (Path(sysconfig.get_path("stdlib")),
                      {"site-packages", "dist-packages", "test", "idlelib", "lib2to3"})
    else:
        spec = importlib.util.find_spec(library)
        if spec is None or spec.origin is None: return
        root, skip = Path(spec.origin).parent, set()
    for path in sorted(root.rglob("*.py")):
        parts = set(path.relative_to(root).parts)
        if not parts & skip and not parts & {"tests", "_vendor", "conftest.py"}: yield path


def definitions(body: list[ast.stmt]) -> Iterator[ast.AST]:
    "Classes and functions at any depth; expressions, most of a syntax tree, are not walked."
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)): yield node
        for part in ("body", "orelse", "finalbody"): yield from definitions(getattr(node, part, []))
        for handler in getattr(node, "handlers", []): yield from definitions(handler.body)


def docstrings(path: Path) -> list[str]:
    "Every docstring of a source file, indentation taken off; a file that does not parse has none."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError): return []
    return [text for node in (tree, *definitions(tree.body)) if (text := ast.get_docstring(node))]


def prose(text: str) -> str:
    "What a docstring says in sentences: without code and names between backticks, up to its first section."
    return _section.split(_code.sub(" ", _examples.split(text, 1)[0]), 1)[0].strip()


def description(text: str) -> str:
    "A docstring's prose with the libraries' own names masked."
    return _give_away.sub("library", prose(text))


def key(text: str) -> bytes: return hashlib.sha256(" ".join(text.lower().split()).encode("utf-8", "replace")).digest()


def is_test(text: str) -> bool:
    "One text in four, by its hash: the same ones on every machine."
    return key(description(text))[0] < 64


@lru_cache(len(GENERAL))
def parsed(files: tuple[Path, ...]) -> list[str]:
    "The files' docstrings, parsed by all cores; kept, for the task is of libraries that the general domain has read."
    with ProcessPoolExecutor(initializer=gc.disable) as pool:  # trees have no cycles: a sixth less time
        return [text for found in pool.map(docstrings, files, chunksize=8) for text in found]


def texts(libraries: Iterable[str], of: Callable[[str], str], words: tuple[int, int]) -> Iterator[tuple[str, str]]:
    "(library, text): the distinct texts of a fair length."
    seen: set[bytes] = set()
    for library in libraries:
        for text in map(of, parsed(tuple(sources(library)))):
            if words[0] <= len(text.split()) <= words[1] and (k := key(text)) not in seen:
                seen.add(k)
                yield library, text.encode("utf-8", "replace").decode()


def read_general() -> Iterator[tuple[str, tuple[str, None]]]:
    "(split, document) of the general domain."
    for _, text in texts(GENERAL, prose, WORDS):
        if not is_test(text): yield "train", (text, None)


def read_task() -> Iterator[tuple[str, tuple[str, str]]]:
    "(split, document) of the task, each document with its library."
    found = sorted(texts(TARGETS, description, TASK_WORDS), key=lambda pair: key(pair[1])[1:])
    taken = Counter()
    for library, text in found:
        taken[library] += 1
        if taken[library] <= MAX_TARGET_TEXTS: yield "test" if is_test(text) else "train", (text, library)


def fingerprint() -> str:
    "Changes when a version of a source library does."
    def of(library: str) -> str:
        try: return version(dict(sklearn="scikit-learn", _pytest="pytest").get(library, library))
        except PackageNotFoundError: return "-"
    versions = (f"{name} {of(name)}" for name in GENERAL[1:])
    about = [f"python {sys.version_info[:3]}", *versions, inspect.getsource(sys.modules[__name__])]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()
