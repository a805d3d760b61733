"""The torch runner on CUDA: paged attention by Triton kernels, and CUDA graphs for decode.

Nothing here has run on a GPU yet. The kernels are tested in Triton's interpreter, the graphs' buffers without graphs.
"""
