"""What is a secret, and what only looks like one."""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
import timeit
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from ivcap_flows import handles
from ivcap_flows.identity import digest
from ivcap_flows.secrets import (
    HIDDEN,
    hide,
    hide_within,
    holds_secret,
    is_secret_name,
    logger_of,
    scrub,
    scrub_alone,
    scrub_arguments,
    scrub_text,
    scrubbing,
)
from ivcap_flows.secrets.forms import SecretForms

TOKENS = {
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlLW9mLWFkYQ",
    "GitHub": "ghp_" + "aB3d" * 9,
    "GitHub, fine-grained": "github_pat_" + "11ABCDEFG0" * 4,
    "GitLab": "glpat-" + "xY7z_-" * 4,
    "AWS": "AKIA" + "Q3EXAMPLE7Z2K4M5",
    "Azure": "aB3+" * 21 + "xy==",
    "GCP": "AIza" + "Sy4-_" * 7,
    "GCP, access": "ya29." + "a0Af_B" * 5,
    "Slack": "xoxb-123456789012-abcdefABCDEF",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----",
    "private key in JSON": "-----BEGIN PRIVATE KEY-----\\nMIIEow\\n-----END PRIVATE KEY-----",
    "PyPI": "pypi-A" + "gEIcHlwaS5vcmc" * 6,
    "npm": "npm_" + "aB3d" * 9,
    "Stripe": "sk_live_" + "aB3d" * 6,
    "SendGrid": "SG." + "a" * 22 + "." + "b" * 43,
    "Anthropic": "sk-ant-" + "api03-aB3d" * 3,
    "Hugging Face": "hf_" + "aB" * 17,
    "Prefect": "pnu_" + "aB3d" * 9,
}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--password", "hunter2secret", "--count", "3"], ["--password", HIDDEN, "--count", "3"]),
        (["--api-key=abcdefgh", "in.csv"], [f"--api-key={HIDDEN}", "in.csv"]),
        (["--token", "--verbose", "x"], ["--token", "--verbose", "x"]),
        (["-v", "password", "x"], ["-v", "password", "x"]),
        (["--url=https://me:hunter2@host/x"], [f"--url=https://{HIDDEN}@host/x"]),
        (["--password", "hunter2!", "--note", "it is hunter2!"], ["--password", HIDDEN, "--note", f"it is {HIDDEN}"]),
    ],
)
def test_a_command_line_shows_no_secret(given, shown):
    """What follows an option of a secret name is one, whatever it looks like."""
    assert scrub_arguments(given) == shown


COMMANDS = {
    "curl -u": ["curl", "-u", "ada:*", "https://h/x"],
    "curl -u attached": ["/usr/bin/curl", "-uada:*"],
    "curl --user=": ["curl", "--user=ada:*", "https://h/x"],
    "curl --proxy-user": ["curl", "--proxy-user", "ada:*"],
    "curl -H": ["curl", "-H", "Authorization: Bearer *"],
    "mysql": ["mysql", "-u", "root", "-p*", "db"],
    "mysqldump by ssh": ["ssh", "host", "mysqldump", "-p*"],
    "mariadb-dump": ["mariadb-dump", "-p*"],
    "sshpass": ["sshpass", "-p", "*", "ssh", "host"],
    "sshpass attached": ["sshpass", "-p*", "ssh", "host"],
    "mongosh": ["mongosh", "-u", "ada", "-p", "*"],
    "docker login": ["docker", "login", "-u", "ada", "-p", "*", "example.org"],
    "redis-cli": ["redis-cli", "-h", "db", "-a", "*"],
    "ldapsearch": ["ldapsearch", "-D", "cn=ada", "-w", "*"],
    "unzip": ["unzip", "-P", "*", "a.zip"],
    "7z": ["7z", "x", "-p*", "a.7z"],
    "--password": ["psql", "--password", "*"],
    "--password=": ["psql", "--password=*", "-q"],
    "env": ["env", "PGPASSWORD=*", "psql"],
}


