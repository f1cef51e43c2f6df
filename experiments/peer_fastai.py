"""The fastai side of the equality comparison: fastai's own AWD-LSTM on our weights, ids and settings.

Run with the python of an environment that holds fastai 2.8.12; nothing of this project is imported.

    peer_fastai.py logits --weights W.npz --ids IDS.npy --out LOGITS.npy
        Write fastai's logits, float32 (t, b, v), in evaluation mode; IDS.npy is (t, b), t >= 2.
    peer_fastai.py train --train TRAIN.npy --valid VALID.npy --settings S.json --seed N --out RESULT.json
                         [--init W.npz]
        Train on a flat id stream for exactly `steps` steps; --init replaces fastai's random start by our arrays.

W.npz holds encoder.embedding, encoder.layers.{i}.{weight_ih,weight_hh,bias_ih,bias_hh} and, optionally, decoder_bias.
S.json holds vocab, emb, hidden, layers, bias, batch, bptt, steps, lr, beta1, beta2, eps, weight_decay, clip, alpha,
beta, ar_on ("dropped"), schedule ("one_cycle"), pct_start, div, div_final, dropouts {output, hidden, input, embedding,
weight} and, optionally, pad (default 1: the id whose embedding row gets no gradient from the input side).
"""

import argparse
import json
import math
import platform
import time
from functools import partial
from pathlib import Path

import fastai
import numpy as np
import torch
from fastai.callback.core import CancelEpochException, CancelFitException
from fastai.callback.schedule import ParamScheduler, combined_cos
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam
from fastai.text.data import LMDataLoader
from fastai.text.learner import LMLearner
from fastai.text.models.awdlstm import AWD_LSTM
from fastai.text.models.core import get_language_model
from fastai.torch_core import set_seed

NO_DROPOUT = dict.fromkeys(("output", "hidden", "input", "embedding", "weight"), 0.0)
TINY = 1e-12  # at a weight dropout of exactly 0, torch returns the parameter itself and fastai's next reset fails


class FixedSteps(ParamScheduler):
    """Drive the schedule by step / steps, record each step's cross entropy, and stop the fit after `steps` steps."""

    def __init__(self, schedules, steps):
        super().__init__(schedules)
        self.steps, self.step_losses = steps, []

    def before_batch(self):
        """Set the hyper-parameters from the share of the steps already taken."""
        self._update_val(self.train_iter / self.steps)

    def after_batch(self):
        """Record the loss (without AR and TAR) and end the fit after the last step."""
        self.step_losses.append(self.learn.loss.detach().item())
        if self.train_iter == self.steps:
            raise CancelFitException

    def after_train(self):
        """Skip the validation that fastai would run between epochs."""
        raise CancelEpochException


def build_model(vocab, emb, hidden, layers, bias, dropouts, pad=1):
    """Build fastai's tied AWD-LSTM language model with the given sizes and dropouts."""
    config = dict(emb_sz=emb, n_hid=hidden, n_layers=layers, pad_token=pad, bidir=False, tie_weights=True,
                  out_bias=bias, output_p=dropouts["output"], hidden_p=dropouts["hidden"], input_p=dropouts["input"],
                  embed_p=dropouts["embedding"], weight_p=max(dropouts["weight"], TINY))
    return get_language_model(AWD_LSTM, vocab, config=config, drop_mult=1.0)


def load_weights(model, arrays):
    """Load our arrays into fastai's model by name; the reset copies the raw recurrent weights into the LSTMs."""
    tied = ("0.encoder.weight", "0.encoder_dp.emb.weight", "1.decoder.weight")
    state = dict.fromkeys(tied, arrays["encoder.embedding"])
    if "decoder_bias" in arrays:
        state["1.decoder.bias"] = arrays["decoder_bias"]
    for i in range(len(model[0].rnns)):
        ours, theirs = f"encoder.layers.{i}", f"0.rnns.{i}"
        state[f"{theirs}.weight_hh_l0_raw"] = arrays[f"{ours}.weight_hh"]
        for name in ("weight_ih", "bias_ih", "bias_hh"):
            state[f"{theirs}.module.{name}_l0"] = arrays[f"{ours}.{name}"]
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=True)
    model.reset()


def write_logits(args):
    """Write the logits for our weights; the halves of the ids are two calls without a reset between them."""
    arrays = dict(np.load(args.weights))
    layers = sum(name.endswith(".weight_hh") for name in arrays)
    hidden = arrays["encoder.layers.0.weight_hh"].shape[1]
    model = build_model(*arrays["encoder.embedding"].shape, hidden, layers, "decoder_bias" in arrays, NO_DROPOUT)
    load_weights(model.eval(), arrays)
    ids = torch.from_numpy(np.load(args.ids)).long().T
    with torch.no_grad():
        logits = torch.cat([model(half)[0] for half in ids.tensor_split(2, dim=1)], dim=1)
    np.save(args.out, logits.transpose(0, 1).contiguous().numpy())


