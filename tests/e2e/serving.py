"""Serves a flow that parks: one process that starts another for each run, without a worker or a work pool."""

from parking_flows import parks

if __name__ == "__main__":
    parks.serve(name="served")
