"What every test runs under: one thread (tiny tensors, and the same sums everywhere), no network beyond the machine."
import socket

import pytest
import torch
from ulmfit.corpus import prepare as preparing, registry

torch.set_num_threads(1)
connect = socket.socket.connect


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def only_here(self, address):
        if isinstance(address, tuple) and address[0] in ("127.0.0.1", "::1"): return connect(self, address)
        raise OSError("tests do not use the network")
    monkeypatch.setattr(socket.socket, "connect", only_here)
    monkeypatch.setenv("ULMFIT_OFFLINE", "1")  # for the processes that a test starts, too


@pytest.fixture
def library(tmp_path, monkeypatch):
    "A `data/` of the test's own, and no mirror."
    root = tmp_path / "data"
    root.mkdir()
    for module in (registry, preparing): monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.delenv("ULMFIT_DATA", raising=False)
    return root
