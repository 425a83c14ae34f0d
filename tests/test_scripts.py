"""The scripts: an environment that is made once and whole, and what continuous integration runs.

The scripts run in a copy of the checkout, with a `uv` on PATH that is a program of this file: it
makes real environments, and puts a `llama-proxy` into them that says how it was called, instead of
installing packages.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]

# What scripts/serve may use of a system besides Python and uv, and what scripts/check may as well.
FOR_SERVE = ("bash", "cat", "cmp", "dirname", "env", "mv", "rm", "sed")
FOR_CHECK = ("find", "getconf", "grep", "ls", "mktemp", "touch", "tr", "xargs")
# And the fake uv.
FOR_UV = ("chmod", "sleep")

FAKE_UV = """#!/usr/bin/env bash
set -euo pipefail
echo "$*" >>"{log}"
if [[ "$1" == venv ]]; then
    exec "{python}" -m venv --clear --without-pip "${{!#}}"
fi
[[ ! -e "{folder}/slow" ]] || sleep 0.5
if [[ -e "{folder}/broken" ]]; then
    rm "{folder}/broken"
    exit 7
fi
cd .venv/bin
printf '#!/usr/bin/env bash\\nprintf "%%s|" "$PWD" "$@"\\n' >llama-proxy
for tool in ruff flake8-async mypy lint-imports vulture interrogate; do
    printf '#!/usr/bin/env bash\\n! cat "{folder}/%s-finds" 2>/dev/null\\n' "$tool" >"$tool"
    chmod +x "$tool"