def forms_of(words):
    """Return a command as a list, as values that hold the list, and as the texts in which it is told."""
    line = shlex.join(words)
    return [
        words,
        {"run": {"args": tuple(words)}, "count": 2},
        [["ls", "-l"], words],
        ["bash", "-c", line],
        line,
        str(subprocess.CalledProcessError(1, words)),
        repr(tuple(words)),
        json.dumps(words),
        json.dumps(words, separators=(",", ":")),
        json.dumps({"body": json.dumps(words)}),
    ]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_is_hidden_alike_in_every_form(command, monkeypatch):
    """As a list, in a mapping, a tuple or another list; as a line of a shell, an error, `repr` or JSON; and from then
    on wherever it stands."""
    for form in forms_of([word.replace("*", "Zx81kq-0123456") for word in command]):
        monkeypatch.setattr(scrubbing, "_known", scrubbing._Known())
        shown = json.dumps(scrub(form))
        assert "Zx81kq" not in shown and HIDDEN in shown, form
        assert scrub_text("it is Zx81kq-0123456.") == f"it is {HIDDEN}."
    assert scrub([word.replace("*", "Zx81kq-0123456") for word in command]) == [
        word.replace("*", HIDDEN) for word in command
    ]


@pytest.mark.catches("lists are no commands")
def test_an_argument_in_a_list_is_hidden_to_its_end():
    """Whatever it holds, since the list says where it ends; a number, too."""
    assert scrub(["curl", "-u", "me:a b'c\"d", "h"]) == ["curl", "-u", f"me:{HIDDEN}", "h"]
    assert scrub(["psql", "--password=a b,c=d", "h"]) == ["psql", f"--password={HIDDEN}", "h"]
    assert scrub(["psql", "--password", 12345, 6]) == ["psql", "--password", HIDDEN, 6]
    assert scrub(["a\0b", "--password", "5ecret-1"]) == ["a\0b", "--password", HIDDEN]


