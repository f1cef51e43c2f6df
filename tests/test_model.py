"The language model and the classifier against slow references, and what the design promises of them."
from collections import Counter

import numpy as np
import pytest
import reference
import torch
from fastcore.script import CliError
from hypothesis import given, settings, strategies as st
from reference import close
from torch import Generator, Tensor, nn
from ulmfit.corpus.buckets import DocumentBatches
from ulmfit.corpus.store import Documents
from ulmfit.kernels import KERNELS
from ulmfit.kernels.layers import CHUNK, DroppedLayer
from ulmfit.kernels.pooling import joined
from ulmfit.model import classifier, language_model
from ulmfit.model.classifier import Classifier, HeadSettings, Reading, class_probabilities
from ulmfit.model.encoder import NO_DROPOUT, Architecture, Dropouts, Encoder
from ulmfit.model.language_model import LanguageModel, Regularization, mean_loss, with_vocabulary

VOCAB, IGNORE, PAD = 30, -100, 1
STRONG = Dropouts(output_p=0.3, hidden_p=0.4, input_p=0.2, embed_p=0.25, weight_p=0.5)
SHORT = Reading(bptt=3, max_length=7)


def seeded(seed: int = 0) -> Generator: return Generator().manual_seed(seed)


def ids(t: int, b: int, seed: int = 0) -> Tensor: return torch.randint(VOCAB, (t, b), generator=seeded(seed))


def shaken(model: nn.Module) -> nn.Module:
    "In float64, with no parameter or running figure at a value at which a mistake would not show."
    model = model.double()
    rng = seeded(5)
    with torch.no_grad():
        for p in model.parameters(): p.add_(torch.randn(p.shape, generator=rng, dtype=p.dtype), alpha=0.3)
        for name, buffer in model.named_buffers():
            if "running" in name: buffer.add_(torch.rand(buffer.shape, generator=rng, dtype=buffer.dtype))
    return model


def encoder(dropouts: Dropouts = NO_DROPOUT, layers: int = 3, bias: bool = True, kernel: str = "fused") -> Encoder:
    torch.manual_seed(0)
    return Encoder(VOCAB, Architecture(emb=4, hidden=6, layers=layers, decoder_bias=bias), dropouts, kernel)


def make_lm(*args, **how) -> LanguageModel: return shaken(LanguageModel(encoder(*args, **how)))


def make_classifier(reading: Reading = SHORT, head: HeadSettings = HeadSettings(), dropouts=NO_DROPOUT) -> Classifier:
    return shaken(Classifier(encoder(dropouts), 3, head, reading))


def copies(model: nn.Module) -> dict[str, Tensor]:
    "The parameters by name, as leaves of their own for the reference."
    return {k: p.detach().clone().requires_grad_() for k, p in model.named_parameters()}


def same_gradients(model: nn.Module, ours: Tensor, copied: dict[str, Tensor], theirs: Tensor, bound: float = 1e-12):
    "Of every parameter of the model."
    ours.backward()
    theirs.backward()
    for name, p in model.named_parameters(): close(p.grad, copied[name].grad, bound)


# --- the language model ---

@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("t, layers, bias, ar_on", [(6, 3, True, "dropped"), (6, 3, False, "raw"), (1, 2, True, "raw"),
                                                    (2 * CHUNK + 1, 3, True, "raw"), (4, 1, True, "dropped")])
def test_loss_in_training_equals_the_reference(t, layers, bias, ar_on, kernel):
    "All five dropouts with the same masks, AR, TAR, targets left out, a state carried in: value and every gradient."
    model = make_lm(STRONG, layers, bias, kernel).train()
    x, y = ids(t, 3), ids(t, 3, seed=1)
    y[-1, 1] = IGNORE
    state = [(torch.randn(3, h, generator=seeded(h)).double(), torch.rand(3, h, generator=seeded(h)).double())
             for h in model.encoder.architecture.widths]
    copied = copies(model)
    ours = model.loss(x, y, state, Regularization(2.0, 1.0, ar_on), seeded(2))
    p = dict(embed=0.25, input=0.2, hidden=0.4, weight=0.5, output=0.3)
    objective, ce = reference.language_model_loss(copied, x, y, state, p, 2.0, 1.0, ar_on, seeded(2))
    close(ours.objective, objective)
    close(ours.value, ce.detach())
    assert ours.targets == 3 * t - 1
    same_gradients(model, ours.objective, copied, objective)


