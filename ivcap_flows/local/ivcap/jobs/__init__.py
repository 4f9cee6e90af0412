"""Jobs: requested, run by detached runners, followed."""