@pytest.mark.parametrize(
    "words",
    [
        ["mysql", "-u", "root", "-p", "database"],
        ["docker", "run", "--name", "mongo", "-p", "27017:27017", "-p", "8080:80/tcp"],
        ["git", "push", "-u", "origin", "a:b"],
        ["docker", "run", "-u", "1000:1000", "-p", "80:80", "image"],
        ["ssh", "-p", "2222", "host"],
        ["the password", "of", "the user", "is needed"],
        ["token", "count 2", 3, None, {"a": [1.5]}],
        [],
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_ordinary_arguments_are_shown(words):
    """Ports, users and names are no passwords, as a list or as a line."""
    assert scrub(words) == words
    assert scrub_text(" ".join(map(str, words))) == " ".join(map(str, words))


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_a_token_is_known_by_its_shape(token):
    """Alone and in a text, whatever its name; and from then on it is known."""
    assert scrub_text(token) == HIDDEN
    assert scrub_text(f"it said '{token}', then left") == f"it said '{HIDDEN}', then left"
    assert token not in scrub_text(f"%20{token} and \\n{token}")
    assert holds_secret(f"x = {token!r}") and token not in str(scrub({"n": [{"deep": (token,)}]}))


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("host=db user=ada password=Zx81&k,q dbname=x", "Zx81&k,q"),
        ("host=db password='with a space 1'", "with a space 1"),
        ("Driver={ODBC};Server=s;PWD=Zx81kq;", "Zx81kq"),
        ("AccountName=a;AccountKey=Zx81kq==;EndpointSuffix=x", "Zx81kq=="),
        ("postgresql://ada:p@ss@w0rd@db:5432/x", "p@ss@w0rd"),
        ("redis://:Zx81kq@cache", "Zx81kq"),
        ("Settings(user='ada', password='Zx81kq')", "Zx81kq"),
        ('{"api_key": "Zx81kq", "n": 1}', "Zx81kq"),
        ("Command '['psql', '--password', 'Zx81kq']' returned non-zero exit status 1.", "Zx81kq"),
        ("psql --password Zx81kq --quiet", "Zx81kq"),
        ("PGPASSWORD=Zx81kq psql", "Zx81kq"),
        ("Authorization: Bearer abc.def-0123456", "abc.def-0123456"),
        ("Authorization: Basic YWRhOlp4ODFrcQ==", "YWRhOlp4ODFrcQ=="),
        ("x-api-key: Zx81kq", "Zx81kq"),
        ("{'password': b'Zx81kq'}", "Zx81kq"),
        ("login(password=b'Zx81kq')", "Zx81kq"),
        ("if password == 'Zx81kq':", "Zx81kq"),
        ('os.environ["X_TOKEN"] = "Zx81kq"', "Zx81kq"),
        ('DB_PASSWORD: str | None = "Zx81kq"', "Zx81kq"),
        ('password = SecretStr("Zx81kq")', "Zx81kq"),
        ('password = """Zx81kq"""', "Zx81kq"),
        ('password <- "Zx81kq"', "Zx81kq"),
        ('setenv("PGPASSWORD", "Zx81kq")', "Zx81kq"),
        ("[(b'X-Api-Key', b'Zx81kq'), (b'a', b'b')]", "Zx81kq"),
        ('{"body": "{\\"password\\": \\"Zx81kq\\"}"}', "Zx81kq"),
        ("'line\\napi_key=Zx81kq'", "Zx81kq"),
        ('{"password": "Zx81kq and the rest was cut', "Zx81kq and the rest was cut"),
        ("wrong password 'Zx81kq'", "Zx81kq"),
        ("in line 3: api_key: Zx81kq", "Zx81kq"),
        ("<password>Zx81kq</password>", "Zx81kq"),
        ('<add key="Password" value="Zx81kq"/>', "Zx81kq"),
        ('[{"name": "DB_PASSWORD", "value": "Zx81kq"}]', "Zx81kq"),
        ("author='password=Zx81kq'", "Zx81kq"),
        ("Login\npassword\n  Input should be an integer [type=int, input_value='Zx81kq', input_type=str]", "Zx81kq"),
        ("Cookie: theme=dark; sid=Zx81kq", "theme=dark; sid=Zx81kq"),
        ("curl -u ada:Zx81kq https://h/x", "Zx81kq"),
        ("postgresql://ada:Zx/81kq@db:5432/x", "Zx/81kq"),
        ("https://Zx81kq0123456789abcdef@example.org/x.git", "Zx81kq0123456789abcdef"),
        ("SMTP_PASS=Zx81kq", "Zx81kq"),
        ("Authorization=Bearer%20Zx81kq0123456", "Zx81kq0123456"),
    ],
)
def test_what_a_secret_name_is_given_in_a_text_is_hidden(text, secret):
    """In connection strings, URLs, `repr`s, JSON, headers and command lines; and wherever it is said again."""
    shown = scrub({"dsn": text, "cause": f"no access with <{secret}>"})
    assert secret not in shown["dsn"] and HIDDEN in shown["dsn"]
    assert shown["cause"] == f"no access with <{HIDDEN}>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("The request failed (token=s3cr3tvalue), try again.", "The request failed (token=*), try again."),
        ("password=s3cr3tvalue,user=bob,host=db", "password=*,user=bob,host=db"),
        ("Set api_key=s3cr3tvalue: it must be a number.", "Set api_key=*: it must be a number."),
        ("Authorization: s3cr3tvalue; see the docs", "Authorization: *; see the docs"),
        ("x(token=s3cr3tvalue).", "x(token=*)."),
        ("Give it as --token s3cr3tvalue, then go on.", "Give it as --token *, then go on."),
        (f"The token {TOKENS['JWT']}. Then the rest.", "The token *. Then the rest."),
        ("https://h/x?sv=1&sig=abc%2Fdef&se=2", "https://h/x?sv=1&sig=*&se=2"),
        ("https://h/x?X-Amz-Date=1&X-Amz-Signature=0123abc", "https://h/x?X-Amz-Date=1&X-Amz-Signature=*"),
        ("see https://h/x?token=abc, or not", "see https://h/x?token=* or not"),
    ],
)
def test_the_words_around_a_secret_are_left_standing(text, shown):
    """Neither the punctuation of the sentence around it nor the next name is taken for a part of it. The signature of a
    URL is a secret: it lets whoever has it in."""
    assert scrub_text(text) == shown.replace("*", HIDDEN)


def test_what_is_hidden_once_is_hidden_everywhere():
    """By name or type: in the same value, in later ones, and as a URL, JSON or `repr` writes it."""

    class Login(BaseModel):
        user: str = "ada"
        password: SecretStr = SecretStr("kein Wört/1")

    assert scrub({"note": "it is 5ecret-1", "inner": {"password": "5ecret-1"}}) == {
        "note": f"it is {HIDDEN}",
        "inner": {"password": HIDDEN},
    }
    assert scrub_text("5ecret-1 again") == f"{HIDDEN} again"
    hide_within([]), hide_within(Login())
    for form in ("kein Wört/1", "kein%20W%C3%B6rt%2F1", "kein+W%C3%B6rt%2F1", "kein W\\u00f6rt/1"):
        assert scrub_text(f"({form})") == f"({HIDDEN})"


