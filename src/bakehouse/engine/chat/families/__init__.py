"""One file per family of models, holding what differs; `registry` lists them."""