def load_stream(path, settings):
    """Make fastai's language model loader over one flat id stream, in order."""
    ids = torch.from_numpy(np.load(path).astype(np.int64))
    return LMDataLoader([ids], lens=[len(ids)], bs=settings["batch"], seq_len=settings["bptt"], shuffle=False)


def check_settings(settings, loader):
    """Refuse settings that fastai's own pieces cannot express."""
    if settings["ar_on"] != "dropped" or settings["schedule"] != "one_cycle":
        raise SystemExit("this peer knows only ar_on 'dropped', as in fastai, and schedule 'one_cycle'")
    if settings["beta"] and loader.last_len == 1 and settings["steps"] >= len(loader):
        raise SystemExit("the last batch of an epoch has one time step, where fastai's TAR is not a number")


def fit(model, loaders, settings):
    """Train with fastai's learner for exactly `steps` steps; return each step's cross entropy and the seconds."""
    lr, steps = settings["lr"], settings["steps"]
    optimizer = partial(Adam, mom=settings["beta1"], sqr_mom=settings["beta2"], eps=settings["eps"],
                        wd=settings["weight_decay"])
    learner = LMLearner(DataLoaders(*loaders, device=torch.device("cpu")), model, loss_func=CrossEntropyLossFlat(),
                        opt_func=optimizer, alpha=settings["alpha"], beta=settings["beta"],
                        cbs=GradientClip(settings["clip"]))
    schedule = combined_cos(settings["pct_start"], lr / settings["div"], lr, lr / settings["div_final"])
    fixed_steps = FixedSteps({"lr": schedule}, steps)
    start = time.perf_counter()
    with learner.no_bar(), learner.no_logging():
        learner.fit(math.ceil(steps / len(loaders[0])), lr=lr, cbs=fixed_steps)
    return fixed_steps.step_losses, time.perf_counter() - start


def evaluate(model, loader):
    """Compute the mean nats per token over the loader, state carried from a fresh start."""
    model.eval()
    model.reset()
    total = 0.0
    with torch.no_grad():
        for ids, targets in loader:
            logits = model(ids.as_subclass(torch.Tensor))[0]
            total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
    return total / (loader.bl * loader.bs)


def peak_rss_bytes():
    """Read this process's own peak resident memory (Linux); getrusage would include the launching process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def train(args):
    """Train and evaluate fastai's language model and write the result."""
    settings = json.loads(Path(args.settings).read_text())
    set_seed(args.seed)
    sizes = (settings[key] for key in ("vocab", "emb", "hidden", "layers", "bias", "dropouts"))
    model = build_model(*sizes, pad=settings.get("pad", 1))
    if args.init:
        load_weights(model, dict(np.load(args.init)))
    loaders = load_stream(args.train, settings), load_stream(args.valid, settings)
    check_settings(settings, loaders[0])
    losses, seconds = fit(model, loaders, settings)
    epochs, rest = divmod(len(losses), len(loaders[0]))
    tokens = settings["batch"] * (epochs * loaders[0].bl + rest * settings["bptt"])
    valid_loss = evaluate(model, loaders[1])
    versions = {"fastai": fastai.__version__, "torch": torch.__version__, "python": platform.python_version()}
    result = {"contender": "fastai", "versions": versions, "seed": args.seed, "valid_loss": valid_loss,
              "valid_perplexity": math.exp(valid_loss),
              "train_losses": [float(np.mean(losses[i:i + 50])) for i in range(0, len(losses), 50)],
              "seconds": seconds, "tokens_per_second": tokens / seconds, "peak_rss_bytes": peak_rss_bytes()}
    Path(args.out).write_text(json.dumps(result, indent=2) + "\n")


def main():
    """Parse the command line and run the chosen command."""
    parser = argparse.ArgumentParser(description="The fastai side of the equality comparison.")
    commands = parser.add_subparsers(required=True)
    options = {"logits": (write_logits, ("--weights", "--ids", "--out")),
               "train": (train, ("--train", "--valid", "--settings", "--out"))}
    for name, (run, required) in options.items():
        command = commands.add_parser(name, help=run.__doc__)
        command.set_defaults(run=run)
        for option in required:
            command.add_argument(option, required=True)
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--init", help="start from these arrays instead of fastai's random start")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
