"AWD-LSTM's dropouts: what is dropped together, what the mean is, who draws the mask; in evaluation there are none."
import pytest
import torch
from reference import close, drop_mask
from torch import Generator, nn
from ulmfit.kernels.layers import DroppedLayer
from ulmfit.kernels.lstm import lstm
from ulmfit.model.classifier import Classifier
from ulmfit.model.dropout import dropout, embed, locked_dropout
from ulmfit.model.encoder import NO_DROPOUT, Architecture, ClassifierDropouts, Dropouts, Encoder, LSTMLayer
from ulmfit.model.language_model import LanguageModel

SIZES = Architecture(emb=6, hidden=8, layers=3)
ONLY_WEIGHTS = Dropouts(output_p=0, hidden_p=0, input_p=0, embed_p=0, weight_p=0.5)


def seeded(seed: int = 0) -> Generator: return Generator().manual_seed(seed)


def encoder(dropouts: Dropouts = Dropouts(), layers: int = 3) -> Encoder:
    torch.manual_seed(0)
    return Encoder(20, Architecture(SIZES.emb, SIZES.hidden, layers), dropouts).double()


def some_ids(t: int = 5, b: int = 3) -> torch.Tensor: return torch.randint(20, (t, b), generator=seeded(1))


def test_locked_mask_is_the_same_at_every_time_step():
    x = locked_dropout(torch.ones(7, 4, 50), 0.5, seeded())
    assert (x == x[0]).all() and 0 < (x == 0).float().mean() < 1


def test_locked_mask_differs_between_columns():
    x = locked_dropout(torch.ones(7, 4, 50), 0.5, seeded())
    assert len({tuple(column.tolist()) for column in x[0]}) == 4


def test_element_dropout_differs_between_time_steps():
    x = dropout(torch.ones(7, 4, 50), 0.5, seeded())
    assert not (x == x[0]).all()


def test_a_dropped_word_vanishes_at_all_its_places_and_the_others_are_whole():
    p, weight, ids = 0.5, torch.rand(20, 6) + 1, some_ids(30, 4)
    x = embed(ids, weight, p, seeded())
    dropped = {w for w in ids.unique().tolist() if not x[ids == w].any()}
    assert 0 < len(dropped) < len(ids.unique())
    for w in set(ids.unique().tolist()) - dropped:
        for found in x[ids == w]: close(found, weight[w] / (1 - p), 1e-6)


def test_the_embedding_gradient_of_a_dropped_word_is_zero_and_of_the_others_scaled():
    p, weight, ids = 0.5, torch.rand(20, 6, dtype=torch.float64, requires_grad=True), torch.arange(20)[:, None]
    embed(ids, weight, p, seeded()).sum().backward()
    close(weight.grad, drop_mask((20, 1), p, seeded()).expand(20, 6))


@pytest.mark.parametrize("drop", [dropout, locked_dropout])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(drop, p):
    x = drop(torch.ones(1, 1000, 100, dtype=torch.float64), p, seeded())
    assert abs(x.mean().item() - 1) < 5 * (p / (1 - p) / x.numel()) ** 0.5  # five standard errors
    assert set(x.unique().tolist()) == {0.0, 1 / (1 - p)}


def test_word_dropout_keeps_the_mean():
    x = embed(torch.arange(100_000)[:, None], torch.ones(100_000, 1, dtype=torch.float64), 0.2, seeded())
    assert abs(x.mean().item() - 1) < 5 * (0.2 / 0.8 / 100_000) ** 0.5


@pytest.mark.parametrize("drop", [dropout, locked_dropout])
def test_probability_zero_draws_nothing(drop):
    x, rng = torch.ones(2, 3, 4), seeded()
    assert drop(x, 0.0, rng) is x and torch.equal(rng.get_state(), seeded().get_state())


def embed_one_word(x, p, rng): return embed(torch.zeros(2, 3, dtype=torch.int64), x[0], p, rng)


@pytest.mark.parametrize("drop", [dropout, locked_dropout, embed_one_word])
def test_probability_one_drops_everything(drop):
    "drop_mult can raise a probability to 1."
    assert torch.equal(drop(torch.ones(2, 3, 4), 1.0, seeded()), torch.zeros(2, 3, 4))


