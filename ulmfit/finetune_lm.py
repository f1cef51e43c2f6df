"""Stage 2, target-task language-model fine-tuning (section 3.2): the pretrained model reads the target's text.

    python -m ulmfit.finetune_lm --dataset imdb --model runs/wt103 --preset paper --out runs/imdb-lm
    python -m ulmfit.finetune_lm --dataset reviews.csv --out runs/reviews-lm      (from `en-small`, which is in the box)

The vocabulary becomes the target's: a token that the pretrained model knew keeps its row, a new one gets the mean row.
With `--keep-words` the model's other words follow while there is room: what few texts lack, the next ones may have.
Labels are not used. Texts for testing are not read, also where they are held out of the training texts, unless
`--lm-splits` names them; run.json then says so. With `--labelled` only the texts that stage 3 learns from are read.
Which words there are is counted in all texts of these splits, held out or not: all seeds have one vocabulary.
"""
from pathlib import Path

import torch
from fastcore.script import CliError, call_parse

from .corpus.prepare import prepared
from .corpus.store import LabelledHeldOut
from .corpus.stream import LanguageModelStream, Streaming, Windows
from .model import bundle
from .model.bundle import Bundle
from .model.device import device_and_dtype
from .model.dropout import mask_generator
from .model.encoder import Architecture, Dropouts, Encoder
from .model.language_model import LanguageModel, Regularization, with_vocabulary
from .model.tasks import language_model_result, language_model_task
from .text.tokenizer import SUBWORDS, TextSettings, Tokenizer
from .text.vocab import TargetVocab, coverage, sources
from .training.distributed import join
from .training.freezing import Unfreezing
from .training.loop import Training, fit
from .training.optimizers import Optimization
from .training.records import Run
from .training.schedules import Schedule
from .training.settings import choose, flags, natural, preset as read_preset, variables

OF_MODEL = (Architecture, TextSettings)  # where there is one
SETTINGS = (Dropouts, Regularization, TargetVocab, LabelledHeldOut, Windows, Streaming, Optimization, Schedule,
            Unfreezing, Training, *OF_MODEL)


@call_parse
@flags(*SETTINGS)
def main(
    dataset: str = "pydocs",  # name of a dataset, path, or prepared corpus
    model: str = "en-small",  # run, bundle or name of the pretrained language model; none: random weights
    preset: str = "demo",  # settings: demo, small, fast, paper, scripts, fastai, or a TOML file
    out: Path = Path("runs/finetune_lm"),  # folder of the run
    lm_splits: str = "train",  # whose texts are read: train, train+unsup, train+unsup+test (transductive) …
    backwards: bool = False,  # a model that reads from the end; direction is the model's, where there is one
    seed: natural = 0,  # of order, windows and dropout, and of the documents held out and labelled
    split_seed: natural = None,  # of the documents held out, where it is to differ from --seed
    device: str = "auto",  # cpu, cuda, cuda:1 …
    precision: str = "auto",  # auto | fp32 | bf16
    deterministic: bool = False,  # on CUDA: the same bits every time, slower
    kernel: str = "fused",  # fused | unrecorded (GPU) | wavefront (GPU) | reference
    text_column: str = "text",  # of one's own table; several: title+body
    label_column: str = "label",  # of one's own table
    encoding: str = "utf-8",  # of one's own files
    **given,
):
    "Stage 2: fine-tune a language model on the target's text."
    blocks = choose(SETTINGS, read_preset(preset, "finetune_lm", model == "none"), given, model, OF_MODEL)
    (dropouts, regularization, vocab_settings, held_out, windows, streaming, optimization, schedule,
     unfreezing, training, architecture, text_settings) = blocks
    where, dtype = device_and_dtype(device, precision, deterministic)
    ranks, where = join(where)
    split_seed = seed if split_seed is None else split_seed

    # data: the splits that are read, less the documents held out
    old, origin = bundle.starting(model, backwards)
    tokenizer = Tokenizer.from_dict(old.tokenizer) if old else Tokenizer.named(text_settings)
    with ranks.in_turn():
        data = prepared(dataset, None, tokenizer, text_column, label_column, encoding, of_model=bool(old))
        names = [*dict.fromkeys(lm_splits.split("+"))]
        if missing := set(names) - set(data.splits):
            raise CliError(f"{data.name} has no split {', '.join(missing)}; it has: {', '.join(data.splits)}")
        vocab = (old.vocab if old and data.tokenizer.kind == SUBWORDS  # every text has the same subwords
                 else data.vocab(names, vocab_settings.max_vocab, vocab_settings.min_freq))
        if old and vocab_settings.keep_words: vocab = vocab.filled_up(old.vocab, vocab_settings.max_vocab)
        splits = held_out.apart(data.words(vocab), split_seed, seed)
    backwards = old.backwards if old else backwards
    text, *others = (splits[n] for n in names)
    for other in others: text = text.followed_by(other)
    if old: print(coverage(vocab, old.vocab, text.counts(len(vocab))))
    stream = LanguageModelStream(text, streaming.batch, windows, streaming.shuffle, backwards, seed, ranks.part,
                                 where)
    valid = LanguageModelStream(splits["valid"], streaming.batch, Windows(windows.bptt), backwards=backwards,
                                part=ranks.part, device=where)

    # model: the pretrained weights, in the target's vocabulary
    torch.manual_seed(seed)
    network = old.model.encoder.architecture if old else architecture
    lm = LanguageModel(Encoder(len(vocab), network, dropouts, kernel))
    if old: lm.load_state_dict(with_vocabulary(old.model.state_dict(), sources(vocab, old.vocab)))
    blocks = blocks[:-len(OF_MODEL)] if old else blocks
    del old  # its weights are copied
    lm = lm.to(where)
    run = Run(out, "finetune_lm", blocks, seed, where, ranks, kernel, corpus=dataset, notes=data.manifest["notes"],
              text_column=text_column, label_column=label_column, encoding=encoding,
              data=data.fingerprint, split_seed=split_seed, lm_splits=lm_splits, vocab=vocab.fingerprint,
              backwards=backwards, model=origin, dtype=str(dtype))
    if run.result: return print(f"{out} is finished: validation perplexity {run.result['valid_perplexity']:.2f}")
    print(f"{data.name}: {stream.tokens:,} tokens, vocabulary {len(vocab):,}, {where}, {dtype}")

    # training
    rng = mask_generator(seed, where)
    task = language_model_task(lm, stream, valid, regularization, dtype, streaming.scale_rate, ranks)
    figures = fit(task, optimization, schedule, unfreezing, training, run, rng)

    # result
    if ranks.leads: Bundle(lm, vocab, data.tokenizer.to_dict(), backwards).save(run.model)
    run.finish(figures, language_model_result(figures, stream, valid, where), training.keep_checkpoint)
    ranks.leave()
    print(f"validation perplexity {run.result['valid_perplexity']:.2f} in {figures['seconds']:.0f} s; "
          f"model in {run.model}\n"
          f"next: make classify FROM={out}{variables(PRESET=preset, DATASET=dataset, SEED=str(split_seed))}")
