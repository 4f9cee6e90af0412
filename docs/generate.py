"""Write the reference pages that are generated from the code: `python docs/generate.py`, or `make docs`.

`pages()` returns each page's name and text, so that a test can compare the files with the code.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from platformdirs import user_data_path
from prefect import Task
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

import ivcap_flows
from ivcap_flows import errors, tasks
from ivcap_flows.blocks import IvcapCollection, IvcapCredentials, IvcapService, ProvenaCredentials, ProvenaTerms
from ivcap_flows.blocks.ivcap_credentials import Connection
from ivcap_flows.capture import edge_rules
from ivcap_flows.cli.app import app
from ivcap_flows.handles import Handle, LocalFile
from ivcap_flows.in_prefect.events import KINDS
from ivcap_flows.journal.states import ARROWS
from ivcap_flows.local.ivcap import app as ivcap
from ivcap_flows.local.ivcap.routing import Operation
from ivcap_flows.local.likeness import FIGURES
from ivcap_flows.local.provena.platform import EmbeddedProvena
from ivcap_flows.local.provena.web import Api
from ivcap_flows.local.services.built_in import BUILT_IN
from ivcap_flows.provenance import lineage_rules, names, rules, things
from ivcap_flows.settings import Settings
from ivcap_flows.tasks.pair import asynchronous_name

if TYPE_CHECKING:
    from licences import Brought

FOLDER: Final = Path(__file__).parent / "reference"
NOTE: Final = "<!-- Written by docs/generate.py from the code. Change the code, then run `make docs`. -->\n"

SETTINGS: Final = """# Settings

Settings are environment variables. Blanks around a value do not count, and a blank variable counts as not set. They
are read when they are needed, so a worker may set them for each run.

A variable with this package's prefix, that of `IVCAP_FLOWS_JOURNAL`, which is not in the table has no effect. Each run
warns of it once, with the setting whose name is near, and `ivcap-flows doctor` counts it as wrong.

"""

PLATFORMS: Final = """
The user data folder is `~/.local/share` on Linux (or `XDG_DATA_HOME`) and `~/Library/Application Support` on macOS. A
relative path of the journal is taken from the folder in which the process works: a run and `doctor` warn of it, and
deployed runs are refused. A journal in a file whose name ends with a blank is refused, with the command that moves it.

## Which platform a task reaches

