"""Which files stay because they hold a secret, and which leave: source, notebooks, configuration."""

from __future__ import annotations

import codecs
import json

import pytest

from ivcap_flows.secrets import hide, place_of_secret


def notebook(source: str, output: object = "", kind: str = "code") -> str:
    lines = [*source.splitlines(keepends=True)]
    cell = {"cell_type": kind, "source": lines, "outputs": [{"text": output}]}
    return json.dumps({"cells": [{"cell_type": "markdown", "source": ["Hello"]}, cell], "metadata": {}}, indent=1)


SECRET = {
    "a.py": [
        'os.environ["X_TOKEN"] = "opensesame"',
        'api_key = "open-sesame"',
        'DATABASES = {"default": {"PASSWORD": "hunter2"}}',
        'requests.get(url, auth=("ada", "hunter2"))',
        'os.environ.update(X_TOKEN="a1b2c3d4")',
        'DB_PASSWORD = "hunter2"',
        "password = 'swordfish'",
        'url = "postgresql://u:pw12@h/db"',
        'os.environ["X_TOKEN"] = "q7Zx81kqAA"',
        'x = {"password": "hunter2", "n": 1}',
        'connect(password="hunter2")',
        'def f(password="hunter2"): pass',
        'def f(*, token="q7Zx81kqAA"): pass',
        'password: str = "hunter2"',
        'self.password = "hunter2"',
        'password = b"hunter2"',
        'password = """hunter2"""',
        'PW = SecretStr("hunter2")',
        'password = os.environ.get("DB_PASSWORD", "hunter2")',
        'os.environ.setdefault("PGPASSWORD", "hunter2")',
        'if password == "hunter2": pass',
        'user, password = "ada", "hunter2"',
        'password = os.getenv("X") or "hunter2"',
        'run(["psql", "--password", "hunter2"])',
        'run("psql --password hunter2 -q")',
        'run(["mysql", "-phunter2", "db"])',
        'run(["curl", "-u", "ada:hunter2", url])',
        'run(("sshpass", "-p", "hunter2", *rest))',
        'run(["psql", "--password=" + "hunter2"])',
        '# password = "hunter2"',
        "# DB_PASSWORD=hunter2",
        'dsn = "host=db user=ada password=hunter2"',
        'def password():\n    return "hunter2"',
        'password = Field(default="hunter2")',
        'password: str = Field("hunter2")',
        "x = 1  # token: ghp_aB3daB3daB3daB3daB3daB3daB3daB3daB3d",
        'password = "hunter2".encode()',
        'headers = {"Authorization": "Bearer q7Zx81kqAAabc"}',
        'headers = {"X-Api-Key": "q7Zx81kqAA"}',
        'auth = ("ada", "hunter2")',
        '"""\nUse password=hunter2 for the test.\n"""',
        'key = """-----BEGIN PRIVATE KEY-----\nMIIE\n"""',
        'u = "https://h/x?X-Amz-Signature=q7Zx81kqAA"',
        'password = (\n    "hunter2"\n)',
        'password = f"hunter2{n}"',
        'client_secret = "abc-d3f-ghi"',
        'password = "12345678"',
        'password=\\\n "hunter2"',
        'secrets = {"db": "hunter2"}',
        'SECRET_KEY = "django-insecure-q7Zx81kqAA"',
        "api_key='a1b2c3d4'\n",
        'def broken(:\n password = "hunter2"',
        'print "x"\npassword = "hunter2"',
        'lambda password="hunter2": 1',
        'with x(password="hunter2"): pass',
        'a = password = "hunter2"',
        '(token := "a1b2c3d4e5")',
        'password += "hunter2"',
    ],
    "a.yaml": [
        "password: hunter2",
        "db:\n  password: hunter2\n",
        'password: "hunter2"',
        "- password: hunter2 # c",
        "{user: ada, password: hunter2}",
        "password: |\n  hunter2\n",
        "url: postgresql://u:hunter2@h/x",
        "password: swordfish",
        "api_key: a1b2c3d4e5",
        "password: 12345678",
        "'password': 'hunter2'",
        "env:\n- name: DB_PASSWORD\n  value: hunter2\n",
    ],
    "a.toml": [
        'password = "hunter2"',
        "[db]\npassword = 'hunter2'",
    ],
    "a.json": [
        '{"password": "hunter2"}',
        '{"name": "DB_PASSWORD", "value": "hunter2"}',
        '{\n"password":\n  "hunter2"}',
        '{"a":{"clientSecret":"a1b2c3"}}',
    ],
    ".env": [
        "DB_PASSWORD=hunter2",
        "export X_TOKEN=q7Zx81kqAA",
        "PGPASSWORD='hunter2'",
    ],
    "a.ini": [
        "password = hunter2",
        "[x]\ntoken=q7Zx81kqAA",
    ],
    "a.sh": [
        "export PASSWORD=hunter2",
        "curl -u ada:hunter2 https://h",
        "psql --password hunter2",
    ],
    "a.R": [
        'password <- "hunter2"',
    ],
    "a.jl": [
        'password = "hunter2"',
    ],
    "a.xml": [
        "<password>hunter2</password>",
    ],
    ".netrc": [
        "machine h login u password p",
    ],
    "a.txt": [
        "Server=s;PWD=Zx81kq;",
        "AccountName=a;AccountKey=Zx81kq==;EndpointSuffix=x",
    ],
    "a.ipynb": [
        notebook("password = 'hunter2'"),
        notebook('db = connect(password="hunter2")\nx = 1'),
        notebook("x = 1", ["password: hunter2\n"]),
        notebook("x = 1", {"application/json": {"password": "hunter2"}}),
        notebook("%env DB_PASSWORD=hunter2\nx = 1"),
        notebook("%%bash\nexport X_TOKEN=q7Zx81kqAA"),
        notebook("Log in with password=hunter2", kind="markdown"),
        "{a broken notebook: password=hunter2",
    ],
}
HARMLESS = {
    "a.py": [
        'pad_token = "[PAD]"',
        '"""Log in.\n\nArgs:\n    password: `None` for no login.\n    secrets: `name=value` for each.\n"""',
        'bos_token = "<s>"',
        'HELP = {"access_token": "Where to find it"}',
        'password = os.environ["PASSWORD"]',
        "token = get_token()",
        "password: str",
        "api_key=None",
        'TOKEN_URL = "https://h/token"',
        '"""Set the password first: it is a secret."""',
        "f(password=password)",
        'password = getpass("Password: ")',
        'password = ""',
        'token = os.environ.get("TOKEN", "")',
        "api_key = settings.api_key",
        'password = "<your password>"',
        'password = "..."',
        'PASSWORD = "password"',
        'PASSWORD_ENV = "DB_PASSWORD"',
        'token = Secret.load("db-password").get()',
        'credentials = IvcapCredentials.load("prod-2")',
        'ivcap_credentials = "prod-2"',
        'names = ["user", "password", "hostname"]',
        'TOKEN_KIND = "bearer"',
        'auth = "basic"',
        'HELP = {"password": "The password of the database."}',
        'parser.add_argument("--password", help="the password")',
        'token = f"Bearer {x}"',
        'headers = {"Authorization": f"Bearer {token}"}',
        'url = f"postgresql://{user}:{password}@{host}/db"',
        'url = "postgresql://user:password@host/db"',
        '"password={}".format(pw)',
        '"password=%s" % pw',
        'token == "word"',
        'if token in ("a1b2c3d4", "b"): pass',
        'password = SecretStr(os.environ["X"])',
        "class A:\n    password: SecretStr",
        "token_count = 512",
        "# token: the user's\n# password = None\n# see token = get_token()",
        'secret_name = "db-2"',
        'max_tokens = "1024x"',
        'password_file = "/run/secrets/db"',
        'private_key = "/home/u/.ssh/id_rsa"',
        'print("no password given: set PASSWORD")',
        'raise ValueError(f"bad token {token!r}")',
        "def get_token() -> str:\n    return client.token()",
        'df["token"] = df["text"].str.split()',
        'tokens = text.split("; ")',
        'password = input("Password for ada: ")',
        "cookie = None",
        'x = {"token": token, "api_key": key}',
        "from secrets import token_hex",
        'api_key = "YOUR_API_KEY"',
        'api_key = "your-api-key"',
        'login(token="$TOKEN")',
        'author = "Ada Lovelace 1815"',
        'key = "a1b2c3d4e5"',
        "p.password = None",
        'logger.info("token %s", n)',
        'assert "password" in text',
        '"""\n    ivcap-flows login --token TOKEN\n    export IVCAP_JWT=eyJ...\n"""',
        'secret = secrets["db"]',
        'monkeypatch.delenv("TOKEN")',
        'token = json.loads(text)["token"]',
        'pattern = r"(?P<token>[a-z0-9]+)"',
        'x = {"auth": {"type": "oauth2"}}',
        'keywords = {"password": str, "token": int}',
        "password = None if x else pw",
        'os.environ.pop("TOKEN", None)',
        "# sha256:abababababababababababababababababababababababababababababababab",
    ],
    "a.yaml": [
        "password: ${DB_PASSWORD}",
        "password: {{ db_password }}",
        "token: $TOKEN",
        "password: !vault x",
        "token: required",
        "password: string",
        "properties:\n  password:\n    type: string\n",
        "tokenizer: bert-2",
        "secretName: db",
        "password: ''",
        "passwordSecretRef: db",
        "author: ada2",
        "credentials: prod-2",
        "password: null",
        "secret: my-secret",
        "api_key: <key>",
        "password_file: /run/x1",
    ],
    "a.json": [
        '{"password": null}',
        '{"password": ""}',
        '{"token_count": 5}',
        '{"password": {"type": "string"}}',
        '{"token": 512}',
        '{"properties": {"api_key": {"description": "The API key of the service"}}}',
    ],
    ".env": [
        "DB_PASSWORD=",
        "DB_PASSWORD=\nUSER_NAME=ada1",
        "TOKEN=$OTHER",
        "TOKEN_URL=https://x/token",
        "# set PASSWORD first",
    ],
    "a.sh": [
        'PASSWORD="$1"',
        "TOKEN=$(cat /run/token)",
        'curl -H "Authorization: Bearer $TOKEN" https://h',
        'curl -u "$USER:$PASS" https://h',
        "read -s PASSWORD",
        ': "${TOKEN:?}"',
    ],
    "a.R": [
        'password <- Sys.getenv("PASSWORD")',
    ],
    "a.jl": [
        'token = ENV["TOKEN"]',
    ],
    "a.js": [
        "const token = `${process.env.TOKEN}`;",
        "const token = process.env.TOKEN;",
        "password: config.password,",
        "const t = await getToken();",
    ],
    "a.csv": [
        "time,level\n1,2\n",
        "token,count\nthe,3\nword,4\n",
    ],
    "README.md": [
        "# Passwords\n\nInvalid password: too short\nSet `PASSWORD` to your password.\n",
        "- token: the token of the service\n",
    ],
    "a.log": [
        "2026-07-01 12:00 token expired",
        "Authorization: none",
    ],
    "a.ipynb": [
        notebook("token = get_token()\n%pip install x\n!ls"),
        notebook('password = os.environ["P"]', {"image/png": "iVBORw0KGgoAAAANSUhEUgAA1//aaaa=="}),
        notebook("# Passwords\nInvalid password: too short", kind="markdown"),
    ],
}


