"""Model runs on Provena: say by a workflow which work is one, and register thousands of runs, each once."""

from ivcap_flows.registration.model_runs import model_run_record
from ivcap_flows.registration.values import ValueFrom
from ivcap_flows.registration.workflow import DataUse, NewWorkflowTemplate, Workflow

__all__ = ["DataUse", "NewWorkflowTemplate", "ValueFrom", "Workflow", "model_run_record"]
