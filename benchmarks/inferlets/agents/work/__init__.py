"""What both sides share: the workloads, and what is said in them."""
