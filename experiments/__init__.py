"What is run with the package: presets, the demonstration, comparisons with other implementations, results."
