"""The bundle: a model as it goes from stage to stage.

Weights, what builds the network, vocabulary; nothing in it can run code.
    model.safetensors   weights under their names in the network (int8 rows and scales in a compact one)
    config.json         kind, sizes, dropouts, direction, tokenizer, classes
    vocab.json          the ordered tokens
"""
import json, os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from fastcore.script import CliError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..text.tokenizer import Tokenizer
from ..text.vocab import Vocab
from ..training.files import sha256, write_text, write_whole
from ..training.settings import restored
from .classifier import Classifier, HeadSettings, Reading
from .compact import compact, expand
from .encoder import Architecture, Dropouts, Encoder
from .language_model import LanguageModel

FORMAT, OLDEST = 3, 1  # written; the oldest that is read (1 has no hashes, 2 is never compact)
MODELS = Path(__file__).parents[2] / "data" / "models"  # those that travel with the code, a folder for each direction
CONFIG, VOCAB, WEIGHTS = "config.json", "vocab.json", "model.safetensors"
LANGUAGE_MODEL, CLASSIFIER = "language_model", "classifier"


@dataclass
class Bundle:
    "A model with all that predicting, fine-tuning or exporting it needs."
    model: LanguageModel | Classifier
    vocab: Vocab
    tokenizer: dict
    backwards: bool = False
    classes: list[str] = field(default_factory=list)
    head: HeadSettings = HeadSettings()

    @property
    def kind(self) -> str: return CLASSIFIER if isinstance(self.model, Classifier) else LANGUAGE_MODEL
    @property
    def direction(self) -> str: return "backwards" if self.backwards else "forwards"

    def to(self, device: torch.device) -> "Bundle":
        self.model.to(device)
        return self

    def save(self, folder: Path, small: bool = False):
        "Write the three files, config.json last: it has the hashes of the others. With `small`, in 8 bits a weight."
        folder, encoder = Path(folder), self.model.encoder
        weights = {k: v.contiguous() for k, v in self.model.state_dict().items()}
        write_whole(folder / WEIGHTS, lambda path: save_file(compact(weights) if small else weights, path))
        write_whole(folder / VOCAB, self.vocab.save)
        config = dict(format=FORMAT, kind=self.kind, architecture=asdict(encoder.architecture),
                      dropouts=asdict(encoder.dropouts), backwards=self.backwards, tokenizer=self.tokenizer,
                      vocab_fingerprint=self.vocab.fingerprint, classes=self.classes,
                      sha256={name: sha256(folder / name) for name in (WEIGHTS, VOCAB)})
        if self.kind == CLASSIFIER: config |= dict(head=asdict(self.head), reading=asdict(self.model.reading))
        write_text(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False))


def located(model: str | Path, backwards: bool = False) -> Path:
    "Where a model is: one that travels with the code by its name (en-small, en-small/backwards), else the path itself."
    if os.path.exists(model): return Path(model)
    boxed = (MODELS / model / ("backwards" if backwards else "forwards"), MODELS / model)
    return next((p for p in boxed if os.path.isfile(p / CONFIG)), Path(model))


def model_folder(path: Path) -> Path:
    "The bundle's folder, given it, its run's, or the name of a model that travels with the code."
    path = located(path)
    if not os.path.exists(path):
        there = ", ".join(sorted(p.name for p in MODELS.glob("*") if p.is_dir())) or "none"
        raise CliError(f"{path}: no such run or model (models by name: {there})")
    folder = path / "model" if (path / "model").is_dir() else path
    if (path / "run.json").is_file() and not (folder / CONFIG).is_file():
        raise CliError(f"{path} is a run that has not ended: its command, given again, goes on")
    for name in (CONFIG, VOCAB, WEIGHTS):
        if not (folder / name).is_file(): raise CliError(f"{path} is not a model: {folder / name} is missing")
    return folder


def fingerprint(path: Path) -> str:
    "sha256 of a bundle's weights."
    return sha256(model_folder(path) / WEIGHTS)


def settings_of(block: type, values: dict):
    "`restored` of a bundle: what cannot be is the file's fault, and no flag's."
    try: return restored(block, values)
    except CliError as e: raise ValueError(str(e)) from None


def load(path: Path, kind: str | None = None, backwards: bool | None = None) -> Bundle:
    "Open a bundle, or the bundle of a run; `kind` and direction are what the caller needs (None: any)."
    folder = model_folder(path)
    try:
        config = json.loads((folder / CONFIG).read_text())
        if not OLDEST <= config["format"] <= FORMAT:
            raise CliError(f"{folder} has format {config['format']}, this version reads {OLDEST} to {FORMAT}")
        hashes = config.get("sha256", {})
        for name in (WEIGHTS, VOCAB):
            if name in hashes and sha256(folder / name) != hashes[name]:
                raise CliError(f"{folder / name} is damaged (its sha256 has changed)")
        vocab, weights = Vocab.load(folder / VOCAB), expand(load_file(folder / WEIGHTS))
        if vocab.fingerprint != config["vocab_fingerprint"]:
            raise CliError(f"{folder}: vocab.json is not the vocabulary that the model was trained with")
        sizes, dropouts = settings_of(Architecture, config["architecture"]), settings_of(Dropouts, config["dropouts"])
        head, classes = HeadSettings(), config["classes"]
        if sizes.layers > len(weights) or not all(isinstance(c, str) for c in classes): raise ValueError(CONFIG)
        with torch.device("meta"):  # what config.json says of sizes takes no memory before the weights agree
            model = LanguageModel(encoder := Encoder(len(vocab), sizes, dropouts))
            if config["kind"] == CLASSIFIER:
                head = settings_of(HeadSettings, config["head"])
                model = Classifier(encoder, len(classes), head, settings_of(Reading, config["reading"]))
        model.load_state_dict(weights, assign=True)
        Tokenizer.from_dict(config["tokenizer"])
        bundle = Bundle(model.float().eval(), vocab, config["tokenizer"], bool(config["backwards"]), classes, head)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as e:
        raise CliError(f"{folder} is damaged or not a model of this project: {' '.join(str(e).split())[:300]}") from e
    except OSError as e: raise CliError(f"{e.filename or folder} cannot be read ({e.strerror or e})") from None
    if kind and bundle.kind != kind:
        names = {LANGUAGE_MODEL: "a language model", CLASSIFIER: "a classifier"}
        raise CliError(f"{path} is {names[bundle.kind]}; this needs {names[kind]}")
    if backwards not in (None, bundle.backwards):
        needed = "backwards" if backwards else "forwards"
        raise CliError(f"{path} reads {bundle.direction}; this needs a model that reads {needed}")
    return bundle


def starting(model: str, backwards: bool) -> tuple[Bundle | None, str | None]:
    "The language model that a stage starts from (which is said) and its fingerprint; None and None for `none`."
    if model == "none":
        print("starting from random weights")
        return None, None
    path = located(model, backwards)
    found = load(path, LANGUAGE_MODEL, backwards or None)
    print(f"starting from {model} ({found.direction}, {len(found.vocab):,} tokens)")
    return found, fingerprint(path)
