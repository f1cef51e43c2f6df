"Benchmarks: this project beside others, at equal work, in turns."
