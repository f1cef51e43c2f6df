"""Stage 1, general-domain language-model pretraining (section 3.1): learn a language from any large text in it.

    python -m ulmfit.pretrain --corpus wikitext-103 --preset paper --out runs/wt103
    python -m ulmfit.pretrain --corpus my_texts/ --preset small --lang de --out runs/de

`--corpus` is a dataset by name (a card in `data/`), a path, or a prepared corpus. The run's folder gets the settings
and the result (run.json), the learning curve (metrics.csv) and the model; the same command again continues an
interrupted run.
"""
from pathlib import Path

import torch
from fastcore.script import call_parse

from .corpus.prepare import prepared
from .corpus.store import HeldOut
from .corpus.stream import LanguageModelStream, Streaming, Windows
from .model.bundle import Bundle
from .model.device import device_and_dtype
from .model.dropout import mask_generator
from .model.encoder import Architecture, Dropouts, Encoder
from .model.language_model import LanguageModel, Regularization
from .model.tasks import language_model_result, language_model_task
from .text.tokenizer import TextSettings, Tokenizer
from .text.vocab import VocabSettings
from .training.distributed import join
from .training.freezing import Unfreezing
from .training.loop import Training, fit
from .training.optimizers import Optimization
from .training.records import Run
from .training.schedules import Schedule
from .training.settings import choose, flags, natural, onward, preset as read_preset, variables

SETTINGS = (Architecture, Dropouts, Regularization, TextSettings, VocabSettings, HeldOut, Windows, Streaming,
            Optimization, Schedule, Unfreezing, Training)


@call_parse
@flags(*SETTINGS)
def main(
    corpus: str = "pydocs",  # name of a dataset, path, or prepared corpus
    preset: str = "demo",  # settings: demo, small, fast, paper, scripts, fastai, awd … or a TOML file
    out: Path = Path("runs/pretrain"),  # folder of the run
    backwards: bool = False,  # a language model that reads from the end
    seed: natural = 0,  # of weights, order, windows and dropout
    device: str = "auto",  # cpu, cuda, cuda:1 …
    precision: str = "auto",  # auto | fp32 | bf16
    deterministic: bool = False,  # on CUDA: the same bits every time, slower
    kernel: str = "fused",  # fused | unrecorded (GPU) | wavefront (GPU) | reference
    encoding: str = "utf-8",  # of one's own files
    **given,
):
    "Stage 1: pretrain a language model on general text."
    blocks = choose(SETTINGS, read_preset(preset, "pretrain"), given)
    (architecture, dropouts, regularization, text, vocab_settings, held_out, windows, streaming,
     optimization, schedule, unfreezing, training) = blocks
    where, dtype = device_and_dtype(device, precision, deterministic)
    ranks, where = join(where)

    # data
    with ranks.in_turn():
        data = prepared(corpus, "lm", Tokenizer.named(text), encoding=encoding)
        vocab = data.vocab(["train"], vocab_settings.max_vocab, vocab_settings.min_freq)
        splits = held_out.apart(data.words(vocab), seed)
    stream = LanguageModelStream(splits["train"], streaming.batch, windows, streaming.shuffle, backwards, seed,
                                 ranks.part, where)
    valid = LanguageModelStream(splits["valid"], streaming.batch, Windows(windows.bptt), backwards=backwards,
                                part=ranks.part, device=where)

    # model
    torch.manual_seed(seed)
    model = LanguageModel(Encoder(len(vocab), architecture, dropouts, kernel)).to(where)
    run = Run(out, "pretrain", blocks, seed, where, ranks, kernel, corpus=corpus, encoding=encoding,
              notes=data.manifest["notes"], data=data.fingerprint, vocab=vocab.fingerprint,
              backwards=backwards, dtype=str(dtype))
    if run.result: return print(f"{out} is finished: validation perplexity {run.result['valid_perplexity']:.2f}")
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{data.name}: {stream.tokens:,} tokens, vocabulary {len(vocab):,}, {parameters:,} parameters, "
          f"{where}, {dtype}")

    # training
    rng = mask_generator(seed, where)
    task = language_model_task(model, stream, valid, regularization, dtype, streaming.scale_rate, ranks)
    figures = fit(task, optimization, schedule, unfreezing, training, run, rng)

    # result
    if ranks.leads: Bundle(model, vocab, data.tokenizer.to_dict(), backwards).save(run.model)
    run.finish(figures, language_model_result(figures, stream, valid, where), training.keep_checkpoint)
    ranks.leave()
    print(f"validation perplexity {run.result['valid_perplexity']:.2f} in {figures['seconds']:.0f} s; "
          f"model in {run.model}\n"
          f"next: make finetune-lm FROM={out}{variables(PRESET=onward(preset, 'finetune_lm'))}")
