"""Ordinary use of Prefect in a hundred lines. `said` is its output: the same whatever `flow` and `task` come from."""

import asyncio
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from prefect import flow, task  # isort: split

from prefect import get_run_logger, tags, unmapped
from prefect.cache_policies import INPUTS, NO_CACHE, TASK_SOURCE
from prefect.runtime import flow_run, task_run
from prefect.states import Cancelled, Completed, Failed
from prefect.tasks import task_input_hash
from prefect.transactions import transaction

said: list[object] = []
kept = functools.partial(task, persist_result=True)


def say(*words: object) -> None:
    said.append(words)


@kept
def mean(xs: list[float]) -> float:
    return sum(xs) / len(xs)


@kept
def largest(xs: list[float]) -> float:
    return max(xs)


@task(cache_key_fn=task_input_hash, cache_expiration=timedelta(hours=1), persist_result=True)
def hashed(xs: list[float]) -> float:
    say("hashed runs")
    return xs[0]


@task(cache_key_fn=task_input_hash, persist_result=True, name="hashed")
def hashed_last(xs: list[float]) -> float:
    return xs[-1]


@task(cache_policy=TASK_SOURCE + INPUTS, persist_result=True)
def sourced(xs: list[float]) -> int:
    say("sourced runs")
    return len(xs)


class Scale:
    """A task may be a method of each kind, or an object that is called."""

    factor = 2

    @task
    def scaled(self, x: int) -> int:
        return x * self.factor

    @task
    @classmethod
    def by_class(cls, x: int) -> int:
        return x + cls.factor

    @task
    @staticmethod
    def squared(x: int) -> int:
        return x * x

    @flow
    def whole(self, x: int) -> int:
        return self.scaled(x) + 1

    def __call__(self, x: int) -> int:
        return x + 100


@task(retries=2, on_failure=[lambda t, run, state: say("failed", t.name, state.name)])
def flaky(until: int) -> int:
    say("try", task_run.run_count)
    if task_run.run_count < until:
        raise ValueError(f"try {task_run.run_count}")
    return until


@task(on_completion=[lambda t, run, state: say("completed", t.name, state.type.value)], tags=["a"], version="7")
def boom(x: int) -> int:
    if x > 1:
        raise ValueError(x)
    return x


@task(timeout_seconds=0.1)
async def slow() -> None:
    await asyncio.sleep(5)


@task
def count(n: int):
    yield from range(n)


@task(task_run_name="named {x}")
def name_of(x: int) -> str:
    get_run_logger().debug("seen")
    return f"{task_run.name} in {flow_run.flow_name}"


@task
def mixed(x: int, y: int) -> int:
    return x + y


@task
def write(x: int) -> int:
    return x


@write.on_rollback
def undo(txn) -> None:
    say("rolled back", txn.get("x", None))


@flow(validate_parameters=True)
def inner(x: int, *more: int, y: str = "1", **rest: int) -> tuple:
    return x, more, y, rest


@task
@flow
def at_once(x: int) -> int:
    return x * 10


@flow
def numbers(n: int):
    for x in count(n):
        yield x + 1
    return Completed(message="counted")


@flow
async def many(n: int) -> list[int]:
    return await asyncio.gather(*[asyncio.to_thread(lambda x=x: x) for x in range(n)])


@flow(retries=1, on_failure=[lambda f, run, state: say("flow failed", f.name)])
def tried() -> int:
    say("flow try", flow_run.run_count)
    if flow_run.run_count == 1:
        raise ValueError("once")
    return 1


ENDS = {
    "mapped": lambda: boom.map([1, 2]),
    "failed": lambda: Failed(message="no"),
    "cancelled": lambda: Cancelled(),
    "mixed": lambda: [boom(1, return_state=True), boom(2, return_state=True)],
    "data": lambda: {"a": [boom(1, return_state=True)]},
}


@flow
def ending(kind: str):
    return ENDS[kind]()


@flow(name="All of it", flow_run_name="run of {n}", log_prints=True)
def main(n: int = 3) -> str:
    xs = [1.0, 2.0, 6.0]
    say(mean(xs), largest(xs), mean(xs, return_state=True).name, largest.with_options(retries=1)(xs))
    say(hashed(xs), hashed_last(xs), hashed(xs), sourced(xs), sourced(xs), mean.with_options(cache_policy=NO_CACHE)(xs))
    one = Scale()
    say(one.scaled(3), Scale.by_class(3), Scale.squared(3), one.whole(4), task(one)(1), task(one).name)
    say(task(functools.partial(pow, 2), name="partial")(n), task(lambda x: -x).map(range(n)).result())
    say(flaky(2), flaky.with_options(retries=0)(2, return_state=True).message)
    say([str(state.type.value) for state in boom.map([0, 1, 2], return_state=True)], boom.version, sorted(boom.tags))
    say(boom.submit(1).result(), boom.submit(3, return_state=True).message, mixed.map([1, 2], unmapped(n)).result())
    say(list(count(n)), list(numbers(n)), name_of(1), name_of.submit(2).result())
    say(inner("4", 5, y="z", k=6), at_once.map([1, 2]).result(), at_once.submit("3").result(), asyncio.run(many(n)))
    try:
        with transaction():
            write(1)
            raise KeyError("undo")
    except KeyError as error:
        say("transaction", repr(error))
    with tags("b"), ThreadPoolExecutor(2) as pool:
        say(list(pool.map(lambda x: x + 1, range(n))), write.submit(5, wait_for=[write.submit(4)]).result())
    thread = threading.Thread(target=lambda: say("thread", write.fn(6)))
    thread.start()
    thread.join()
    return f"{flow_run.name} of {flow_run.flow_name} {flow_run.parameters}"


if __name__ == "__main__":
    say(
        main(),
        main.version is not None,
        main.name,
        main.description,
        mean.task_key.partition("-")[0],
        mean.fn.__module__,
    )
    say(tried(), [(kind, state.type.value, state.name) for kind in ENDS for state in [ending(kind, return_state=True)]])
    say(asyncio.run(slow(return_state=True)).name)
