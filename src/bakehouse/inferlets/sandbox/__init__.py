"""Programs in a sandbox: wasmtime's component model, with nothing granted but our own interfaces.

`Sandbox` compiles and runs; `linking` says what a program finds there, `offer` and `wasi` what that is.
"""

from bakehouse.inferlets.sandbox.cache import Compiled
from bakehouse.inferlets.sandbox.sandbox import Sandbox

__all__ = ["Compiled", "Sandbox"]