def test_drop_mult_scales_every_probability_up_to_one():
    assert Dropouts(0.1, 0.2, 0.3, 0.4, 0.8, drop_mult=0.5).scaled() == Dropouts(0.05, 0.1, 0.15, 0.2, 0.4)
    assert Dropouts(0.1, 0.2, 0.3, 0.4, 0.8, drop_mult=2.0).scaled() == Dropouts(0.2, 0.4, 0.6, 0.8, 1.0)


def weight_dropped(p: float, rng: Generator) -> tuple[LSTMLayer, torch.Tensor]:
    torch.manual_seed(0)
    layer = LSTMLayer(3, 4).double()
    x, zero = torch.randn(5, 2, 3, generator=seeded(1), dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64)
    return layer, DroppedLayer(lstm, None, layer.dropped(p, rng))(x, (zero, zero))[0]


def test_gradient_reaches_the_raw_recurrent_weights_but_not_the_dropped_ones():
    layer, out = weight_dropped(0.5, seeded())
    out.sum().backward()
    kept = drop_mask((16, 4), 0.5, seeded()) > 0
    assert torch.equal(layer.weight_hh.grad != 0, kept)


def test_weight_drop_is_the_layer_with_the_dropped_matrix():
    layer, out = weight_dropped(0.5, seeded())
    plain = nn.LSTM(3, 4).double()
    weights = layer.weight_ih, layer.weight_hh * drop_mask((16, 4), 0.5, seeded()), layer.bias_ih, layer.bias_hh
    with torch.no_grad():
        for own, w in zip(plain.parameters(), weights): own.copy_(w)
    close(out, plain(torch.randn(5, 2, 3, generator=seeded(1), dtype=torch.float64))[0])


def test_weight_mask_is_new_at_each_forward_pass():
    rng = seeded()
    assert not torch.equal(weight_dropped(0.5, rng)[1], weight_dropped(0.5, rng)[1])


def test_weight_drop_leaves_the_first_step_from_a_zero_state_alone_and_no_other():
    "The guard against weight drop that is silently not applied (ulmfit.md, section 5, number 10)."
    model = encoder(ONLY_WEIGHTS, layers=1)
    dropped, whole = model.train()(some_ids(), rng=seeded()).last, model.eval()(some_ids()).last
    assert torch.equal(dropped[0], whole[0])
    assert all((d != w).any() for d, w in zip(dropped[1:], whole[1:]))


def test_weight_drop_leaves_the_parameters_as_they_are():
    model = encoder(ONLY_WEIGHTS)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()(some_ids(), rng=seeded())
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], v) for k, v in after.items())


def test_in_evaluation_the_encoder_is_torchs_plain_lstm_to_the_bit():
    model = encoder(ClassifierDropouts()).eval()
    x = nn.functional.embedding(some_ids(), model.embedding)
    for layer in model.layers:
        plain = nn.LSTM(layer.weight_ih.shape[1], layer.weight_hh.shape[1]).double()
        plain.load_state_dict({f"{k}_l0": v for k, v in layer.state_dict().items()})
        x, _ = plain(x)
    assert torch.equal(model(some_ids()).last, x)


def test_without_dropout_training_equals_evaluation():
    model = encoder(NO_DROPOUT)
    assert torch.equal(model.train()(some_ids()).last, model.eval()(some_ids()).last)


def test_the_same_seed_gives_the_same_masks_and_another_seed_others():
    model = encoder(ClassifierDropouts()).train()
    a, b, c = (model(some_ids(), rng=seeded(s)).last for s in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_with_a_generator_the_global_one_is_not_used():
    language_model = LanguageModel(encoder(Dropouts())).train()
    classifier = Classifier(encoder(ClassifierDropouts()), 2).double().train()
    rng, before = seeded(), torch.get_rng_state()
    language_model.loss(some_ids(), some_ids(), rng=rng)
    classifier.loss(some_ids(), torch.tensor([5, 4, 1]), torch.tensor([0, 1, 1]), rng=rng)
    assert torch.equal(torch.get_rng_state(), before) and not torch.equal(rng.get_state(), seeded().get_state())
