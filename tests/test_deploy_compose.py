"""What docker-compose.yml and the Dockerfile promise, read from the files: CI starts no containers."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.cli import commands
from search.cli.worker import STOP_SECONDS
from storage.errors import StorageUrlError
from storage.url import parse_url

ROOT = Path(__file__).parent.parent
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
PORT = (ROOT / "deploy/database-port.yml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?:(:[-?])([^}]*))?\}")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
WORKERS = ("worker", "worker-gpu", "node", "node-gpu")
OURS = ("init", "dashboard", *WORKERS)


def filled(text: str) -> str:
    """A setting with the defaults of its variables."""
    return VARIABLE.sub(lambda found: found[3] if found[2] == ":-" else "given", text).replace("$$", "$")


def seconds(duration: str) -> int:
    """A duration of the compose file."""
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def test_there_is_no_default_password() -> None:
    """Every password comes from the user, whom compose tells where to write it; the example has none."""
    used = [(name, kind, text) for name, kind, text in VARIABLE.findall(COMPOSE) if "PASSWORD" in name]
    assert {name for name, _, _ in used} == {"POSTGRES_PASSWORD", "DASHBOARD_PASSWORD"}
    assert all(kind == ":?" and "copy .env.example to .env" in text for _, kind, text in used)
    assert re.findall(r"^(\w*PASSWORD)=(.*)$", EXAMPLE, re.MULTILINE) == [
        ("POSTGRES_PASSWORD", ""),
        ("DASHBOARD_PASSWORD", ""),
    ]
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if "PASS" in variable:
                assert VARIABLE.fullmatch(value), f"{name}: {variable}"
            assert not re.search(r"//[^/@]*:[^/@]*@", str(value)), f"{name}: {variable} has a password"


def test_only_the_dashboard_is_published_and_on_loopback_alone() -> None:
    """Nobody beyond this machine reaches anything; the database's port is a file of its own, with TLS."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["dashboard"]
    assert [filled(port) for port in published["dashboard"]] == ["127.0.0.1:8080:8080"]
    assert not any("network_mode" in service for service in SERVICES.values())

    database = yaml.safe_load(PORT)["services"]["db"]
    assert database["ports"][0].startswith("${DATABASE_ADDRESS:?")
    assert "-c ssl=on" in database["entrypoint"][2]
    assert "hostssl all all all scram-sha-256" in database["entrypoint"][2]
    assert "'host " not in database["entrypoint"][2]


def test_every_service_that_stays_has_a_health_check() -> None:
    """The database by its real user and name over TCP; ours by the script that the image has."""
    assert SERVICES["db"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    environment = SERVICES["db"]["environment"]
    assert {
        "--host=127.0.0.1",
        f"--username={environment['POSTGRES_USER']}",
        f"--dbname={environment['POSTGRES_DB']}",
    } <= set(SERVICES["db"]["healthcheck"]["test"])
    for name in ("dashboard", *WORKERS):
        assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "python", "/opt/cnn-search/health.py"]
    assert SERVICES["init"]["healthcheck"] == {"disable": True}


def test_services_start_in_order() -> None:
    """Init waits for a healthy database, everything else for init's end; a further machine has neither."""
    assert SERVICES["init"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    for name in ("worker", "worker-gpu", "dashboard"):
        assert SERVICES[name]["depends_on"]["init"] == {"condition": "service_completed_successfully"}
    for name in ("node", "node-gpu"):
        assert "depends_on" not in SERVICES[name]


def test_plain_up_starts_neither_gpu_nor_node_workers() -> None:
    """Those have profiles; a machine without a GPU would refuse the reservation."""
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"worker-gpu": ["gpu"], "node": ["node"], "node-gpu": ["node-gpu"]}


def test_a_worker_has_time_to_hand_back() -> None:
    """Docker waits longer than a worker takes, and the signal reaches it: no shell is in between."""
    for name in WORKERS:
        assert seconds(SERVICES[name]["stop_grace_period"]) > STOP_SECONDS + 5
        assert SERVICES[name]["init"] is True
        assert "entrypoint" not in SERVICES[name]
    assert 'ENTRYPOINT ["cnn-search"]' in DOCKERFILE


