"""Stage 3, target-task classifier fine-tuning (section 3.3): the LM's encoder under a new head, gradually unfrozen.

    python -m ulmfit.classify --dataset imdb --model runs/imdb-lm --preset paper --out runs/imdb
    python -m ulmfit.classify --dataset reviews.csv --model runs/reviews-lm --out runs/reviews
    python -m ulmfit.classify --dataset reviews.csv --out runs/reviews                     (from `en-small` as it is)
    python -m ulmfit.classify --dataset imdb --model none --out runs/imdb-scratch          (no transfer)
    python -m ulmfit.classify --dataset imdb --model runs/imdb-lm --from-scratch --out …   (all of it but the weights)

Validation documents are set apart before anything is learnt; the test split is read once, last, and chooses nothing.
"""
from pathlib import Path

import torch
from fastcore.script import CliError, call_parse

from .corpus.buckets import Batching, DocumentBatches
from .corpus.prepare import prepared
from .corpus.store import LabelledHeldOut
from .model import bundle
from .model.bundle import Bundle
from .model.classifier import Classifier, HeadSettings, Reading, class_probabilities, percent_wrong, predictions
from .model.device import device_and_dtype
from .model.dropout import mask_generator
from .model.encoder import Architecture, ClassifierDropouts, Encoder
from .model.language_model import Regularization
from .model.tasks import classifier_task
from .text.tokenizer import TextSettings, Tokenizer
from .text.vocab import VocabSettings
from .training.distributed import join
from .training.files import write_text
from .training.freezing import Unfreezing
from .training.loop import Training, fit
from .training.optimizers import Optimization
from .training.records import PREDICTIONS, Run, csv_text, peak_memory
from .training.schedules import Schedule
from .training.settings import choose, flags, natural, preset as read_preset

OF_MODEL = (Architecture, VocabSettings, TextSettings)  # where there is one
SETTINGS = (ClassifierDropouts, Regularization, Reading, HeadSettings, LabelledHeldOut, Batching, Optimization,
            Schedule, Unfreezing, Training, *OF_MODEL)


@call_parse
@flags(*SETTINGS)
def main(
    dataset: str = "pydocs",  # name of a dataset, path, or prepared corpus
    model: str = "en-small",  # run, bundle or name of a language model; none: random weights
    preset: str = "demo",  # settings: demo, small, fast, paper, scripts, fastai, or a TOML file
    out: Path = Path("runs/classify"),  # folder of the run
    from_scratch: bool = False,  # the model's network and vocabulary, but random weights
    backwards: bool = False,  # a model that reads from the end; direction is the model's, where there is one
    seed: natural = 0,  # of the head, order and dropout, and of the documents held out and labelled
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
    "Stage 3: fine-tune a classifier on a language model."
    blocks = choose(SETTINGS, read_preset(preset, "classify", from_scratch or model == "none"), given, model, OF_MODEL)
    (dropouts, regularization, reading, head, held_out, batching, optimization, schedule, unfreezing, training,
     architecture, vocab_settings, text) = blocks
    where, dtype = device_and_dtype(device, precision, deterministic)
    ranks, where = join(where)
    split_seed = seed if split_seed is None else split_seed

    # data: what is held out first, then the labelled sample
    old, origin = bundle.starting(model, backwards)
    tokenizer = Tokenizer.from_dict(old.tokenizer) if old else Tokenizer.named(text)
    with ranks.in_turn():
        data = prepared(dataset, "classification", tokenizer, text_column, label_column, encoding, of_model=bool(old))
        tokenizer = data.tokenizer
        vocab = old.vocab if old else data.vocab(["train"], vocab_settings.max_vocab, vocab_settings.min_freq)
        splits = held_out.apart(data.words(vocab), split_seed, seed)
    if bad := [c for c in data.classes if c != c.encode(errors="replace").decode()]:
        raise CliError(f"{data.name}: the name of the class {bad[0]!a} is not UTF-8")
    labelled = splits["train"]
    if len(labelled) < 2: raise CliError(f"{data.name}: one document is left to learn from; give more")
    backwards = old.backwards if old else backwards
    how = dict(pad=vocab.pad, backwards=backwards, longest=reading.max_length)
    train = DocumentBatches(labelled, batch=batching.batch, tokens=batching.train_tokens, shuffle=True, seed=seed,
                            part=ranks.dealt, **how)
    valid, test = (DocumentBatches(splits[s], batch=256, tokens=batching.eval_tokens, **how) for s in ("valid", "test"))

    # model: the encoder of the language model, and a new head
    torch.manual_seed(seed)
    network = old.model.encoder.architecture if old else architecture
    classifier = Classifier(Encoder(len(vocab), network, dropouts, kernel), len(data.classes), head, reading)
    if old and not from_scratch: classifier.encoder.load_state_dict(old.model.encoder.state_dict())
    blocks = blocks[:-len(OF_MODEL)] if old else blocks
    del old  # its weights are copied
    classifier = classifier.to(where)
    run = Run(out, "classify", blocks, seed, where, ranks, kernel, corpus=dataset, notes=data.manifest["notes"],
              text_column=text_column, label_column=label_column, encoding=encoding,
              data=data.fingerprint, split_seed=split_seed, vocab=vocab.fingerprint, backwards=backwards,
              model=origin, from_scratch=from_scratch, dtype=str(dtype))
    if run.result: return print(f"{out} is finished: test error {run.result['test_error']:.2f}%")
    counts = labelled.counts(len(vocab))
    print(f"{data.name}: {len(labelled):,} labelled documents, {len(data.classes)} classes, "
          f"{len(valid.docs):,} for validation, {len(test.docs):,} for testing, "
          f"{100 * counts[vocab.unk] / counts.sum():.1f}% of the words unknown, {where}, {dtype}")

    # training
    rng = mask_generator(seed, where)
    task = classifier_task(classifier, train, valid, regularization, dtype, ranks)
    figures = fit(task, optimization, schedule, unfreezing, training, run, rng)

    # result
    probabilities = class_probabilities(classifier, test.batches(), len(test.docs), dtype, ranks)
    test_error = percent_wrong(probabilities, test.docs.targets)
    if ranks.leads:
        Bundle(classifier, vocab, tokenizer.to_dict(), backwards, data.classes, head).save(run.model)
        write_text(run.folder / PREDICTIONS, csv_text(predictions(probabilities, test.docs.targets, data.classes)))
    result = dict(valid_error=figures["valid_error"], valid_loss=figures["valid_loss"], test_error=test_error,
                  labelled=len(labelled), valid_documents=len(valid.docs), test_documents=len(test.docs),
                  documents_per_second=figures["documents_per_second"], peak_memory_bytes=peak_memory(where))
    run.finish(figures, result, training.keep_checkpoint)
    ranks.leave()
    print(f"validation error {figures['valid_error']:.2f}%, test error {test_error:.2f}% "
          f"in {figures['seconds']:.0f} s; model in {run.model}\n"
          f"next: python -m ulmfit.predict {out} --input texts.csv")