A task takes its platform from its `credentials` argument (a block or a block's name). Without it, the environment
decides:

| set | IVCAP | Provena |
|---|---|---|
| neither platform | embedded | embedded |
| `IVCAP_URL` and `IVCAP_JWT` only | real | off: its tasks raise PlatformOffError |
| Provena only | off: its tasks raise PlatformOffError | real |
| both | real | real |

`IVCAP_URL` has precedence over `IVCAP_BASE_URL`, which needs no token. `IVCAP_CONTEXT` replaces `IVCAP_URL` and
`IVCAP_JWT`, and `IVCAP_FLOWS_IVCAP_BLOCK` replaces all of these; together they raise ConfigurationError ([log
in](../how-to/use-the-real-platforms.md)). A token without its URL, and a URL without the token that it needs, raise
ConfigurationError. Provena counts as set if `IVCAP_FLOWS_PROVENA_BLOCK`, `PROVENA_DOMAIN`, `PROVENA_KEYCLOAK`,
`PROVENA_REGISTRY_API` or `PROVENA_PROV_API` is set. A deployed run for which neither platform is set raises
ConfigurationError unless `IVCAP_FLOWS_EMBEDDED=1`.

## Network

`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` work as in httpx (a SOCKS proxy needs `pip install
httpx[socks]`), and `SSL_CERT_FILE` and `SSL_CERT_DIR` name certificates to trust. This machine itself (127.0.0.1,
localhost, ::1) is always reached without a proxy.

## Blocks

The blocks are in `ivcap_flows.blocks`; Prefect stores their secrets encrypted. [Use
blocks](../how-to/use-blocks.md) shows how.

"""

TASKS: Final = """# Tasks

Import a task from `ivcap_flows.tasks`, or where it says so from that of its platform, `ivcap_flows.tasks.ivcap` or
`ivcap_flows.tasks.provena`, which have all of the platform. They are Prefect tasks with the tag of their platform:
`.submit`, `.map` and `.with_options` work. Each verb exists twice, for synchronous flows and, with an `a` before its
name (`a_` before `wait`), for asynchronous flows; the arguments are the same. An asynchronous task is awaited and never
blocks the flow's loop.

The tasks have `retries=0` and no cache: what is safe to repeat is repeated inside a task. Each task records itself.
`run_orders`, `run_jobs`, `run_order` and `run_job` are no tasks but functions for the flow's body, which call tasks and
may park the run; `download_products` calls a task for each product. `once`, `wait_or_park`, `recorded`, `annotate` and
`trace` are [at the end](#in-a-flows-body).

| synchronous | asynchronous | Prefect's name | returns |
|---|---|---|---|
"""

TYPES: Final = """
## Types of arguments

| type | values |
|---|---|
| `OncePer` | `"run"`, `"flow"`, `"account"` or `"call"`: the range within which two equal requests are one effect |
| `IvcapCredentialsLike` | `IvcapCredentials`, the name of a saved block, or None for the environment's |
| `ProvenaCredentialsLike` | `ProvenaCredentials`, the name of a saved block, or None for the environment's |
| `OrderStep` | arguments of `place_order` for one step of `run_orders`: {order} |
| `JobStep` | arguments of `request_job` for one step of `run_jobs`: {job} |
| `SourceLike` | a path, `bytes`, an open binary file, or an iterator over blocks of bytes |
| `Items` | an artifact, another handle or a URN, or several of them |
| `Data` | `Artifact`, `Dataset`, or a dataset's handle as text |
| `Info` | a statement of `ivcap_flows.provena.models`, such as `Model`, `DatasetTemplate` or `Organisation` |
| `Terms` | from `ivcap_flows.provena.terms`: owner, publisher, licence, approvals of minted datasets |
"""

HANDLES: Final = """
## Handles

The tasks return these handles, from `ivcap_flows.handles`. Handles are frozen pydantic models, contain no secret, and
survive pickle and JSON. `how` says how the run came by what they name: it requested it (`sent`), an earlier run had
(`kept`), another journal had (`adopted`), or it is that of an earlier equal request (`reused`). An order or job also
has `done`, `succeeded` and `inputs`; its `products` are indexed by number, name or URN. A LocalFile can be used
wherever a path can.

| handle | fields |
|---|---|
"""

IN_FLOWS: Final = """
## In a flow's body

These are in `ivcap_flows` itself, beside `flow` and `task`, which have the arguments of Prefect's own. `aonce` and
`a_wait_or_park` are for asynchronous flows.
"""

IN_BODY: Final = ("once", "wait_or_park", "recorded", "annotate", "trace")

EVENTS: Final = """# Events

The package emits these events in Prefect, so that [automations](../how-to/react-with-automations.md) can react. Prefect
shows them beside its own events of the flow run. Each is emitted once, after the journal has what it says, by the
process that wrote it. Events are best effort: no flow waits for them or fails because of them. One that cannot be sent
is lost, and while a thousand wait to be sent, further ones are dropped. What counts is the journal.

The flow run, flow, deployment and tags are *related* resources of each event, as with Prefect's own events. No event
has parameters of a flow or request, and secrets are replaced in all of it.

"""

NAMES_IN_EVENTS: Final = """
The resources of orders and jobs have the label `ivcap.service`, those of refused deliveries `ivcap-flows.sink`, to be
matched by a trigger. In the payload, `run` is the id of the logical run, `key` the idempotency key, and `generation`
says how often an equal request ended in failure before. Outside of flows, events are emitted only if `PREFECT_API_URL`
is set.

## Assets

Artifacts, products and datasets are assets of Prefect. When a task of this package has made one, Prefect emits
`prefect.asset.materialization.succeeded` with the asset as its resource. An asset is what is made again and again under
one name, so its key never has a URN; the URN of what was made this time is in the payload.

"""

MADE_BY: Final = (
    (
        "`upload_artifact`",
        "`ivcap://<platform>/artifacts/<name>`, or `ivcap://<platform>/collections/<collection>/<name>`",
        "`urn`, `sha256`",
    ),
    ("`upload_directory`", "as for an artifact (tar), or `ivcap://<platform>/collections/<name>`", "`urn`, `sha256`"),
    (
        "`wait_for_orders`, `wait_for_jobs`",
        "`ivcap://<platform>/services/<service>/<product>`",
        "`urn`, `order` or `job`, `sha256` if it is known",
    ),
    (
        "`mint_dataset`, `register_dataset`, `register_model_run`",
        "`provena://<platform>/datasets/<name>`",
        "`urn`, `artifact`, `artifact_sha256`",
    ),
)
"""Which tasks make assets: task, key, payload."""

OF_ASSETS: Final = """
- If a task made several things under one key, such as the products of many orders, the payload is that of the last one,
  with `count` and the newest fifty as `versions`.
- A thing without a name is no asset. What a repeated call finds, or a reused order has, is not made again. A wait that
  raises an error makes nothing. `register_model_runs` makes none, since it would be thousands.
- A product depends on the artifacts among its order's parameters, and a dataset on its artifact, as far as tasks of the
  same process made or found these. All depend on assets of your own tasks whose results were passed on, which Prefect
  finds. Prefect emits `prefect.asset.referenced` for each of these. What your own tasks depend on is Prefect's own
  lineage, which goes by the objects that are passed and may name too many.
  [The record](../explanation/provenance.md) is exact.
- A Prefect server keeps assets as events only. Prefect Cloud also shows them as a graph.
"""

COMMANDS: Final = """
Commands that read have `--json`. The exit status is 0 for success, 1 if something is wrong (a check failed, a platform
refused, a delivery is left), and 2 for wrong usage.

"""

PROVENANCE: Final = """# Provenance

This page says what a record may contain. The model is W3C PROV (PROV-DM, 2013). Every graph is validated against the
table below before it is written anywhere. See also [how provenance is captured](../explanation/provenance.md).

## Relations

"""

THINGS: Final = """
## Things, and what each is in each sink

Every thing has the same id in every sink: it is the URI in PROV, the `@id` or the `identifier` in an RO-Crate, the
version of a dataset or the tag `urn` of a run in OpenLineage, and the entity on IVCAP. The columns mean:

- **PROV**: PROV-JSON, PROV-N and Turtle. The class of PROV, and `prov:type` with our own word for it.
- **RO-Crate**: the types of the entity. A file that is not in the crate is a `MediaObject` under its own URN. An
  activity that made nothing is an `ActivateAction`, one that has not ended an `Action`.
- **OpenLineage**: a run, a dataset, or a facet.
- **IVCAP** and **Provena**: what the thing becomes there on its own. On IVCAP each thing is part of the record of its
  run, which is PROV-JSON in the aspect `urn:ivcap-flows:schema:run.1`. A thing that is already on IVCAP has its own
  name in this record.

"""

LINKS: Final = """
## Relations in each sink

"""

CRATE_ALONE: Final = {"wasStartedBy": "a `ControlAction` for each step, in the run's `OrganizeAction`"}
EDGES: Final = """
## What a call did

What a recorded call used and made is decided by what was seen of it; the first row that holds decides. `change`
compares the thing at the end with the begin: it is `new`, the `same`, `changed`, `gone`, or was there before, although
nobody had looked (`found`). `read`: the call was seen to read what was there, or had it in memory. `writer` is who was
seen to write it: the call (`me`), the call and another one at once (`several`), `another` one, or nobody (`unseen`).
`kept`: a part of what was there is in what is there now. `alone`: no other call could have written it unseen.
`declared` is what `@recorded` says of the parameter. `named`: it is in the result. `given`: the call had it as an
argument, so a library or a program may have read it unseen. It holds for files, folders, stores, tables, arrays, other
objects, and what is on the platforms.

"""
LINEAGE: Final = """
## How lineage is followed

`ivcap-flows trace` goes from thing to thing along the relations; the first row that holds decides. What is followed in
part is shown, and only what concerns it as a whole is followed further. `specializationOf` joins equal contents: from a
thing that nobody was seen to make, to the newest one with its content that was made before it was used, if possible at
the same path.

"""
LINEAGE_ENDS: Final = {
    "frame": "run or attempt",
    "fact": "its parameters or code",
    "group": "collection or dataset",
    "other": "anything else",
}
NAMES: Final = """
## Names

A thing has the name that its platform gave it: `urn:ivcap:artifact:…`, `urn:ivcap:order:…`, a Provena handle such as
`102.100.100/123456`. Only a thing without a name on a platform gets a `urn:ivcap-flows:…` name: runs, attempts, task
runs, calls, parameters, code, files, folders, tables and arrays. A file's name is `urn:ivcap-flows:file:<digest>`, a
digest of path, content and modification time. The name of its content is `urn:ivcap-flows:file:sha256:<sha256>`,
which equal files
share. A folder's name is `urn:ivcap-flows:directory:<digest>`, a digest of its path, the sha256 of its manifest and the
newest modification time in it. A version of a table or an array has a name of its own,
`urn:ivcap-flows:frame:<uuid>` or `urn:ivcap-flows:array:<uuid>`.

In PROV-JSON, PROV-N and Turtle, each name is in one of these namespaces:

"""

ERRORS: Final = """# Errors

All errors are in `ivcap_flows.errors`. Each error carries its data as attributes and survives pickling. `retryable`
says whether repeating the same call can succeed. No message contains a token.

The log of a run says such an error once, by its message, which names the thing and the next step; at level DEBUG also
with its traceback. If a script does not catch it, Python shows its own traceback in addition, most of which is
Prefect's. This script ends with the message:

```python
import sys

from ivcap_flows import flow
from ivcap_flows.errors import IvcapFlowsError
from ivcap_flows.tasks import request_job, wait_for_jobs


@flow
def hello():
    [done] = wait_for_jobs([request_job("echo", {"message": "hello"})])
    return done.result


if __name__ == "__main__":
    try:
        hello()
    except IvcapFlowsError as error:
        sys.exit(f"{type(error).__name__}: {error}")
```

"""

LICENCES: Final = """# Licences

`ivcap-flows` is under the Apache License 2.0. It contains one library of others, Dagre, under the MIT licence; a page
of `trace --html` contains both it and that licence. pip installs all other packages beside it. These are the ones that
it asks for and the ones that they ask for in turn, with the licence that the metadata of each names ("BSD" where it
does not say which one). A wheel may also contain libraries, such as PostgreSQL's; their licences are in its
`*.dist-info` folder. The versions are those of `constraints.txt`, for Python 3.11 on Linux.

All of them allow use in a program under any licence. Three kinds have conditions for who passes them on:

- **LGPL**: psycopg, of the extra `postgres`. It is imported unchanged, and a user can replace it by another version, as
  the licence asks.
- **MPL**: changed files of such a package stay under the MPL. Here all are unchanged.
- **Artistic License**: text-unidecode, which may also be passed on under the GPL.

| package | version | licence | with the extra |
|---|---|---|---|
"""

EMBEDDED: Final = """# The embedded platforms

This page lists what the embedded platforms implement of the real ones, operation by operation. An operation behaves as
the platform's public description says, except for what is listed as missing. The server also describes itself at
`/1/openapi/openapi3.json`.
"""

BUILT_IN_SERVICES: Final = """
## Built-in services

The embedded IVCAP comes with these services, for trials and tests. Each takes one parameter, in an order or as the
request of a job; all others you [register](../how-to/run-a-service-locally.md). `echo` and `sleep` give it back as
their result.

"""

LIKE_PRODUCTION: Final = """
## Like production

With `ivcap-flows local serve --like production`, or `embedded_platform.be_like("production")` in a test, the embedded
platforms have the delays, limits and late visibility of the real ones: see
[rehearse a deployment](../how-to/rehearse-a-deployment.md). `--speed N` divides the seconds by N. These are the figures
and their sources:

"""

IVCAP: Final = """
## IVCAP

The comparison is with the IVCAP OpenAPI document 0.48, the data path `/blob`, which the public clients use although no
document describes it, and `authinfo.yaml`.

"""

ROUTES_OF_IVCAP: Final = """
/1/artifacts GET POST
/1/artifacts/{id} GET
/1/artifacts/{id}/blob GET HEAD PATCH POST
/1/aspects GET POST PUT
/1/aspects/{id} GET DELETE
/1/authinfo.yaml GET
/1/dashboards GET
/1/metadata GET POST
/1/metadata/{id} GET PUT DELETE
/1/openapi/openapi3.json GET
/1/orders GET POST
/1/orders/{id} GET
/1/orders/{id}/logs GET
/1/orders/{id}/metadata GET
/1/orders/{id}/products GET
/1/orders/{id}/top GET
/1/packages/list GET
/1/packages/remove DELETE
/1/project GET POST
/1/project/default GET PUT
/1/project/{id} GET PUT DELETE
/1/project/{id}/account GET PUT
/1/project/{id}/members GET
/1/project/{id}/memberships/{user} PUT DELETE
/1/queues GET POST
/1/queues/{id} GET DELETE
/1/queues/{id}/messages GET POST
/1/search POST
/1/secrets GET POST
/1/secrets/list GET
/1/services GET POST
/1/services/{id} GET PUT DELETE
/1/services2 GET POST
/1/services2/{id} GET PUT DELETE
/1/services2/{service}/jobs GET POST
/1/services2/{service}/jobs/{id} GET
/1/services2/{service}/jobs/{id}/events GET
/1/services2/{service}/jobs/{id}/output GET
"""
"""The routes that IVCAP publishes, so that the page says which of them are not served. The names of path parameters do
not matter.
"""

JSON_PATHS: Final = """
### JSON paths

`content-path` accepts this part of PostgreSQL's JSON path language, in lax mode, with the same results as PostgreSQL.
Anything else is answered with 400.

- Steps: `.key`, `."key"`, `[*]` and `[0]`.
- Conditions, anywhere after a step: `? (...)` with `==`, `!=`, `<>`, `<`, `<=`, `>`, `>=` between paths from `@` or
  `$` and texts, numbers, `true`, `false`, `null`; `starts with "..."`; `like_regex "..."`, also with `flag "i"`; and
  `&&`, `||` and `(...)` of these.
- Expressions of characters, `.`, `*`, `+`, `?`, `|`, a first `^`, a last `$`, and signs after `\\`.

There are no groups, classes or counts in an expression, no `!`, `exists` or `is unknown`, no ranges, methods,
arithmetic, `.*`, `.**` or variables, and no strict mode.
"""

PROVENA: Final = """
## Provena

The comparison is with the routes in the public source of Provena (provena/provena) and those that provenaclient 0.29
requests. Each API is at `/provena/<name>` of the server. Keycloak's realm is at `/provena/keycloak/realms/provena` with
its public key, `.well-known/openid-configuration`, JWKS, tokens (refresh and offline, client credentials, device code)
and the page on which a user confirms a device. A user without a required role gets 401, as on the real server. If a
client's request makes the real server answer 500, this server does the same; the table says when. Two such requests get
400 and a reason instead, because no client should send them: an empty id, and an item with an empty `display_name`.

`{type}` is `agent/organisation`, `agent/person`, `entity/model`, `entity/model_run_workflow`,
`entity/dataset_template`, `entity/dataset`, `activity/study`, `activity/model_run`, `activity/create` or
`activity/version`.
"""
_VERSIONED: Final = ("entity/model", "entity/model_run_workflow", "entity/dataset_template")
_DIRECT: Final = ("agent/organisation", "agent/person", "activity/study", *_VERSIONED)
PROVENA_TYPES: Final = {
    "{versioned}": _VERSIONED,
    "{direct}": _DIRECT,
    "{all}": (*_DIRECT, "entity/dataset", "activity/model_run", "activity/create", "activity/version"),
}
"""The types of items that a placeholder in provena-routes.txt stands for."""
PROVENA_ROUTES: Final = Path(__file__).with_name("provena-routes.txt")
_NO_PAGES: Final = "Documentation pages for people; the document itself is at /openapi.json."
_NO_PROXY: Final = "For Provena's own services, which alone can encrypt the user context that it needs."
_NO_TABLES: Final = "Moves whole tables of one deployment to another."
STATES: Final = """# The states of an effect

Every order, job, upload and registration is an *intent* in the journal before it is sent. Its state changes only along
these arrows: the journal refuses any other change.

- `claimed`: nothing was sent.
- `sent`: a request may have been sent. The effect is *in doubt* once the reply was lost or the process ended, and an
  upload also once the platform answered that it is missing: it is not known whether the platform has the effect, and
  `error` says why.
- `done`: the platform has the effect; once its work has ended, the status says how.
- `dropped`: the request certainly had no effect, or you wrote it off, or had it forgotten.

A killed run leaves its intents in their states. [What is guaranteed](../explanation/guarantees.md) says what the next
attempt does with them, and [settle a doubt](../how-to/settle-a-doubt.md) what you can do.

"""

UNSERVED_OF_PROVENA: Final = {
    "/docs": _NO_PAGES,
    "/redoc": _NO_PAGES,
    "/admin/export": _NO_TABLES,
    "/admin/import": _NO_TABLES,
    "/admin/restore_from_table": _NO_TABLES,
    "/registry/{type}/user/releases": "No client requests it; `/registry/general/list` takes the reviewer.",
    "/registry/general/delete": "No client requests it; `/registry/{type}/delete` does the same.",
    "/jobs/user/retry": "No client requests it; the real one refuses every request.",
    "/registry/{type}/proxy/create": _NO_PROXY,
    "/registry/{type}/proxy/fetch": _NO_PROXY,
    "/registry/{type}/proxy/revert": _NO_PROXY,
    "/registry/{type}/proxy/seed": _NO_PROXY,
    "/registry/{type}/proxy/update": _NO_PROXY,
    "/registry/{type}/proxy/version": _NO_PROXY,
}
"""Why a path of Provena has no operation."""

UNSERVED_OF_IVCAP: Final[dict[tuple[str, str], str]] = {}
"""Why a route of IVCAP has no operation, by method and path."""


def pages() -> dict[str, str]:
    """Return the text of each page by its name. The list of licences is that of one Python's pinned versions."""
    import licences  # Beside this file; whoever loads this one for its tables alone need not find it.

    made = {
        "settings.md": settings(),
        "tasks.md": tasks_page(),
        "cli.md": commands(),
        "provenance.md": provenance(),
        "errors.md": errors_page(),
        "states.md": states_page(),
        "events.md": events_page(),
        "embedded-platforms.md": EMBEDDED
        + built_in_services()
        + production()
        + IVCAP
        + coverage(ivcap.OPERATIONS, ROUTES_OF_IVCAP)
        + JSON_PATHS
        + PROVENA
        + provena_page(),
    }
    if licences.as_pinned() and sys.platform == "linux" and sys.version_info[:2] == (3, 11):
        made["licences.md"] = licences_page(licences.brought())
    return {name: NOTE + "\n" + text.strip() + "\n" for name, text in made.items()}


def licences_page(packages: Iterable[Brought]) -> str:
    rows = (f"| {each.name} | {each.version} | {each.licence} | {_names(' '.join(each.extras))} |" for each in packages)
    return LICENCES + _lines(*rows)


def built_in_services() -> str:
    rows = [
        " | ".join((f"| `{of['name']}`", of["description"], f"`{each['name']}`", each["type"], each["description"], ""))
        for of in BUILT_IN
        for each in of["parameters"]
    ]
    return BUILT_IN_SERVICES + _lines("| service | does | parameter | type | meaning |", "|---|---|---|---|---|", *rows)


def production() -> str:
    rows = [f"| {each.what} | {each.value:g} {each.unit} | {each.source} |" for each in FIGURES.values()]
    return LIKE_PRODUCTION + _lines("| what | figure | source |", "|---|---|---|", *rows)


def states_page() -> str:
    """Return the page of an intent's states, with a diagram and a table made from the journal's own table."""
    steps = [(before or "[*]", after, cause) for (before, after), cause in ARROWS.items()]
    drawn = "".join(f"    {before} --> {after}: {cause.replace(';', ',')}\n" for before, after, cause in steps)
    cells = [("(none)" if before == "[*]" else f"`{before}`", after, cause) for before, after, cause in steps]
    rows = (f"| {before} | `{after}` | {_cell(cause)} |" for before, after, cause in cells)
    diagram = f"```mermaid\nstateDiagram-v2\n{drawn}```\n\n"
    return STATES + diagram + _lines("| from | to | cause |", "|---|---|---|", *rows)


def events_page() -> str:
    """Return the page of the events, made from the table that they are emitted by."""
    rows = (
        f"| `{name}` | {_cell(kind.when)} | {_cell(kind.resource)} | {_names(kind.payload)} |"
        for name, kind in KINDS.items()
    )
    events = _lines("| event | when | resource | payload |", "|---|---|---|---|", *rows)
    made = (f"| {task} | {key} | {payload} |" for task, key, payload in MADE_BY)
    assets = _lines("| task | key | payload |", "|---|---|---|", *made)
    return EVENTS + events + NAMES_IN_EVENTS + assets + OF_ASSETS


def _names(words: str) -> str:
    return ", ".join(f"`{word}`" for word in words.split())


def settings() -> str:
    rows = (
        f"| `{field.alias}` | {_default(Settings, name)} | {_cell(field.description)} |"
        for name, field in Settings.model_fields.items()
    )
    blocks = "".join(
        map(_block, (IvcapCredentials, Connection, ProvenaCredentials, IvcapService, IvcapCollection, ProvenaTerms))
    )
    return SETTINGS + _lines("| variable | default | meaning |", "|---|---|---|", *rows) + PLATFORMS + blocks


def _block(block: type[BaseModel]) -> str:
    rows = (
        f"| `{name}` | {_default(block, name)} | {_cell(field.description)} |"
        for name, field in block.model_fields.items()
    )
    table = _lines("| field | default | meaning |", "|---|---|---|", *rows)
    return f"### {block.__name__}\n\n{_paragraphs(block)[0]}\n\n{table}\n"


def _default(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    value: Any = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value in (None, "", (), [], {}) or isinstance(value, SecretStr | BaseModel):
        return ""
    # Make the same page on every machine.
    return "`" + str(value).replace(str(user_data_path()), "<user data folder>") + "`"


def tasks_page() -> str:
    known = {name: getattr(place, name) for place in (tasks, tasks.ivcap, tasks.provena) for name in place.__all__}
    verbs = sorted(name for name in known if asynchronous_name(name) in known)
    rows, sections = [], []
    for verb in verbs:
        task = known[verb]
        is_task = isinstance(task, Task)
        body = inspect.unwrap(task.fn if is_task else task)
        signature = inspect.signature(body)
        returns = signature.return_annotation
        name = task.name if is_task else "(a function)"
        rows.append(f"| [`{verb}`](#{verb}) | `{asynchronous_name(verb)}` | {name} | `{_cell(returns)}` |")
        text = "\n\n".join(_paragraphs(body))
        if verb not in tasks.__all__:
            place = next(place for place in (tasks.ivcap, tasks.provena) if verb in place.__all__)
            text += f"\n\nImport it from `{place.__name__}`."
        sections.append(f"\n## {verb}\n\n```text\n{_signature(verb, signature)}\n```\n\n{text}\n")
    order, job = (", ".join(f"`{field.name}`" for field in fields(step)) for step in (tasks.OrderStep, tasks.JobStep))
    types = TYPES.format(order=order, job=job)
    return TASKS + _lines(*rows) + types + _handles() + "".join(sections) + IN_FLOWS + "".join(map(_in_flows, IN_BODY))


def _in_flows(name: str) -> str:
    function = getattr(ivcap_flows, name)
    text = "\n\n".join(_paragraphs(function))
    return f"\n### {name}\n\n```text\n{_signature(name, inspect.signature(function))}\n```\n\n{text}\n"


def _signature(name: str, signature: inspect.Signature) -> str:
    parts, starred = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        parts.append(f"{stars}{parameter.name}: {parameter.annotation}{default}")
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f") -> {signature.return_annotation}"


def _handles() -> str:
    from ivcap_flows import handles

    rows = []
    for name in handles.__all__:
        kind = getattr(handles, name)
        if isinstance(kind, type) and issubclass(kind, Handle | LocalFile) and kind is not Handle:
            fields = ", ".join(f"`{field}`" for field in kind.model_fields if field != "kind")
            rows.append(f"| `{name}` | {fields} |")
    return HANDLES + _lines(*rows)


def commands() -> str:
    # cyclopts puts the name of a command before the usage that the command gives itself.
    text = app.generate_docs(output_format="markdown").replace("ivcap-flows run run ", "ivcap-flows run ")
    title, rest = text.split("\n", 1)
    return f"{title}\n{COMMANDS}{rest.strip()}\n"


def provenance() -> str:
    rows = ((f"`{prefix}`", f"`{namespace}`") for prefix, namespace in names.NAMESPACES.items())
    forms = THINGS + _things() + LINKS + _links()
    decided = EDGES + _edges() + LINEAGE + _followed()
    return PROVENANCE + _relations() + forms + decided + NAMES + _table("prefix, namespace", rows)


def _relations() -> str:
    def ends(kinds: Iterable[str], types: frozenset[str] | None) -> str:
        return " or ".join(kinds) if types is None else ", ".join(sorted(types))

    return _table(
        "relation, from, to, meaning, at most once for",
        (
            (
                f"`{rule.name}`",
                ends(rule.source, rule.source_types),
                ends(rule.target, rule.target_types),
                rule.meaning,
                ", ".join(sorted(rule.once)),
            )
            for rule in rules.RULES.values()
        ),
    )


def _links() -> str:
    rows = []
    for name, rule in rules.RULES.items():
        statement, *ends = rule.prov
        end = "target" if name == "wasGeneratedBy" else "source"
        crate = f"`{rule.crate}` of the {end}" if rule.crate else CRATE_ALONE.get(name, "")
        rows.append((f"`{name}`", f"`{statement}({', '.join(ends)})`", crate, rule.lineage))
    return _table("relation, PROV, RO-Crate, OpenLineage", rows)


def _things() -> str:
    rows: dict[str, list[tuple[str, ...]]] = {}
    for name, thing in things.THINGS.items():
        prov = " ".join(f"`prov:{type_}`" for type_ in (thing.kind.title(), thing.prov) if type_)
        crate = " ".join(f"`{type_}`" for type_ in thing.crate)
        forms = prov, crate, _lineage(thing), thing.ivcap, thing.provena
        rows.setdefault(thing.kind, []).append((f"`{name}`", thing.meaning, *forms))
    head = "thing, meaning, PROV type, RO-Crate, OpenLineage, IVCAP, Provena"
    return "\n".join(_table(head, some) for some in rows.values())


def _lineage(thing: things.ThingType) -> str:
    named = ", ".join(f"`{facet}`" if " " not in facet else facet for facet in thing.facets)
    if thing.lineage in ("facet", None):
        return f"in {named}" if named else "not included"
    return f"{thing.lineage}, with {named}" if named else str(thing.lineage)


def _edges() -> str:
    tables = (
        ("Did the call make what is there at its end?", "made", edge_rules.MADE),
        ("Did it use what was there before, and how is that known?", "used", edge_rules.USED),
    )
    return "\n".join(
        f"{asked}\n\n" + _table(f"if, {then}", ((_conditions(row), row.then) for row in rows))
        for asked, then, rows in tables
    )


def _conditions(row: edge_rules.Row) -> str:
    found = []
    for name, wanted in row._asdict().items():
        if isinstance(wanted, bool):
            found.append(name if wanted else f"not {name}")
        elif wanted is not None and name != "then":
            either = " or ".join(sorted(wanted)) if isinstance(wanted, frozenset) else wanted
            found.append(f"{name}: {either}")
    return ", ".join(found) or "anything else"


def _followed() -> str:
    rows = []
    for row in lineage_rules.FOLLOWS:
        asked = {"followed in full": row.whole, "the start": row.start, "about another name": row.naming}
        conditions = (name if wanted else f"not {name}" for name, wanted in asked.items() if wanted is not None)
        relation = "any" if row.relation is None else f"`{row.relation}`"
        rows.append((row.direction, relation, _end(row.here), _end(row.there), ", ".join(conditions), row.follow))
    return _table("direction, relation, from, to, if, followed", rows)


def _end(ends: frozenset[str] | None) -> str:
    if ends is None:
        return "any"
    no_run = ends == {"fact", "group", "other"}
    return "no run or attempt" if no_run else " or ".join(LINEAGE_ENDS[end] for end in sorted(ends))


def errors_page() -> str:
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n")[1]
    rows = []
    for name in _drawn(tree):
        kind = getattr(errors, name)
        retryable = "yes" if kind.retryable else ""
        rows.append(f"| `{name}` | {_cell(' '.join(_paragraphs(kind)))} | {retryable} |")
    table = _lines("| error | meaning | retryable |", "|---|---|---|", *rows)
    return f"{ERRORS}```text\n{inspect.cleandoc(tree)}\n```\n\n{table}"


def coverage(operations: Iterable[Operation], routes: str) -> str:
    """Return a table of the operations that are served, and of the platform's other routes with the reason.

    Raise ValueError for a route that is not served and has no reason.
    """
    rows, wanted = {}, {_bare(method, path): (method, path) for method, path in routes_of(routes)}
    for operation in operations:
        wanted.pop(_bare(operation.method, operation.path), None)
        state = "implemented" if not operation.missing else f"partly: {operation.missing}"
        state = f"not: {operation.missing}" if set(operation.answers) == {501} else state
        rows[operation.path, operation.method] = (
            f"| `{operation.method} {operation.path}` | {operation.summary} | {_cell(state)} |"
        )
    for method, path in wanted.values():
        if (method, path) not in UNSERVED_OF_IVCAP:
            raise ValueError(f"Neither served nor told why not: {method} {path}")
        rows[path, method] = f"| `{method} {path}` | | not: {_cell(UNSERVED_OF_IVCAP[method, path])} |"
    return _lines("| operation | what it does | state |", "|---|---|---|", *(rows[key] for key in sorted(rows)))


def provena_page() -> str:
    """Return the tables of the seven APIs."""
    with TemporaryDirectory() as folder:
        embedded = EmbeddedProvena(Path(folder), "http://127.0.0.1")
        asyncio.run(embedded.stop())
    routes = provena_routes(PROVENA_ROUTES.read_text(encoding="utf-8"))
    apis = {name: make() for name, make in embedded.apis.items()}
    return "".join(f"\n### {api.title}\n\n{provena_coverage(api, routes[name])}" for name, api in apis.items())


def provena_routes(text: str) -> dict[str, set[tuple[str, str]]]:
    """Return method and path of each route by API, with one path for each type of item."""
    apis: dict[str, set[tuple[str, str]]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            known = apis.setdefault(line.strip("[]"), set())
        elif line and not line.startswith("#"):
            path, *methods = line.split()
            stem = next((stem for stem in PROVENA_TYPES if path.startswith(stem)), "")
            paths = [f"/registry/{type_}{path.removeprefix(stem)}" for type_ in PROVENA_TYPES[stem]] if stem else [path]
            known |= {(method, each) for method in methods for each in paths}
    return apis


def provena_coverage(api: Api, wanted: set[tuple[str, str]]) -> str:
    """Return a table as `coverage` does; the types of items that have the same route share a row."""
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    served: dict[tuple[str, str], Any] = {("GET", "/openapi.json"): {"responses": {}}}
    for path, operations in api.openapi()["paths"].items():
        served |= {(method.upper(), path): operation for method, operation in operations.items()}
    for (method, path), operation in served.items():
        who = "anybody"
        for roles in operation.get("security", [{}])[0].values():
            who = " ".join(f"`{role}`" for role in roles) or "any user"
        failure = operation["responses"].get("500")
        told = f"{who}. Answers 500: {failure['description']}" if failure else who
        state = f"partly: {operation['description']}" if "description" in operation else "implemented"
        path, type_ = _of_type(path)
        rows.setdefault((path, method, told, state), []).append(type_)
    for method, path in sorted(wanted - served.keys()):
        path, type_ = _of_type(path)
        if path not in UNSERVED_OF_PROVENA:
            raise ValueError(f"Neither served nor told why not: {method} {path}")
        rows.setdefault((path, method, "", f"not: {UNSERVED_OF_PROVENA[path]}"), []).append(type_)
    lines = []
    for (path, method, told, state), types in sorted(rows.items()):
        some = [] if types == [""] or len(types) == len(PROVENA_TYPES["{all}"]) else [f"for {', '.join(types)}"]
        who = "; ".join([*filter(None, [told.rstrip(".")]), *some])
        lines.append(f"| `{method} {path}` | {_cell(who)} | {_cell(state)} |")
    return _lines("| operation | who may | state |", "|---|---|---|", *lines)


def _of_type(path: str) -> tuple[str, str]:
    """Split a path into the path for any type of item, and the type."""
    types = "|".join(sorted(PROVENA_TYPES["{all}"], key=len, reverse=True))
    found = re.match(f"/registry/({types})(?=/)", path)
    return (f"/registry/{{type}}{path[found.end() :]}", found[1]) if found else (path, "")


def routes_of(text: str) -> list[tuple[str, str]]:
    """Return method and path of each route in a list of paths with their methods."""
    return [(method, path) for path, *methods in map(str.split, text.strip().splitlines()) for method in methods]


def _bare(method: str, path: str) -> tuple[str, str]:
    return method, re.sub(r"{\w+}", "{}", path)


def _drawn(tree: str) -> Iterator[str]:
    """Yield the names in the tree in their order."""
    for line in tree.splitlines():
        yield from [word for word in line.split() if word.endswith("Error")][:1]


def _paragraphs(what: Any) -> list[str]:
    return (inspect.getdoc(what) or "").split("\n\n")


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _table(head: str, rows: Iterable[Iterable[str]]) -> str:
    """Return a table. The cells of `head` are separated by commas."""
    columns = head.split(", ")
    head, *lines = (f"| {' | '.join(cells)} |" for cells in (columns, *rows))
    return _lines(head, "|---" * len(columns) + "|", *lines)


def _lines(*lines: str) -> str:
    return "".join(line + "\n" for line in lines)


def write(made: Iterable[tuple[str, str]]) -> None:
    for name, text in made:
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(pages().items())