def test_drop_mult_scales_the_masks_of_the_loss():
    halved = make_lm(Dropouts(0.4, 0.4, 0.4, 0.4, 0.4, drop_mult=0.5)).train()
    p = dict.fromkeys(("embed", "input", "hidden", "weight", "output"), 0.2)
    x, y = ids(5, 2), ids(5, 2, 1)
    expected, _ = reference.language_model_loss(copies(halved), x, y, None, p, 2.0, 1.0, "dropped", seeded())
    close(halved.loss(x, y, rng=seeded()).objective, expected)


def test_in_evaluation_the_objective_is_the_cross_entropy_alone():
    model = make_lm(STRONG).eval()
    loss = model.loss(ids(5, 2), ids(5, 2, 1))
    logits, _ = model(ids(5, 2))
    close(loss.objective, reference.cross_entropy(logits.flatten(0, 1), ids(5, 2, 1).flatten()))
    assert torch.equal(loss.objective, loss.value)


def test_logits_equal_the_reference():
    model = make_lm(STRONG).eval()
    out, last = reference.encode(dict(model.encoder.named_parameters()), ids(5, 2))
    logits, state = model(ids(5, 2))
    close(logits, out @ model.encoder.embedding.T + model.decoder_bias)
    for (h, c), (h_ref, c_ref) in zip(state, last, strict=True):
        close(h, h_ref)
        close(c, c_ref)


def test_two_half_windows_equal_one_whole():
    model, x = make_lm(STRONG).eval(), ids(9, 3)
    whole, end = model(x)
    first, state = model(x[:4])
    second, state = model(x[4:], state)
    close(torch.cat([first, second]), whole)
    for a, b in zip(state, end, strict=True): close(torch.cat(a), torch.cat(b))


def test_the_state_that_a_loss_returns_is_detached():
    state = make_lm(STRONG).train().loss(ids(4, 2), ids(4, 2), rng=seeded()).state
    assert not any(s.requires_grad for layer in state for s in layer)


def test_mean_loss_is_over_targets_whatever_the_windows():
    "Windows of unequal length and with targets left out: a mean of means would be wrong."
    model, x, y = make_lm(STRONG), ids(10, 2), ids(10, 2, 1)
    y[7:, 1] = IGNORE
    logits, _ = model.eval()(x)
    expected = reference.cross_entropy(logits.flatten(0, 1), y.flatten())
    model.train()
    value, targets = mean_loss(model, [(x[:7], y[:7]), (x[7:], y[7:])])
    assert value == pytest.approx(expected.item(), abs=1e-12) and targets == 17
    assert model.training


def test_new_vocabulary_takes_rows_by_token_and_the_mean_for_the_new():
    weights = {k: v.clone() for k, v in make_lm().state_dict().items()}
    sources = [2, -1, 0, 29, -1]
    new = with_vocabulary(weights, np.array(sources))
    for name in ("encoder.embedding", "decoder_bias"):
        mean = sum(weights[name]) / VOCAB
        close(new[name], torch.stack([mean if s < 0 else weights[name][s] for s in sources]))
    assert new.keys() == weights.keys() and all(new[k] is weights[k] for k in new if "layers" in k)


def test_new_vocabulary_of_a_model_without_decoder_bias():
    weights = make_lm(bias=False).state_dict()
    assert with_vocabulary(weights, np.array([3, -1])).keys() == weights.keys()


@pytest.mark.parametrize("make, groups, names", [
    (make_lm, language_model.layer_groups, ["lstm_1", "lstm_2", "lstm_3", "decoder"]),
    (lambda: make_lm(bias=False), language_model.layer_groups, ["lstm_1", "lstm_2", "lstm_3", "decoder"]),
    (make_classifier, classifier.layer_groups, ["embedding", "lstm_1", "lstm_2", "lstm_3", "head"])],
    ids=["language model", "without decoder bias", "classifier"])
