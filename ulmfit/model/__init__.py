"The network: dropouts, AWD-LSTM encoder, language model, classifier, and the bundle that carries them from stage to stage."
