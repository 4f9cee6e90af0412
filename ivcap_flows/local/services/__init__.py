"""A user's service on this machine: how it is registered, and how its jobs run.

A service is registered by a definition written by hand (`register.py`) or by the description that its SDK prints
(`descriptions.py`), with the command that runs it here (`mapping.py`). For each job the dispatcher of the embedded
IVCAP asks `plans.py` how to run it, and writes the job's ticket:

- a function runs in a process of its own (`runner.py`) with a job object (`job.py`);
- a batch service is a command, which `batch.py` runs inside that process;
- a long-running service is a server with one host for all its jobs (`hosts.py` starts it, `hosting.py` has its files,
  `lambdas.py` is its program).

To a command or a server the platform is a `sidecar.py`. Each process leaves the outcome in the outbox (`posted.py`),
from which the platform collects it, so jobs outlive the platform's server. `processes.py` recognises and ends them.
`built_in.py` has the services that are always there.
"""
