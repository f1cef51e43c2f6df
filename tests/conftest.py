"What every test runs under: one thread (tiny tensors, and the same sums everywhere), no network beyond the machine."
import socket
from types import SimpleNamespace

import pytest
import torch
from commands import CLASSIFY, FINETUNE, PRETRAIN, films, ok, table
from ulmfit.corpus import source
from ulmfit.text.tokenizer import Tokenizer

torch.set_num_threads(1)
connect = socket.socket.connect


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def only_here(self, address):
        if self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"): return connect(self, address)
        raise OSError("tests do not use the network")
    monkeypatch.setattr(socket.socket, "connect", only_here)
    monkeypatch.setenv("ULMFIT_OFFLINE", "1")  # for the processes that a test starts, too


@pytest.fixture(autouse=True)
def small_numbers():
    "Numbers below 1e-308 are numbers, until a command in the test says otherwise for the rest of its process."
    torch.set_flush_denormal(False)


@pytest.fixture
def undetermined():
    "After the test sums are as before, whatever a command has asked for."
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def library(tmp_path, monkeypatch):
    "A `data/` of the test's own, and no mirror."
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setattr(source, "ROOT", root)
    monkeypatch.delenv("ULMFIT_DATA", raising=False)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A dataset with a test split, and models of all stages, forwards and backwards."
    root = tmp_path_factory.mktemp("commands")
    Tokenizer()("spaCy is loaded before the processes that tokenise are forked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "ROOT", root / "data")
        patch.delenv("ULMFIT_DATA", raising=False)
        data, one = root / "films", table(root / "one.csv", films(8, 2))
        table(data / "train.csv", films(14, 0))
        table(data / "test.csv", films(6, 1))
        said = dict(
            lm=ok("pretrain", "--corpus", one, *PRETRAIN, "--out", root / "lm"),
            tuned=ok("finetune_lm", "--dataset", data, "--model", root / "lm", *FINETUNE, "--out", root / "tuned"),
            classifier=ok("classify", "--dataset", data, "--model", root / "tuned", *CLASSIFY, "--out",
                          root / "classifier"),
            lm_b=ok("pretrain", "--corpus", one, *PRETRAIN, "--backwards", "--out", root / "lm_b"),
            classifier_b=ok("classify", "--dataset", data, "--model", root / "lm_b", *CLASSIFY, "--out",
                            root / "classifier_b"))
        yield SimpleNamespace(root=root, data=data, one=one, said=said, **{name: root / name for name in said})
