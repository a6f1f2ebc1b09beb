"""One file for each vendor CLI: a driver and a translator. Loaded by `runners.kinds` when first used."""
