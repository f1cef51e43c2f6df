"ULMFiT: one AWD-LSTM language model, pretrained, fine-tuned on the target's text, then turned into a classifier."
__version__ = "0.1.0"
