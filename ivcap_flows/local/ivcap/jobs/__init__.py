"""Jobs: requested, run by detached runners, watched."""