def places(table: dict[str, list[str]]) -> list[tuple[str, str, str | None]]:
    return [(name, text, place_of_secret(text.encode(), name)) for name, texts in table.items() for text in texts]


def test_a_file_with_a_secret_is_found():
    """A literal that a secret name is given, a password in an address, a token, a login: wherever it stands."""
    assert [(name, text) for name, text, place in places(SECRET) if place is None] == []


def test_a_file_without_one_leaves():
    """What is read, computed, a placeholder, a name or prose is no secret."""
    assert [each for each in places(HARMLESS) if each[2] is not None] == []


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("a.py", "x = 1\n\nlogin(\n    password='hunter2',\n)", "line 4"),
        ("a.yaml", "host: db\npassword: hunter2\n", "line 2"),
        ("a.csv", "n\n1\nglpat-" + "xY7z_-" * 4, "line 3"),
        ("a.ipynb", notebook("password = 'hunter2'"), "cell 2"),
        (".cdsapirc", "url: https://h\nkey: 1234\n", "all of it"),
    ],
)
def test_the_place_is_named(name, text, place):
    """By which the user finds it."""
    assert place_of_secret(text.encode(), name) == place


def test_a_known_secret_is_found_in_any_file():
    """Whatever it is assigned to, in any encoding of text, and in binary files."""
    hide("8 Zeichen/1")
    for content in (b"x = '8 Zeichen/1'", b"\0\1\2 8 Zeichen/1 \0", b"see 8%20Zeichen%2F1"):
        assert place_of_secret(content, "a.bin") is not None
    assert place_of_secret(codecs.BOM_UTF16_LE + "password=hunter2".encode("utf-16-le"), "a.txt") == "line 1"


def test_a_file_that_cannot_be_read_to_its_end_stays():
    """It is nested more deeply than Python reads."""
    assert place_of_secret(("password = " + "'a' + " * 3_000 + "'a'").encode(), "a.py") is not None
    assert place_of_secret((b"[" * 100_000), "a.ipynb") is not None