done
chmod +x llama-proxy
"""


class Sandbox:
    """A copy of the scripts, with a PATH that holds the fake uv and little else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkout = folder / "check out"  # with a space, as people have them
        self.path = folder / "bin"
        self.log = folder / "uv.log"
        self.path.mkdir()
        for name in ("scripts", ".ci"):
            shutil.copytree(CHECKOUT / name, self.checkout / name)
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(CHECKOUT / name, self.checkout)
        for name in ("proxy", "tests"):
            (self.checkout / name).mkdir()
            (self.checkout / name / "a file.py").touch()
        for name in (*FOR_SERVE, *FOR_CHECK, *FOR_UV):
            found = shutil.which(name)
            assert found, f"this system has no {name}"
            (self.path / name).symlink_to(found)
        (self.path / "python3").symlink_to(sys.executable)
        self.add_uv()

    def add_uv(self) -> None:
        """Put the fake uv on PATH."""
        fake = FAKE_UV.format(log=self.log, python=sys.executable, folder=self.folder)
        (self.path / "uv").write_text(fake)
        (self.path / "uv").chmod(0o755)

    def start(
        self, *args: str, cwd: Path, script: str = "serve", **environ: str
    ) -> subprocess.Popen[str]:
        """Start a script and return at once."""
        return subprocess.Popen(
            [str(self.checkout / "scripts" / script), *args],
            cwd=cwd,
            env={"PATH": str(self.path), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def serve(self, *args: str, cwd: Path | None = None, **environ: str) -> Ended:
        """Run scripts/serve to its end."""
        return self._finish(self.start(*args, cwd=cwd or self.folder, **environ))

    def check(self, *args: str) -> Ended:
        """Run scripts/check to its end."""
        return self._finish(self.start(*args, cwd=self.folder, script="check"))

    def _finish(self, process: subprocess.Popen[str]) -> Ended:
        out, err = process.communicate(timeout=30)
        return Ended(process.returncode, out, err)

    def installs(self) -> int:
        """Count the installations that were begun."""
        if not self.log.exists():
            return 0
        return sum(line.startswith("pip install") for line in self.log.read_text().splitlines())


class Ended:
    """How a script ended and what it said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """A fresh copy of the scripts, where nothing is installed yet."""
    return Sandbox(tmp_path)


def test_serve_first_start_installs_and_passes_arguments_and_folder_on(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Options reach `llama-proxy serve` unchanged, from the folder that the caller is in."""
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()

    ended = sandbox.serve("-m", "my model.gguf", "--", "-ngl", "99", cwd=elsewhere)

    assert ended.code == 0, ended.err
    assert ended.out.split("|")[:-1] == [
        str(elsewhere), "serve", "-m", "my model.gguf", "--", "-ngl", "99",
    ]  # fmt: skip
    assert "Installing into .venv" in ended.err


def test_serve_first_start_installs_the_project_with_its_runtime_as_locked(
    sandbox: Sandbox,
) -> None:
    """The checkout is installed with the embedded runtime, in the versions of constraints.txt."""
    sandbox.serve()

    asked = sandbox.log.read_text().splitlines()[-1]
    assert asked.endswith("--editable .[embedded]")
    assert "--constraints constraints.txt --build-constraints constraints.txt" in asked


def test_serve_second_start_installs_nothing_and_says_nothing(sandbox: Sandbox) -> None:
    """A second start goes straight to the command."""
    sandbox.serve()

    ended = sandbox.serve()

    assert (ended.code, ended.err) == (0, "")
    assert sandbox.installs() == 1


def test_serve_broken_installation_says_so_and_is_done_again_by_the_next_start(
    sandbox: Sandbox,
) -> None:
    """An installation that did not end well is neither used nor kept."""
    (sandbox.folder / "broken").touch()

    first = sandbox.serve()
    second = sandbox.serve()

    assert first.code == 1
    assert "The installation failed" in first.err
    assert first.out == ""
    assert second.code == 0, second.err
    assert sandbox.installs() == 2


def test_serve_killed_while_installing_is_done_again_by_the_next_start(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """An environment that is there but not whole is not used: only the stamp says that it is."""
    (sandbox.folder / "slow").touch()
    process = sandbox.start(cwd=tmp_path)
    assert process.stderr
    while "Installing" not in process.stderr.readline():
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=30)

    ended = sandbox.serve()

    assert ended.code == 0, ended.err
    assert ended.out


def test_serve_after_a_changed_lock_installs_again(sandbox: Sandbox) -> None:
    """New locked versions reach an old environment by themselves."""
    sandbox.serve()
    with (sandbox.checkout / "constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")

    sandbox.serve()

    assert sandbox.installs() == 2


def test_serve_two_first_starts_at_once_install_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """The second of two starts waits for the first one's installation, and uses it."""
    (sandbox.folder / "slow").touch()
    both = [sandbox.start(cwd=tmp_path), sandbox.start(cwd=tmp_path)]

    ends = [process.communicate(timeout=30) for process in both]

    assert [process.returncode for process in both] == [0, 0], ends
    assert all(out for out, _ in ends)
    assert sandbox.installs() == 1


def test_serve_moved_checkout_makes_its_environment_anew(sandbox: Sandbox) -> None:
    """An environment has absolute paths in it: after a move it is made again."""
    sandbox.serve()
    sandbox.checkout = sandbox.checkout.rename(sandbox.folder / "moved")

    ended = sandbox.serve()

    assert ended.code == 0, ended.err
    assert sandbox.installs() == 2


@pytest.mark.parametrize("stub", ["exit 127", "echo not installed", None])
def test_serve_first_python_on_path_that_does_not_run_is_passed_over(
    sandbox: Sandbox, stub: str | None
) -> None:
    """A python3.14 that is only a version manager's stub does not stop the search."""
    stub_path = sandbox.path / "python3.14"
    if stub is None:
        stub_path.symlink_to("/nowhere")
    else:
        stub_path.write_text(f"#!/usr/bin/env bash\n{stub}\n")
        stub_path.chmod(0o755)

    ended = sandbox.serve()

    assert ended.code == 0, ended.err


def test_serve_without_any_python_says_what_to_install(sandbox: Sandbox) -> None:
    """Neither Python nor uv: one sentence says what is needed, and nothing is made."""
    (sandbox.path / "python3").unlink()
    (sandbox.path / "uv").unlink()

    ended = sandbox.serve()

    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "No Python 3.11 to 3.14 was found on PATH: install one, or uv" in ended.err
    assert not (sandbox.checkout / ".venv").exists()


def test_serve_told_of_a_python_that_does_not_run_names_it(sandbox: Sandbox) -> None:
    """PYTHON is obeyed or refused, never replaced by another."""
    ended = sandbox.serve(PYTHON="/nowhere/python")

    assert ended.code == 1
    assert "PYTHON=/nowhere/python does not run" in ended.err
    assert sandbox.installs() == 0


def test_check_with_nothing_to_find_passes(sandbox: Sandbox) -> None:
    """Every check runs and says that it is ok."""
    ended = sandbox.check()

    assert ended.code == 0, ended.out + ended.err
    assert ended.out.count("ok  ") == 10
    assert ended.out.endswith("all checks passed\n")


@pytest.mark.parametrize(
    ("tool", "checks"),
    [
        ("ruff", "lint format"),
        ("flake8-async", "async"),
        ("mypy", "types_linux types_macos types_windows"),
        ("lint-imports", "layers"),
        ("vulture", "unused"),
        ("interrogate", "docstrings"),
    ],
)
def test_check_with_one_finding_shows_it_and_fails_after_all_have_run(
    sandbox: Sandbox, tool: str, checks: str
) -> None:
    """No tool's finding is lost, and none keeps the others from running."""
    (sandbox.folder / f"{tool}-finds").write_text("proxy/a file.py: what it found\n")

    ended = sandbox.check()

    assert ended.code == 1
    assert "proxy/a file.py: what it found" in ended.out
    assert ended.out.endswith(f"checks failed: {checks}\n")
    assert ended.out.count("ok  ") == 10 - len(checks.split())


def test_check_told_of_an_unknown_check_names_those_that_there_are(sandbox: Sandbox) -> None:
    """A misspelt name does not pass for a check without findings."""
    ended = sandbox.check("tpyes")

    assert ended.code == 1
    assert "There is no such check; there are: lint format async" in ended.err


def test_scripts_all_parse_and_can_be_run() -> None:
    """Every script is executable and free of syntax errors; what is sourced is not executable."""
    for path in [*(CHECKOUT / "scripts").iterdir(), CHECKOUT / ".ci/run"]:
        if not path.is_file() or path.suffix:
            continue
        first = path.read_text().partition("\n")[0]
        executable = bool(path.stat().st_mode & stat.S_IXUSR)
        assert executable == first.startswith("#!/usr/bin/env "), path.name
        if executable and "python" in first:
            compile(path.read_text(), str(path), "exec")
        else:
            subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("tests", [0, 1])
@pytest.mark.parametrize("checks", [0, 3])
def test_ci_run_fails_when_either_fails_and_runs_both(
    tmp_path: Path, tests: int, checks: int
) -> None:
    """What continuous integration calls never hides one failure behind the other's success."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".ci").mkdir()
    shutil.copy(CHECKOUT / ".ci/run", tmp_path / ".ci")
    for name, code in (("test", tests), ("check", checks)):
        script = tmp_path / "scripts" / name
        script.write_text(f"#!/usr/bin/env bash\necho ran {name}\nexit {code}\n")
        script.chmod(0o755)

    done = subprocess.run(
        [str(tmp_path / ".ci/run")], capture_output=True, text=True, cwd="/", check=False
    )

    assert (done.returncode == 0) == (tests == checks == 0)
    assert "ran test\nran check\n" in done.stdout


def locked_names() -> set[str]:
    """The names of the packages that constraints.txt has."""
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    return {line.partition("==")[0] for line in lines if not line.startswith("#")}


def test_constraints_name_versions_only() -> None:
    """Each line is one package in one version: no address, no option, no path."""
    pinned = re.compile(r"[a-z0-9.-]+==[0-9][A-Za-z0-9.+]*( ; [a-z_ '\"().0-9<>=!*A-Z]+)?")
    for line in (CHECKOUT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or pinned.fullmatch(line), line
        assert "://" not in line


def test_constraints_have_every_dependency() -> None:
    """Whatever pyproject.toml names, for whatever purpose, is locked."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    lists = [
        project["build-system"]["requires"],
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    named = {
        re.split(r"[^a-z0-9-]", entry)[0]
        for entries in lists
        for entry in entries
        if isinstance(entry, str)
    }

    assert named <= locked_names()


def test_every_dependency_has_its_reason_in_the_documentation() -> None:
    """docs/dependencies.md says of every package that pyproject.toml names why it is there."""
    reasons = (CHECKOUT / "docs/dependencies.md").read_text()
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    lists = [project["project"]["dependencies"], *project["dependency-groups"].values()]
    for entries in lists:
        for entry in entries:
            if isinstance(entry, str):
                name = re.split(r"[^a-z0-9-]", entry)[0]
                assert f"| `{name}" in reasons, f"docs/dependencies.md has no row for {name}"
