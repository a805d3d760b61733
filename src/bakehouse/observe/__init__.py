"""What operators look at: log lines and metrics. Helpers only; wiring hands them to the rooms."""