ORDINARY = [
    "the password is needed",
    "Invalid password: too short",
    "the token has expired: get another",
    "option --token requires a value",
    "Basic authentication is used",
    "bearer of good tidings, and the basic understanding of it",
    "password=None, token=True",
    "key=k1:0123456789abcdef",
    "urn:ivcap:secret:0b1c",
    "urn:ivcap-flows:key:0123",
    "task-run 0b1c-sk-el",
    "the design of a significant monkey",
    "https://h:8080/x?to=ada@example.org",
    "https://ada@example.org/x",
    "http://[::1]/a/b@c",
    "('user', 'password', 'host')",
    "the author of the file is 'Zx81kq'",
    'password = getpass("Give the word")',
    "/data/tokens/keys/file.csv",
    "sha512-" + "aB3+" * 21 + "xy==",
    "https://h/x?page=3&limit=10",
    "a ? b=token : c",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_words_are_shown(text):
    """Prose about passwords, file names and names of things are no secrets."""
    assert scrub_text(text) == text and not holds_secret(text)


@given(
    st.recursive(
        st.integers()
        | st.floats(allow_nan=False)
        | st.uuids().map(str)
        | st.uuids().map("urn:ivcap:artifact:{}".format)
        | st.binary(min_size=32, max_size=32).map(bytes.hex)
        | st.binary(min_size=20, max_size=20).map(bytes.hex)
        | st.datetimes().map(str)
        | st.integers().map(str)
        | st.sampled_from(["password", "token", "secret", "the key of the house", "ended", "completed"]),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["n", "path", "sha256", "id", "name"]), inner),
        max_leaves=8,
    )
)
def test_numbers_digests_urns_and_words_are_never_hidden(value):
    """Also after a word or number was given as a password: it is hidden at its place alone."""
    for ordinary in ("password", "completed", "house", "12345678", "urn:ivcap:artifact:1"):
        scrub({"password": ordinary})
    assert scrub(value) == value


@pytest.mark.parametrize(
    "text",
    [
        "password =" + " " * 20_000 + "\n",
        "password = '" + "\\a" * 20_000 + "\n",
        "password" + "-password" * 3_000,
        "password --password " + "\\" * 20_000,
        "mysql " * 3_000,
    ],
    ids=["spaces", "backslashes", "names", "options", "commands"],
)
def test_a_text_that_nearly_holds_a_secret_comes_to_an_end(text):
    """It has many places at which a pattern begins to match."""
    assert scrub_text(text) == text


def test_flags_and_ordinary_words_are_hidden_at_their_place_only():
    """`auth="none"` says nothing of the word elsewhere. A short word that the user hides stands in others."""
    given = {"auth": "none", "password": True, "token": None, "note": "none of it"}
    assert scrub(given) == given | {"auth": HIDDEN}
    hide("rose")
    assert scrub_text("rose, roses and prose") == f"{HIDDEN}, roses and prose"
    hide("abc")
    assert scrub_text("abc") == "abc"


@pytest.mark.catches("any two texts are a header")
def test_a_header_in_a_list_is_hidden_and_two_texts_are_none():
    """It is a name and its value, as is an entry with these fields."""
    assert scrub(["user=ada password=Zx81ks", "out-1.csv"]) == [f"user=ada password={HIDDEN}", "out-1.csv"]
    entry, other = {"name": "db_password", "value": "Zx81kq"}, {"name": "n", "value": "Zx81kr"}
    assert scrub([entry, other]) == [{**entry, "value": HIDDEN}, other]
    headers = [["X-Api-Key", "Zx81kq"], ["Accept", "*/*"], ["password", "email"]]
    assert scrub(headers) == [["X-Api-Key", HIDDEN], ["Accept", "*/*"], ["password", "email"]]


def pass_through(count: int) -> list[str]:
    """Hide a secret in each of the ways, then let many other values pass. Return what is said of them at last."""

    class Login(BaseModel):
        tokens: list[SecretStr]

    hide("first-1")
    hide_within(Login(tokens=[SecretStr("second-2")]))
    scrub({"password": "third-3"})
    for n in range(count):
        scrub({"url": f"https://h/{n}?X-Amz-Signature=f{n:063x}&sig=ab{n}%2F", "next_token": f"page-{n}-{n:x}"})
        scrub_text(f"eyJhbGciOiJIUzI1NiJ9.eyJ{n:08}.c2ln{n:08}")
    scrub({"password": "fourth-4"})
    return [scrub_text(secret) for secret in ("first-1", "second-2", "third-3", "fourth-4", "page-0-0")]


