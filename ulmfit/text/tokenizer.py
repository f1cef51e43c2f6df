"""The tokenizer: a text in, its tokens out.

`spacy` is spaCy's blank tokenizer of any language between ULMFiT's rules; a text starts with xxbos.
`words` takes the words of a corpus that is tokenised already (WikiText, Penn Treebank) as they are and ends each line
with xxeos, so that perplexities can be compared with published ones.
`subwords` are pieces of words learnt from the corpus (`subwords.py`), for any language, with blanks or without.
"""
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache

from fastcore.script import CliError

from . import subwords
from .rules import BOS, EOS, NAMED_RULES, Rules, UNK, clean, mark

KINDS = SPACY, WORDS, SUBWORDS = ("spacy", "words", "subwords")


@lru_cache
def spacy_tokenizer(lang: str):
    "spaCy's tokenizer for `lang`; imported here because training needs no spaCy."
    try: import spacy
    except ImportError: raise CliError("spaCy is not installed; install it, or give a prepared corpus") from None
    try: tokenizer = spacy.blank(lang).tokenizer
    except ImportError as e: raise CliError(f"spaCy has no tokenizer for the language {lang!r}: {e}") from e
    if vocab := getattr(tokenizer, "vocab", None): vocab.lex_attr_getters = {}  # of words' features nobody reads
    return tokenizer


@dataclass(frozen=True)
class TextSettings:
    "The tokenizer by name."
    tokenizer: str = field(default=SPACY, metadata=dict(choices=KINDS))  # spacy | words (tokenised already) | subwords
    lang: str = "en"  # spaCy's code of the language
    rules: str = field(default="fastai", metadata=dict(choices=tuple(NAMED_RULES)))  # text rules: fastai | scripts
    subwords: int = 15_000  # how many subwords are learnt (MultiFiT's)


@dataclass(frozen=True)
class Tokenizer:
    "How a text becomes tokens; stored in every corpus and bundle."
    kind: str = SPACY
    lang: str = "en"
    rules: Rules = field(default_factory=Rules)
    size: int = 0  # of the vocabulary of subwords
    model: bytes = field(default=b"", repr=False)  # SentencePiece's; empty until it is trained

    @classmethod
    def named(cls, s: TextSettings) -> "Tokenizer":
        return cls(s.tokenizer, s.lang, NAMED_RULES[s.rules], s.subwords if s.tokenizer == SUBWORDS else 0)

    @classmethod
    def from_dict(cls, d: dict) -> "Tokenizer":
        "ValueError, KeyError or TypeError where it is no tokenizer's."
        if d["kind"] not in KINDS: raise ValueError(f"no tokenizer is called {d['kind']!r}")
        return cls(d["kind"], d["lang"], Rules(**d["rules"]), d.get("size", 0), b64decode(d.get("model", "")))

    def to_dict(self) -> dict:
        "As JSON can have it."
        return asdict(self) | dict(model=b64encode(self.model).decode())

    @property
    def untrained(self) -> bool: return self.kind == SUBWORDS and not self.model

    def trained(self, texts: Iterable[str]) -> "Tokenizer":
        "With subwords learnt from these texts."
        return replace(self, model=subwords.train(texts, self.size, self.rules))

    def __call__(self, text: str) -> list[str]:
        if self.kind == WORDS:
            lines = text.removesuffix("\n").split("\n")
            return [UNK if w == "<unk>" else w for line in lines for w in (*line.split(), EOS)]
        if self.kind == SUBWORDS: return [BOS, *subwords.split(text, self.model, self.rules)]
        # spaCy reads at most 2**30 characters in one go, which no single document reaches.
        return [BOS, *mark((t.text for t in spacy_tokenizer(self.lang)(clean(text, self.rules))), self.rules)]
