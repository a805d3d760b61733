"""What a guest can call, bound to the engine and the services. Start reading at `guest` and `calls`."""