def test_layer_groups_have_every_parameter_once(make, groups, names):
    model = make()
    found = groups(model)
    assert list(found) == names
    assert Counter(id(p) for ps in found.values() for p in ps) == Counter(id(p) for p in model.parameters())


# --- the classifier: reading and pooling ---

def pad(documents: list[Tensor], filler: int = PAD, extra: int = 0) -> tuple[Tensor, Tensor]:
    "A batch of documents, padded at their ends, `extra` positions more than the longest needs."
    lengths = [len(d) for d in documents]
    out = torch.full((max(lengths) + extra, len(documents)), filler)
    for j, d in enumerate(documents): out[:len(d), j] = d
    return out, torch.tensor(lengths)


def documents(lengths: list[int], seed: int = 0) -> list[Tensor]:
    rng = seeded(seed)
    return [torch.randint(VOCAB, (n,), generator=rng) for n in lengths]


def read(encoder: Encoder, ids: Tensor, lengths: Tensor, *how, **more) -> tuple[Tensor, Tensor]:
    "Outputs (t, b, h) and the numbers of real ones, the windows put together."
    outputs, kept = classifier.read(encoder, ids, lengths, *how, **more)
    return joined(outputs, len(kept), encoder.embedding.dtype), kept


lengths_of_some = st.lists(st.integers(1, 20), min_size=1, max_size=6)


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=["fp32", "fp64"])
@settings(deadline=None, max_examples=40)
@given(lengths=lengths_of_some, extra=st.integers(0, 9), seed=st.integers(0, 99))
def test_a_texts_probabilities_do_not_depend_on_its_batch(dtype, bound, lengths, extra, seed):
    "Alone or beside longer and shorter texts, under any padding; texts beyond max_length (7) among them."
    model, texts = make_classifier().to(dtype).eval(), documents(lengths, seed)
    with torch.no_grad():
        together = model(*pad(texts, extra=extra)).softmax(dim=1)
        alone = torch.cat([model(d[:, None], torch.tensor([len(d)])).softmax(dim=1) for d in texts])
    close(together, alone, bound)


@pytest.mark.parametrize("batch, tokens", [(1, None), (2, None), (4, 40), (100, 30), (100, None)])
def test_probabilities_stand_in_the_documents_own_rows(batch, tokens):
    "In any batching of a split, which runs the longest first."
    model, texts = make_classifier().eval(), documents([3, 20, 1, 8, 8, 15, 2, 7])
    split = Documents(torch.cat(texts).numpy(), np.cumsum([0, *map(len, texts)]))
    found = class_probabilities(model, DocumentBatches(split, PAD, batch, tokens).batches(), len(texts))
    alone = torch.cat([model(d[:, None], torch.tensor([len(d)])) for d in texts]).softmax(dim=1)
    close(torch.from_numpy(found), alone.detach())


def test_the_id_of_the_padding_does_not_matter():
    model, texts = make_classifier().eval(), documents([3, 12, 1])
    assert torch.equal(model(*pad(texts, filler=PAD)), model(*pad(texts, filler=7)))


@settings(deadline=None, max_examples=25)
@given(lengths=lengths_of_some, bptt=st.integers(1, 6), more=st.integers(0, 9), detach=st.booleans())
def test_reading_a_long_document_equals_the_encoder_over_all_of_it(lengths, bptt, more, detach):
    "What stands before the kept part carries its state."
    model, texts, how = make_lm().encoder.eval(), documents(lengths), Reading(bptt, bptt + more, detach)
    outputs, kept = read(model, *pad(texts), how)
    assert kept.tolist() == [n - reference.skipped(n, bptt, bptt + more) for n in lengths]
    for j, d in enumerate(texts):
        whole, _ = reference.encode(dict(model.named_parameters()), d[:, None])
        close(outputs[:kept[j], j], whole[len(d) - kept[j]:, 0])


