"""Model runs on Provena: make the record of an order or job, and register thousands of runs from a file, each once."""

from ivcap_flows.registration.model_runs import model_run_record

__all__ = ["model_run_record"]