@pytest.mark.catches("secrets are forgotten")
def test_what_was_hidden_is_never_forgotten():
    """However many signed addresses, cursors and tokens pass; and they are hidden, too, where they stand."""
    assert set(pass_through(1_100)) == {HIDDEN}
    late = f"{uuid.uuid4()}-late"
    assert scrub({"next_token": late, "note": f"about {late}"}) == {"next_token": HIDDEN, "note": f"about {HIDDEN}"}


@pytest.mark.catches("signatures are remembered")
def test_what_is_remembered_is_bounded():
    """Signatures and tokens of a known shape are not remembered, and of each name only the first values are."""
    pass_through(scrubbing.OF_A_NAME + 100)
    assert len(scrubbing._known._secrets) == 4 + scrubbing.OF_A_NAME


def test_what_identity_is_made_of_depends_on_the_value_alone():
    """Not on what the process has met before, or the same would be another in the next process."""
    value = {"note": "about 5ecret-2", "dsn": "password=other-1", "text": "other-1"}
    before = scrub_alone(value)
    hide("5ecret-2")
    assert scrub_alone(value) == before == {"note": "about 5ecret-2", "dsn": f"password={HIDDEN}", "text": HIDDEN}
    assert scrub(value)["note"] == f"about {HIDDEN}"


@pytest.mark.catches("masks are masked again")
def test_what_is_redacted_twice_is_the_same():
    """So a request that was redacted twice on its way is found by one that was redacted once."""

    def mask(secret: str) -> str:
        return f"{HIDDEN}:{digest(secret.encode())[:32]}"

    for value in (
        {"credentials": "prod-2", "note": "of prod-2"},
        {"credentials": {"token": "5ecret-4"}, "password": ["5ecret-5", 1]},
        ["--password", "5ecret-6", "password=5ecret-7"],
        ["X-Api-Key", "5ecret-8"],
        "postgresql://ada:5ecret-9@db/x",
    ):
        once = scrub_alone(value, mask)
        assert once != value and scrub_alone(once, mask) == once


@given(
    st.lists(st.text("ab1-", min_size=1, max_size=12), max_size=8),
    st.text("ab1-", max_size=40),
    st.integers(0, 40),
)
def test_every_known_secret_is_found_in_a_text(secrets, around, place):
    """Wherever it begins, alone or in others."""
    forms = SecretForms(secrets)
    long_enough = {secret for secret in secrets if len(secret) >= 4}
    for text in (around, *(around[:place] + secret + around[place:] for secret in secrets)):
        assert set(forms.found_in(text)) == {secret for secret in long_enough if secret in text}


def test_a_search_for_thousands_of_secrets_takes_the_time_of_a_search_for_one():
    """Also if they begin alike."""
    text = " ".join(str(uuid.uuid4()) for _ in range(50))
    one, many = SecretForms(["token-0123456789"]), SecretForms(f"token-{uuid.uuid4().hex}" for _ in range(5_000))
    seconds = [min(timeit.repeat(lambda: forms.found_in(text), number=5, repeat=9)) for forms in (one, many)]  # noqa: B023
    assert seconds[1] < 10 * seconds[0]


def test_names_of_secrets():
    """By the words in a name, however they are joined. No field of a handle is one: what is kept of an outcome must be
    a handle again."""
    secret = (
        "api_key userPassword PGPASSWORD X-Api-Key accountKey access_token client-secret db_pass authToken mypasswd"
    )
    for name in (*secret.split(), "contraseña", "jwt"):
        assert is_secret_name(name), name
    harmless = "token_count secret_name key keys monkey author password_file max_tokens primary_key result_storage_key"
    models = [each for each in vars(handles).values() if isinstance(each, type) and issubclass(each, BaseModel)]
    assert len(models) > 10
    fields = [name for model in models for name in model.model_fields]
    for name in (*harmless.split(), "secretary", "passes", "compass", "n", "", *fields):
        assert not is_secret_name(name), name


def test_the_packages_loggers_say_no_secret(caplog):
    """Neither in a message nor in the traceback of an error, whoever listens."""
    hide("5ecret-3")
    log = logger_of(f"ivcap_flows.test.{uuid.uuid4().hex}")
    with caplog.at_level(logging.INFO):
        try:
            raise ValueError("no 5ecret-3")
        except ValueError:
            log.warning("with %s: %d", "5ecret-3", 7, exc_info=True)
    assert caplog.messages == [f"with {HIDDEN}: 7"]
    assert "5ecret-3" not in caplog.text and f"ValueError: no {HIDDEN}" in caplog.text