@pytest.mark.parametrize("length", [3, 5, 6, 7, 12])
def test_a_max_length_below_the_window_is_kept_or_refused(length):
    "Every document must keep a position to pool."
    try: _, kept = read(make_lm().encoder.eval(), *pad(documents([length, 1])), Reading(bptt=6, max_length=2))
    except CliError: return
    assert kept.min() >= 1


def test_any_layers_outputs_can_be_read():
    model, text, how = make_lm().encoder.eval(), ids(8, 1), Reading(bptt=3, max_length=5)
    outputs, kept = read(model, text, torch.tensor([8]), how, layer=0)
    first = {k: v for k, v in model.named_parameters() if not k.startswith(("layers.1", "layers.2"))}
    whole, _ = reference.encode(first, text)
    close(outputs[:kept[0]], whole[-kept[0]:])


def every_word_once(model: Encoder, how: Reading, length: int, start: int) -> Tensor:
    "Gradient by the words of a document of `length` distinct words, of the outputs kept from the position `start` on."
    model.zero_grad()
    outputs, _ = read(model, torch.arange(length)[:, None], torch.tensor([length]), how)
    (outputs[start:] * torch.rand(outputs[start:].shape, generator=seeded(), dtype=outputs.dtype)).sum().backward()
    return model.embedding.grad[:length]


def test_detached_windows_have_no_gradient_across_a_border():
    gradient = every_word_once(make_lm().encoder, Reading(bptt=4, max_length=12, detach_windows=True), 12, start=8)
    assert not gradient[:8].any() and (gradient[8:] != 0).any(dim=1).all()


def test_undetached_windows_have_the_gradients_of_one_pass():
    model, copied = make_lm().encoder, copies(make_lm().encoder)
    ours = read(model, *pad(documents([11, 5])), Reading(bptt=4, max_length=12, detach_windows=False))[0]
    whole, _ = reference.encode(copied, pad(documents([11, 5]))[0])
    weights = torch.randn(ours.shape, generator=seeded(), dtype=torch.float64)
    weights[5:, 1] = 0  # what stands behind a document's end is nobody's
    same_gradients(model, (ours * weights).sum(), copied, (whole * weights).sum())


@pytest.mark.parametrize("detach", [True, False])
def test_words_before_the_kept_part_get_no_gradient(detach):
    gradient = every_word_once(make_lm().encoder, Reading(bptt=4, max_length=6, detach_windows=detach), 10, start=0)
    assert not gradient[:4].any() and (gradient[4:] != 0).any(dim=1).all()


def test_the_part_before_is_read_without_dropout_and_the_kept_part_with_it():
    model, text = shaken(encoder(STRONG)).train(), ids(7, 1)
    outputs, _ = read(model, text, torch.tensor([7]), Reading(bptt=3, max_length=4), seeded())
    w = dict(model.named_parameters())
    _, state = reference.encode(w, text[:3])
    rng, p, expected = seeded(), dict(embed=0.25, input=0.2, hidden=0.4, weight=0.5), []
    for window in (text[3:6], text[6:]):
        x, state = reference.encode(w, window, state, p, rng)
        expected.append(x)
    close(outputs, torch.cat(expected))
    assert model.training


# --- the classifier: head and loss ---

@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("lengths", [[4, 1, 7, 2], [20, 1, 8, 5, 13], [1, 1]], ids=["short", "long too", "one word"])
def test_classifier_loss_in_training_equals_the_reference(lengths, detach):
    "Batch norm by the batch, dropout in the head, AR and TAR over real positions only: value and every gradient."
    head = HeadSettings(head_hidden=5, head_drop=0.4, head_hidden_drop=0.2)
    model = make_classifier(Reading(3, 7, detach), head).train()
    texts, targets, copied = documents(lengths), torch.arange(len(lengths)) % 3, copies(model)
    ours = model.loss(*pad(texts, extra=2), targets, Regularization(2.0, 1.0), seeded())
    objective, ce = reference.classifier_loss(copied, texts, targets, 3, 7, detach, (0.4, 0.2), 2.0, 1.0, seeded())
    close(ours.objective, objective, 1e-11)
    close(ours.value, ce.detach(), 1e-11)
    same_gradients(model, ours.objective, copied, objective, 1e-9)  # batch norm divides by small spreads


