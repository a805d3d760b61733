"""What runs next and where its keys and values lie: pages, contexts, prefixes, the scheduler. Data only, no torch."""
