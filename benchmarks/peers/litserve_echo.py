"""LitServe, echo, one worker: ``python -m ... PORT``."""

import sys
from typing import Any

import litserve


class Echo(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.device = device

    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"output": body}


if __name__ == "__main__":
    server = litserve.LitServer(Echo(), accelerator="cpu", devices=1, workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