def test_a_document_that_has_ended_is_not_computed_any_further(monkeypatch):
    "To the end of its last window, whatever the others' length."
    encoder, seen = make_lm().encoder, []
    forward = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda ids, *more: seen.append(ids.shape) or forward(ids, *more))
    read(encoder, *pad(documents([11, 4, 5, 1])), Reading(bptt=4, max_length=12))
    assert seen == [(4, 4), (4, 2), (3, 1)]


def test_the_penalties_do_not_depend_on_the_padding():
    model, texts, targets = make_classifier().eval(), documents([3, 9, 1]), torch.tensor([0, 1, 2])
    model.training = True  # the loss only: batch norm and dropout stay as in evaluation
    close(model.loss(*pad(texts, extra=6), targets).objective, model.loss(*pad(texts), targets).objective)


def test_classifier_with_batch_norm_learns():
    model, targets = make_classifier().train(), torch.arange(12) % 3
    batch = pad([torch.cat([d, 20 + y[None]]) for d, y in zip(documents([5] * 12), targets)])  # the last word tells
    optimizer, values = torch.optim.Adam(model.parameters(), 0.02), []
    for _ in range(40):
        loss = model.loss(*batch, targets, Regularization(0.0, 0.0), seeded())
        optimizer.zero_grad()
        loss.objective.backward()
        optimizer.step()
        values.append(loss.value.item())
    assert values[-1] < values[0] / 4


def test_batch_norm_follows_the_batches_in_training_only():
    model = make_classifier()
    figures = [b.running_mean for b in model.modules() if isinstance(b, nn.BatchNorm1d)]
    before = [f.clone() for f in figures]
    model.eval()(*pad(documents([3, 4])))
    assert all(torch.equal(a, b) for a, b in zip(figures, before))
    model.train()(*pad(documents([3, 4])), seeded())
    assert not any(torch.equal(a, b) for a, b in zip(figures, before))


def test_in_evaluation_the_head_is_batch_norm_by_running_figures_linear_and_relu():
    model, texts = make_classifier().eval(), documents([3, 6])
    w = dict(model.named_parameters()) | dict(model.named_buffers())
    encoded = {k.removeprefix("encoder."): v for k, v in w.items() if k.startswith("encoder.")}
    outputs = [reference.read_one(encoded, d, 3, 7) for d in texts]
    x = reference.concat_pool(nn.utils.rnn.pad_sequence(outputs), [3, 6])
    for name, top in (("head.0", 0.0), ("head.1", -torch.inf)):
        x = (x - w[f"{name}.norm.running_mean"]) / (w[f"{name}.norm.running_var"] + 1e-5).sqrt()
        x = x * w[f"{name}.norm.weight"] + w[f"{name}.norm.bias"]
        x = (x @ w[f"{name}.linear.weight"].T + w[f"{name}.linear.bias"]).clamp(min=top)
    close(model(*pad(texts)), x)


def test_in_bf16_the_mask_between_layers_keeps_the_mean():
    "1/(1-p) is 0.3% more when it is rounded to bf16, for every element alike."
    x = torch.rand(40, 20, 100, generator=Generator().manual_seed(1)).bfloat16()
    locked = torch.full((1, 20, 100), 1 / 0.85)
    layer = DroppedLayer(lambda x, state, weight: (x, state), locked, (locked,))
    out, _ = layer(x, (locked, locked))
    kept = float(out.double().mean() / x.double().mean())
    assert out.dtype == torch.bfloat16 and kept == pytest.approx(1 / 0.85, rel=5e-4)


def test_evaluating_in_bf16_gives_what_a_window_with_gradients_gives():
    "There the weights are made ready once for all of a document's windows, here for each."
    model = Classifier(Encoder(VOCAB, Architecture(6, 7, 2)), 3, reading=SHORT).eval()
    words, lengths = ids(17, 3), torch.tensor([17, 9, 1])
    expected = model(words, lengths, dtype=torch.bfloat16)
    with torch.no_grad(): assert torch.equal(model(words, lengths, dtype=torch.bfloat16), expected)