def test_a_finished_study_ends_its_workers() -> None:
    """A worker that ends with 0 stays down, one that fails comes back; servers always do; init is once."""
    restarts = {name: service.get("restart", "no") for name, service in SERVICES.items()}
    assert restarts == {
        "db": "unless-stopped",
        "dashboard": "unless-stopped",
        "init": "no",
        **dict.fromkeys(WORKERS, "on-failure"),
    }


def test_what_has_to_last_is_in_volumes() -> None:
    """Database, CIFAR-10 and caches are named volumes; CIFAR-10 can be a folder of the machine."""
    declared = set(yaml.safe_load(COMPOSE)["volumes"])
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source, target = filled(volume).split(":")[:2]
            assert source in declared or source.startswith("./"), f"{name}: {volume}"
            assert target.startswith("/")
    assert SERVICES["db"]["volumes"] == ["database:/var/lib/postgresql/data"]
    for name in ("init", *WORKERS):
        assert {"${CNN_SEARCH_DATA_DIR:-data}:/data", "cache:/cache"} <= set(SERVICES[name]["volumes"])
    for name in ("worker-gpu", "node-gpu"):
        assert "locks:/locks" in SERVICES[name]["volumes"]


def test_gpu_workers_see_every_gpu_and_claim_one() -> None:
    """With a count below all, every replica would get the same one (docker/compose issue 11863)."""
    for name in ("worker-gpu", "node-gpu"):
        devices = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
        assert SERVICES[name]["build"]["target"] == "gpu"
        assert SERVICES[name]["environment"]["CNN_SEARCH_DEVICE"] == "gpu"
        assert filled(SERVICES[name]["environment"]["CNN_SEARCH_WORKERS_PER_GPU"]) == "1"
        for variable in ("ENGINE", "SLOTS"):
            environment = SERVICES[name]["environment"]
            assert environment[f"CNN_SEARCH_{variable}"] == f"${{{variable}:-auto}}"
            assert "CNN_SEARCH_" + variable not in SERVICES["worker"]["environment"]


def test_our_containers_may_do_little() -> None:
    """A read-only image, no capabilities, no way to gain any, and no root."""
    for name in OURS:
        service = SERVICES[name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service
        assert "user" not in service
    assert SERVICES["db"]["cap_drop"] == ["ALL"]
    users = re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE)
    assert users == ["10001:10001", "10001:10001"]


def test_a_node_without_a_url_is_told_so() -> None:
    """Its default is no URL: with an empty one a worker would start a study of its own in SQLite."""
    for name in ("node", "node-gpu"):
        default = filled(SERVICES[name]["environment"]["CNN_SEARCH_STORAGE"])
        assert "CNN_SEARCH_STORAGE" in default
        with pytest.raises(StorageUrlError, match="is no database URL"):
            parse_url(default)
    url = parse_url(SERVICES["worker"]["environment"]["CNN_SEARCH_STORAGE"])
    assert (url.host, url.username, url.password) == ("db", "cnn", None)


def test_images_say_their_version() -> None:
    """The label's default is the package's own."""
    (version,) = re.findall(
        r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE, re.MULTILINE) == [version, version]


def test_a_worker_that_compiles_for_its_gpu_is_starting() -> None:
    """Two tries may take 40 minutes each."""
    for name in ("worker-gpu", "node-gpu"):
        assert SERVICES[name]["healthcheck"]["start_period"] == "80m"
        assert SERVICES[name]["healthcheck"]["test"] == SERVICES["worker"]["healthcheck"]["test"]


def test_commands_and_options_exist() -> None:
    """Each service runs a command of cnn-search, with options that it has."""
    for name in ("dashboard", *WORKERS):
        words = shlex.split(filled(SERVICES[name]["command"]))
        known = {option for param in commands.commands[words[0]].params for option in param.opts}
        assert set(words[1:]) - {"0.0.0.0"} <= known, name
    script = SERVICES["init"]["entrypoint"][2]
    assert re.findall(r"cnn-search (\w+)", script) == ["data", "init"]
    for line in re.findall(r"^#(?:STUDY|WORKER)_OPTIONS=(.*)$", EXAMPLE, re.MULTILINE):
        command = commands.commands["init" if "epochs" in line else "worker"]
        assert set(line.split()[::2]) <= {option for param in command.params for option in param.opts}


