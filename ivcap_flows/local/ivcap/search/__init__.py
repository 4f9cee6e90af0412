"""Search: Datalog programs over aspects."""
