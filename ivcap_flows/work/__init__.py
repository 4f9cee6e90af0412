"""Orders and jobs, the work that IVCAP bills: find orphans, candidates and duplicates, reuse results."""