@pytest.mark.parametrize("target, options", [("", ""), ("0.7737", "--target 0.7737 ")])
def test_init_hands_the_target_on_where_there_is_one(target: str, options: str, tmp_path: Path) -> None:
    """An empty one is none; the total and what else is wished come as they are."""
    (tmp_path / "cnn-search").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "cnn-search").chmod(0o755)
    init = SERVICES["init"]
    assert init["environment"]["TARGET"] == "${TARGET:-}"
    arguments = [*init["entrypoint"], *shlex.split(filled(init["command"]))]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TARGET": target}
    done = subprocess.run(
        [argument.replace("$$", "$") for argument in arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"data\ninit {options}--trials 100\n"


def test_the_example_explains_every_variable() -> None:
    """What the compose files read stands in .env.example, and nothing else does."""
    told = set(re.findall(r"^#?([A-Z][A-Z_]*)=", EXAMPLE, re.MULTILINE))
    used = {name for name, _, _ in VARIABLE.findall(COMPOSE + PORT)}
    # Compose's own; and what is for builds alone, which docs/deploy.md tells.
    assert told - {"COMPOSE_PROJECT_NAME", "COMPOSE_FILE", "COMPOSE_PROFILES"} <= used
    assert used - told == {
        "REVISION",
        "PIP_INDEX_URL",
        "SHARED_BUFFERS",
        "DATABASE_PORT",
        "DATABASE_TLS_DIR",
    }


def test_passwords_are_ignored_by_git_and_by_builds() -> None:
    """Neither .env nor a key gets into a commit or an image."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {".env", "deploy/kubernetes/base/secret.env"} <= set(ignored)
    assert (ROOT / "deploy/tls/.gitignore").read_text(encoding="utf-8").endswith("\n*\n!.gitignore\n")
    context = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert context[1] == "*"
    allowed = [line[1:] for line in context if line.startswith("!")]
    assert not any(line.startswith((".env", "deploy/tls", ".git")) for line in allowed)
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert any(Path(source).match(pattern) for pattern in allowed), source


def test_the_image_builds_everywhere_and_from_hashed_versions() -> None:
    """The classic builder reads the Dockerfile too; pip installs nothing without a hash but ourselves."""
    assert not re.search(r"RUN --|<<|COPY (--link|--chmod)", DOCKERFILE)
    instructions = re.sub(r"\\\n", "", DOCKERFILE)
    for install in re.findall(r"pip [^&\n]*\binstall\b[^&\n]*", instructions):
        assert "--no-deps" in install
        assert "--require-hashes" in install or install.rstrip().endswith(" .")
    targets = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    for name in OURS:
        assert SERVICES[name]["build"]["target"] in targets
    # The classic builder makes all that stands above a target.
    assert targets.index("cpu") < targets.index("tensorflow-gpu") < targets.index("gpu")
    assert DOCKERFILE.rstrip().endswith("FROM cpu")


def test_both_images_have_the_tensorflow_of_the_lock() -> None:
    """The CPU's has another name and the same version; the GPU's cuDNN is one that XLA works with."""
    locks = {
        name: (ROOT / name).read_text(encoding="utf-8")
        for name in ("requirements.lock", "requirements-cpu.lock", "requirements-gpu.lock")
    }
    version = re.findall(r"^tensorflow==(\S+)", locks["requirements.lock"], re.MULTILINE)
    assert re.findall(r"^tensorflow-cpu==(\S+)", locks["requirements-cpu.lock"], re.MULTILINE) == version
    (cudnn,) = re.findall(r"^nvidia-cudnn-cu12==(\d+)\.(\d+)", locks["requirements-gpu.lock"], re.MULTILINE)
    assert tuple(map(int, cudnn)) >= (9, 24)
    name = re.compile(r"^([a-z0-9._-]+)==", re.MULTILINE)
    packages = {file: set(name.findall(lock)) for file, lock in locks.items()}
    assert not packages["requirements.lock"] & packages["requirements-gpu.lock"]
    assert packages["requirements-cpu.lock"] == {"tensorflow-cpu"}
