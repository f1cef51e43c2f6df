"ULMFiT: one AWD-LSTM language model, pretrained, fine-tuned on the target's text, then turned into a classifier."
import sys
from pathlib import PurePath

from .training.signals import heed

__version__ = "0.1.0"

# A command begins here, before its own imports, which take seconds; Python has "-m" there while it looks for the file.
if sys.argv and (sys.argv[0] == "-m" or PurePath(sys.argv[0]).name.startswith("ulmfit-")):
    heed()
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be what its encoding lacks
