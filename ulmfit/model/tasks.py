"""What the training loop trains: a language model on a stream, a classifier on documents."""
import math

import torch
from fastcore.script import CliError
from torch import Generator

from ..training.distributed import Ranks
from ..training.loop import Task
from ..training.memory import hand_back
from ..training.records import peak_memory
from . import classifier, language_model
from .classifier import Classifier, class_probabilities, log_loss, percent_wrong
from .dropout import Columns
from .language_model import LanguageModel, Regularization, Share, mean_loss


def language_model_task(model: LanguageModel, train, valid, regularization: Regularization, dtype: torch.dtype,
                        scale_rate: bool = False, ranks: Ranks = Ranks()) -> Task:
    "`train` and `valid` are streams: `batches(epoch, start)` gives (x, y), `lengths(epoch)` the windows."
    columns = Columns(train.here, train.batch)

    def batches(epoch: int, start: int):
        return zip(train.batches(epoch, start), train.targets(epoch)[start:])

    def loss(batch, state, rng: Generator):
        (x, y), targets = batch
        return model.loss(x, y, state, regularization, rng, dtype, Share(columns, targets))

    def evaluate() -> dict[str, float]:
        value, _ = mean_loss(model, valid.batches(), dtype, ranks)
        if not value < 700:  # where its exponential ends
            raise CliError(f"validation loss {value:.4g}: the run has diverged; lower --lr or set --clip")
        return dict(valid_loss=value, valid_perplexity=math.exp(value))

    rate_factor = (lambda batch: len(batch[0][0]) / train.windows.bptt) if scale_rate else (lambda batch: 1.0)
    return Task(model, language_model.layer_groups(model), lambda epoch: len(train.lengths(epoch)), batches, loss,
                evaluate, "valid_loss", "tokens",
                lambda value: f"loss {value:.3f}, perplexity {math.exp(min(20, value)):,.1f}", rate_factor)


def language_model_result(figures: dict, train, valid, device: torch.device) -> dict:
    "What run.json says of a language model."
    return dict(valid_loss=figures["valid_loss"], valid_perplexity=figures["valid_perplexity"],
                valid_tokens=valid.tokens - 1, train_tokens=train.tokens,
                tokens_per_second=figures["tokens_per_second"], peak_memory_bytes=peak_memory(device))


def classifier_task(model: Classifier, train, valid, regularization: Regularization, dtype: torch.dtype,
                    ranks: Ranks = Ranks()) -> Task:
    "`train` and `valid` are document batches."
    device = model.encoder.embedding.device

    def loss(batch, state, rng: Generator):
        lengths = batch.lengths.to(device)
        share = None if ranks.alone else classifier.Share(batch.here, lengths, ranks)
        return model.loss(batch.ids.to(device), lengths[batch.here], batch.targets.to(device), regularization, rng,
                          dtype, share)

    def batches(epoch: int, start: int):
        for i, batch in enumerate(train.batches(epoch, start)):
            if i % 8 == 0: hand_back()  # each time it costs as much as a few hundred tokens do
            yield batch

    def steps(epoch: int) -> int:
        plan = train.plan(epoch)
        ranks.enough(min(map(len, plan)))
        return len(plan)

    def evaluate() -> dict[str, float]:
        p = class_probabilities(model, valid.batches(), len(valid.docs), dtype, ranks)
        return dict(valid_loss=log_loss(p, valid.docs.targets), valid_error=percent_wrong(p, valid.docs.targets))

    return Task(model, classifier.layer_groups(model), steps, batches, loss, evaluate, "valid_error", "documents",
                lambda value: f"loss {value:.3f}")
