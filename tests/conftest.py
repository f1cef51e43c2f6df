"What every test runs under: one thread (tiny tensors, and the same sums everywhere), no network."
import socket

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_): raise OSError("tests do not use the network")
    monkeypatch.setattr(socket.socket, "connect", refuse)
