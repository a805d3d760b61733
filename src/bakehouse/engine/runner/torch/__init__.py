"""The torch runner: models of transformers over our own paged KV, on CPU and CUDA."""
