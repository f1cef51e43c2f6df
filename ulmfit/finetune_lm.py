"""Stage 2, target-task language-model fine-tuning (section 3.2): the pretrained model reads the target's text.

    python -m ulmfit.finetune_lm --dataset imdb --model runs/wt103 --preset paper --out runs/imdb-lm
    python -m ulmfit.finetune_lm --dataset reviews.csv --model runs/wt103 --out runs/reviews-lm

The vocabulary becomes the target's: a token that the pretrained model knew keeps its row, a new one gets the mean row.
Labels are not used. Texts for testing are not read, unless `--lm-splits` names them; run.json then says so.
"""
from pathlib import Path

import torch
from fastcore.script import CliError, call_parse

from .corpus.prepare import prepared
from .corpus.store import with_held_out
from .corpus.stream import LanguageModelStream, Streaming, Windows
from .model import bundle
from .model.bundle import Bundle, device_and_dtype
from .model.encoder import Dropouts, Encoder
from .model.language_model import LanguageModel, Regularization, with_vocabulary
from .model.tasks import language_model_result, language_model_task
from .text.tokenizer import SUBWORDS, Tokenizer
from .text.vocab import VocabSettings, coverage, sources
from .training.freezing import Unfreezing
from .training.loop import Training, fit
from .training.optimizers import Optimization
from .training.records import Run
from .training.schedules import Schedule
from .training.settings import choose, flags, natural, preset as read_preset

SETTINGS = (Dropouts, Regularization, VocabSettings, Windows, Streaming, Optimization, Schedule, Unfreezing, Training)


@call_parse
@flags(*SETTINGS)
def main(
    dataset: str = "pydocs",  # name of a dataset, path, or prepared corpus
    model: Path = Path("runs/pretrain"),  # run or bundle of the pretrained language model
    preset: str = "demo",  # settings: demo, small, paper, scripts, fastai, awd, or a TOML file
    out: Path = Path("runs/finetune_lm"),  # folder of the run
    lm_splits: str = "train",  # whose texts are read: train, train+unsup, train+unsup+test (transductive) …
    backwards: bool = False,  # insist on a model that reads from the end; the direction is the model's in any case
    seed: natural = 0,  # of order, windows and dropout, and of the documents held out
    device: str = "auto",  # cpu, cuda, cuda:1 …
    precision: str = "auto",  # auto | fp32 | bf16
    kernel: str = "fused",  # of LSTM and loss: fused | reference
    text_column: str = "text",  # of one's own table; several: title+body
    label_column: str = "label",  # of one's own table
    encoding: str = "utf-8",  # of one's own files
    **given,
):
    "Stage 2: fine-tune a language model on the target's text."
    blocks = choose(SETTINGS, read_preset(preset, "finetune_lm"), given)
    dropouts, regularization, vocab_settings, windows, streaming, optimization, schedule, unfreezing, training = blocks
    where, dtype = device_and_dtype(device, precision)

    # data: the splits that are read, less the documents held out
    old = bundle.load(model, bundle.LANGUAGE_MODEL, backwards=backwards or None)
    data = prepared(dataset, None, Tokenizer.from_dict(old.tokenizer), text_column, label_column, encoding,
                    of_model=True)
    names = lm_splits.split("+")
    if missing := set(names) - set(data.splits):
        raise CliError(f"{data.name} has no split {', '.join(missing)}; it has: {', '.join(data.splits)}")
    vocab = (old.vocab if data.tokenizer.kind == SUBWORDS  # every text has the same subwords
             else data.vocab(names, vocab_settings.max_vocab, vocab_settings.min_freq))
    splits = with_held_out(data.words(vocab), "valid", streaming.valid_fraction, seed)
    text = splits["train"] if "train" in names else splits[names[0]]
    for name in names[1:]: text = text.followed_by(splits[name])
    print(coverage(vocab, old.vocab, text.counts(len(vocab))))
    stream = LanguageModelStream(text, streaming.batch, windows, streaming.shuffle, old.backwards, seed)
    valid = LanguageModelStream(splits["valid"], streaming.batch, Windows(windows.bptt), backwards=old.backwards)

    # model: the pretrained weights, in the target's vocabulary
    torch.manual_seed(seed)
    lm = LanguageModel(Encoder(len(vocab), old.model.encoder.architecture, dropouts, kernel))
    lm.load_state_dict(with_vocabulary(old.model.state_dict(), sources(vocab, old.vocab)))
    lm = lm.to(where)
    run = Run(out, "finetune_lm", blocks, seed, where, corpus=dataset, notes=data.manifest["notes"],
              data=data.fingerprint, lm_splits=lm_splits, vocab=vocab.fingerprint, backwards=old.backwards,
              model=bundle.fingerprint(model), dtype=str(dtype))
    if run.result: return print(f"{out} is finished: validation perplexity {run.result['valid_perplexity']:.2f}")
    print(f"{data.name}: {stream.tokens:,} tokens, vocabulary {len(vocab):,}, {old.direction}, {where}, {dtype}")

    # training
    rng = torch.Generator(where).manual_seed(seed)
    task = language_model_task(lm, stream, valid, regularization, dtype, streaming.scale_rate)
    figures = fit(task, optimization, schedule, unfreezing, training, run, rng)

    # result
    Bundle(lm, vocab, old.tokenizer, old.backwards).save(run.model)
    run.finish(figures, language_model_result(figures, stream, valid, where), training.keep_checkpoint)
    print(f"validation perplexity {run.result['valid_perplexity']:.2f} in {figures['seconds']:.0f} s; "
          f"model in {run.model}\n"
          f"next: make classify FROM={out}{'' if dataset == 'pydocs' else f' DATASET={dataset}'}")
