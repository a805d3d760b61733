"""Inferlets measured: what a launch, a call and a message cost, and what programs gain over stateless requests."""
