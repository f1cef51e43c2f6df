"""The tokenizer: a text in, its tokens out.

`spacy` is spaCy's blank tokenizer of any language between ULMFiT's rules; a text starts with xxbos.
`words` takes the words of a corpus that is tokenised already (WikiText, Penn Treebank) as they are and ends each line
with xxeos, so that perplexities can be compared with published ones.
"""
from dataclasses import asdict, dataclass, field
from functools import lru_cache

from fastcore.script import CliError

from .rules import BOS, EOS, NAMED_RULES, Rules, UNK, clean, mark

KINDS = ("spacy", "words")


@lru_cache
def spacy_tokenizer(lang: str):
    "spaCy's tokenizer for `lang`; imported here because training needs no spaCy."
    import spacy
    try: tokenizer = spacy.blank(lang).tokenizer
    except ImportError as e: raise CliError(f"spaCy has no tokenizer for the language {lang!r}: {e}") from e
    if vocab := getattr(tokenizer, "vocab", None): vocab.lex_attr_getters = {}  # features of words that nobody reads
    return tokenizer


@dataclass(frozen=True)
class TextSettings:
    "The tokenizer by name."
    tokenizer: str = field(default="spacy", metadata=dict(choices=KINDS))  # spacy | words (text tokenised already)
    lang: str = "en"  # spaCy's code of the language
    rules: str = field(default="fastai", metadata=dict(choices=tuple(NAMED_RULES)))  # text rules: fastai | scripts


@dataclass(frozen=True)
class Tokenizer:
    "How a text becomes tokens; stored in every corpus and bundle."
    kind: str = "spacy"
    lang: str = "en"
    rules: Rules = field(default_factory=Rules)

    @classmethod
    def named(cls, s: TextSettings) -> "Tokenizer": return cls(s.tokenizer, s.lang, NAMED_RULES[s.rules])

    @classmethod
    def from_dict(cls, d: dict) -> "Tokenizer": return cls(d["kind"], d["lang"], Rules(**d["rules"]))

    def to_dict(self) -> dict: return asdict(self)

    def __call__(self, text: str) -> list[str]:
        if self.kind == "words":
            lines = text.removesuffix("\n").split("\n")
            return [UNK if w == "<unk>" else w for line in lines for w in (*line.split(), EOS)]
        # spaCy reads at most 2**30 characters in one go, which no single document reaches.
        return [BOS, *mark((t.text for t in spacy_tokenizer(self.lang)(clean(text, self.rules))), self.rules)]
