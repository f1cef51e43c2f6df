"How weights move: one loop, one step, schedules, optimizers, freezing plans, records. Knows nothing of text or models."
