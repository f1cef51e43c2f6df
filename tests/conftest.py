"What every test runs under: one thread (tiny tensors, and the same sums everywhere), no network."
import socket

import pytest
import torch
from ulmfit.corpus import prepare as preparing, registry

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_): raise OSError("tests do not use the network")
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def library(tmp_path, monkeypatch):
    "A `data/` of the test's own, and no mirror."
    root = tmp_path / "data"
    root.mkdir()
    for module in (registry, preparing): monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.delenv("ULMFIT_DATA", raising=False)
    return root
