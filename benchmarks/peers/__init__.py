"""The peers: each file is run by the peers' own interpreter."""
