"""Orders and jobs: the work that IVCAP does and bills. What is left of it, found again, used again, made twice."""
