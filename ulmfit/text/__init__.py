"Strings to ids: the text rules, the tokenizer between them, the vocabulary."
