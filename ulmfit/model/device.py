"""Where a model computes, in what precision, and whether the same run gives the same bits."""
import os

import torch
from fastcore.script import CliError

from ..kernels.native import multiplies_bf16


def device_and_dtype(device: str, precision: str, deterministic: bool = False) -> tuple[torch.device, torch.dtype]:
    """`auto` is CUDA where there is one; bf16 where the device multiplies it, else fp32.

    `deterministic` lets a GPU add in the same order every time, for the rest of the process; the CPU does so anyway.
    Numbers below 1e-38, which the gates of a trained LSTM give by the thousand, are zero for the rest of the process:
    an Intel core takes over a hundred cycles for each of them, twelve times as long for a step of the classifier.
    """
    torch.set_flush_denormal(True)
    if device == "auto": device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise CliError("there is no CUDA device; use --device cpu")
    try:
        where = torch.device(device)
        if where.type not in ("cpu", "cuda"): raise ValueError
        if where.type == "cuda" and where.index is not None: torch.cuda.set_device(where)  # streams, graphs are there
    except (RuntimeError, ValueError):
        raise CliError(f"no device is called {device!r}; there are: auto, cpu, cuda, cuda:1 …") from None
    on_gpu = where.type == "cuda"
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else multiplies_bf16()
    dtypes = dict(auto=torch.bfloat16 if bf16 else torch.float32, fp32=torch.float32, bf16=torch.bfloat16)
    if precision not in dtypes: raise CliError(f"no precision is called {precision!r}; there are: {', '.join(dtypes)}")
    if on_gpu:  # float32 is float32 (of an LSTM torch's default is TF32: 10 bits); off, it bars bf16 from matrix units
        torch.backends.cudnn.allow_tf32 = dtypes[precision] == torch.bfloat16
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False  # sums of products are float32
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product on a GPU
        torch.use_deterministic_algorithms(True)
    return where, dtypes[precision]
