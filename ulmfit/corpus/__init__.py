"Files to batches: dataset cards, readers, prepared corpora on disk, the language-model stream, document batches."
