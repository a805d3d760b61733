"""``make bench-engine``: our engine beside transformers and llama.cpp, same random weights, same machine, one run."""
