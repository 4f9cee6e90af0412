"""The package as a user gets it: the wheel, without constraints, in an empty environment."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(420)]

OURS = ("PIP_CONSTRAINT", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
UNPINNED = {name: value for name, value in os.environ.items() if name not in OURS}


def run(command: list[str], **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder)], env=UNPINNED)
    (made,) = folder.glob("*.whl")
    return made


def install(wheel: Path, environment: Path, *options: str) -> Path:
    """Make an environment with the wheel; the value is its `bin`."""
    venv.create(environment)
    # Most of what is installed is never imported here, so nothing is compiled before it is.
    pip = [sys.executable, "-m", "pip", "--python", str(environment)]
    run([*pip, "install", "--quiet", "--no-compile", *options, str(wheel)], env=UNPINNED)
    return environment / "bin"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with nothing but the wheel and what it asks for."""
    return install(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has set nothing; state stays in the test's folder."""
    ours = {name: value for name, value in UNPINNED.items() if not name.startswith(("IVCAP", "PROVENA", "PREFECT"))}
    return {
        **ours,
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
    }


@pytest.mark.long
def test_the_wheel_has_all_of_the_package(wheel, home, tmp_path):
    """Beside the dependencies of this environment it works, and does so from where it is installed."""
    there = install(wheel, tmp_path / "environment", "--no-deps")
    (packages,) = (tmp_path / "environment").glob("lib/python*/site-packages")
    # By this file the dependencies are found, and the checkout, which another such file names, is not.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    code = run([str(there / "python"), "-c", "import ivcap_flows; print(ivcap_flows.__file__)"], cwd=tmp_path, env=home)
    assert code.strip() == str(packages / "ivcap_flows/__init__.py")
    run([str(there / "ivcap-flows"), "doctor"], cwd=tmp_path, env=home)


@pytest.mark.long
def test_a_plain_install_gets_a_working_set(installed, home, tmp_path):
    """`doctor` finds nothing wrong in an environment that pip chose freely."""
    run([str(installed / "ivcap-flows"), "doctor"], cwd=tmp_path, env=home)


@pytest.mark.long
def test_a_first_project_runs_from_the_wheel(installed, home, tmp_path):
    """Its test passes, a run orders once however often it is started, and what its service takes is typed."""
    pip = [sys.executable, "-m", "pip", "--python", str(installed.parent), "install", "--quiet", "pytest"]
    run(pip, env=UNPINNED)
    ours = str(installed / "ivcap-flows")
    run([ours, "init", "demo"], cwd=tmp_path, env=home)
    demo = tmp_path / "demo"
    assert "1 passed" in run([str(installed / "python"), "-m", "pytest", "-q"], cwd=demo, env=home)
    run([ours, "local", "register", "services/shout.yaml"], cwd=demo, env=home)
    assert "order" in run([ours, "plan", "flow.py:shout"], cwd=demo, env=home)
    assert "On record: 1 upload, 1 order" in run([ours, "run", "flow.py:shout"], cwd=demo, env=home)
    assert (demo / "results/shout.txt").read_text(encoding="utf-8") == "HELLO\n"
    assert "hello.txt" in run([ours, "trace", "results/shout.txt"], cwd=demo, env=home)
    assert "class Shout(ServiceRequest)" in run([ours, "services", "shout", "--python"], cwd=demo, env=home)


@pytest.mark.long
def test_the_readme_is_pasted_from_top_to_bottom(installed, home, tmp_path):
    """Each block in its order, but the login: files are written, commands run in one environment and one home. The flow
    prints what `echo` answered, its test passes without a word of trouble, and the run is on record with one job."""
    run([sys.executable, "-m", "pip", "--python", str(installed.parent), "install", "--quiet", "pytest"], env=UNPINNED)
    readme = Path("README.md").read_text(encoding="utf-8")
    said: dict[str, str] = {}
    shell = home | {"PATH": f"{installed}{os.pathsep}{home['PATH']}"}
    for language, block in re.findall(r"```(python|console)\n(.*?)```", readme, re.DOTALL):
        if language == "python":
            (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block, encoding="utf-8")
            continue
        for command in block.splitlines():
            if "login" not in command and not command.startswith("export"):
                said[command] = run(["sh", "-c", command], cwd=tmp_path, env=shell)
    assert list(said) == [
        *("python hello.py", "ivcap-flows trace latest --open"),
        *("pytest test_hello.py", "ivcap-flows init demo"),
    ]
    assert "Good day" in said["python hello.py"] and "relations" in said["ivcap-flows trace latest --open"]
    assert "1 passed" in said["pytest test_hello.py"] and "Logging error" not in said["pytest test_hello.py"]
    shown = run([str(installed / "ivcap-flows"), "show", "latest"], cwd=tmp_path, env=home)
    assert len(re.findall(r"urn:ivcap:job:", shown)) >= 1
    run(
        [str(installed / "ivcap-flows"), "export", "latest", "--format", "prov-json", "-o", "hello.json"],
        cwd=tmp_path,
        env=home,
    )
    assert (tmp_path / "hello.json").stat().st_size > 0
