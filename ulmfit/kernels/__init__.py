"Fast paths, each beside the slow reference that it must equal."
