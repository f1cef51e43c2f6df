"The network: dropouts, AWD-LSTM encoder, language model, classifier, and the bundle that carries them between stages."
