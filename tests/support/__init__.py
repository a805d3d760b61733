"""What tests of every room share: a real PostgreSQL, a real server, waiting with a deadline."""
