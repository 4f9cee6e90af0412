"""What Prefect shows of a run, and what it knows of the run's end: events, artifacts, the log, states."""
