"""Served embedded platforms, their accounts and users, and services for them."""

import sys

import pytest
from served_home import Home, User


@pytest.fixture
def local_home(tmp_path):
    """A directory without a server. `start()` starts one."""
    home = Home(tmp_path / "embedded")
    yield home
    home.close()


TOKENS = (
    *("IVCAP_JWT", "IVCAP_ACCESS_TOKEN", "PROVENA_OFFLINE_TOKEN", "PROVENA_CLIENT_SECRET", "PREFECT_API_KEY"),
    *("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING", "OPENLINEAGE_API_KEY"),
    *("PREFECT_CLIENT_CUSTOM_HEADERS", "PREFECT_SERVER_DATABASE_CONNECTION_URL"),
)
"""Variables of the user's that no service may see."""


@pytest.fixture(scope="session")
def local_platform(tmp_path_factory):
    """A server that the tests of this room share, started by a user with tokens."""
    home = Home(tmp_path_factory.mktemp("home") / "embedded")
    home.variables |= {name: f"s3cret-{name}" for name in (*TOKENS, "ORDINARY")}
    home.start()
    yield home
    home.close()


@pytest.fixture
def control(local_platform):
    """The control API of the shared server. After the test the clock, the faults and the speed are as before."""
    with local_platform.control() as client:
        client.delete("/log")
        yield client
        for path in ("/faults", "/like", "/clock"):
            client.delete(path)


@pytest.fixture(scope="session")
def first(local_platform):
    return local_platform.caller()


@pytest.fixture(scope="session")
def second(local_platform):
    return local_platform.caller("IVCAP_JWT_2")


@pytest.fixture(scope="session")
def ada(local_platform):
    """The first user of Provena, who is linked to a person."""
    return local_platform.user()


@pytest.fixture(scope="session")
def ben(local_platform):
    """The second user of Provena."""
    return local_platform.user("PROVENA_OFFLINE_TOKEN_2")


@pytest.fixture(scope="session")
def admin(local_platform):
    """The account of Provena with every role, linked to no person. It gets its token by the device grant."""
    client, base = {"client_id": "admin-tools"}, f"{local_platform.realm}/protocol/openid-connect"
    code = local_platform.http.post(f"{base}/auth/device", data=client).json()
    answer = {"user_code": code["user_code"], "account": "embedded-admin", "answer": "allow"}
    local_platform.http.post(code["verification_uri"], data=answer).raise_for_status()
    poll = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": code["device_code"]}
    refresh = local_platform.http.post(f"{base}/token", data=client | poll).json()["refresh_token"]
    return User(local_platform, "admin-tools", refresh)


@pytest.fixture(scope="session")
def record(ada):
    """A valid ModelRunRecord."""
    return ada.world()


SERVICES = """
def shows(request, job):
    return request

def produces(request, job):
    job.log("said by the service")
    one = job.add_product("one.txt", request["text"].encode(), "text/plain")
    job.add_product("empty.bin", b"")
    return {"one": one, "again": job.read_artifact(one).decode()}

def many(request, job):
    for n in range(request["count"]):
        job.add_product(f"p{n}", b"x")
    return {}

def reads(request, job):
    return {"size": len(job.read_artifact(request["a"]))}

def breaks(request, job):
    raise ValueError("it broke")

def text(request, job):
    return "plain"

def raw(request, job):
    return b"\\x00\\xff"

def redirects(request, job):
    policy = "urn:ivcap:policy:ivcap.open.metadata"
    return {"$schema": "urn:t:schema:cached.1", "$id": "urn:t:cache", "$policy": policy, "value": 7}

def tells(request, job):
    job.event("one", step=1)
    job.event("two", step=2)
    return {}

def says(request, job):
    job.add_product(request["text"], b"x", request["text"][:200])
    job.event(request["text"])
    job.log(request["text"])
    return {"$schema": "urn:t:" + request["text"], "$id": "urn:t:" + request["text"], "$policy": request["text"]}

def speaks(request, job):
    return job.keep(None, b"x", request["text"], is_result=True) and None

def nests(request, job):
    value = None
    for _ in range(request["depth"]):
        value = [value]
    return value

def sees(request, job):
    import os
    return [name for name, value in os.environ.items() if "s3cret-" in value]
"""


@pytest.fixture(scope="session")
def service_folder(tmp_path_factory):
    """A project with the services above."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "setup.cfg").write_text("")
    (folder / "local_services_of_tests.py").write_text(SERVICES)
    return folder


@pytest.fixture
def register_service(local_platform, service_folder):
    """Register a service above under its own name."""

    def make(name, *parameters, module="local_services_of_tests", home=local_platform):
        definition = {"name": name, "entry": f"{module}:{name}", "parameters": list(parameters)}
        return home.register(definition, service_folder)

    return make


@pytest.fixture
def command_of(tmp_path):
    """Register a program, given as text, as a service of a home."""

    def make(home, name, program, *parameters):
        (tmp_path / f"{name}.py").write_text(program)
        command = [sys.executable, str(tmp_path / f"{name}.py")]
        return home.register({"name": name, "command": command, "parameters": list(parameters)}, tmp_path)

    return make
