"""Model runs on Provena: what is registered of an order or job, and thousands of runs from a file, each once."""

from ivcap_flows.registration.model_runs import model_run_record

__all__ = ["model_run_record"]
