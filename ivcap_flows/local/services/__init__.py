"""A user's service on this machine: how it is registered, and how its jobs run.

A service is registered by a definition written by hand, which says what to run (`register.py`), or by the description
that its SDK prints (`descriptions.py`), beside which `mapping.py` keeps the command that runs it here.

For each job the dispatcher (`ivcap/jobs/dispatch.py`) asks `plans.py` how to run it, writes the ticket `job.json` into
the job's folder and starts a process (`hosting.py`) that outlives the server:

- a function runs in a process of its own (`runner.py`) with a job object (`job.py`), which reads artifacts from the
  platform's files and writes products into the job's folder;
- a batch service is a command, which `batch.py` runs inside that process;
- a long-running service is a server with one host for all its jobs (`hosts.py` starts it, `lambdas.py` is its program).

To a command or a server the platform is a `sidecar.py`. Each process writes the outcome, a record that `posted.py`
makes, into the folder `outbox`; the dispatcher collects it, and then the products are artifacts. `processes.py`
recognises and ends processes. `built_in.py` has the services that are always there.
"""
