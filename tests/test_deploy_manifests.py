"""Kubernetes manifests against the schemas of its versions, and the scripts of deploy/ against shellcheck."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from search.cli import commands
from search.cli.worker import STOP_SECONDS
from storage.url import parse_url

ROOT = Path(__file__).parent.parent
KUBERNETES = ROOT / "deploy/kubernetes"
BASE = KUBERNETES / "base"
SLURM = ROOT / "deploy/slurm/worker.sbatch"
VERSIONS = ("1.31", "1.37")
"""The oldest that the manifests are for, where a Job's podFailurePolicy is stable, and a later one."""
DOCUMENTS: dict[tuple[str, str], dict[str, Any]] = {
    (document["kind"], document["metadata"]["name"]): document
    for file in sorted(BASE.glob("*.yaml"))
    if file.name != "kustomization.yaml"
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
}
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    """A workload's pod."""
    pod: dict[str, Any] = document["spec"]["template"]["spec"]
    return pod


PODS = {key: pod_of(document) for key, document in DOCUMENTS.items() if "template" in document["spec"]}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """All of a pod's, those that run first included."""
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", DOCUMENTS, ids=" ".join)
def test_manifests_are_what_kubernetes_takes(key: tuple[str, str], version: str) -> None:
    """Each passes its version's schema, without a field that the schema does not have."""
    kubernetes_validate.validate(DOCUMENTS[key], version, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl builds them; it is not installed")
@pytest.mark.parametrize("overlay", ["base", "gpu"])
def test_overlays_build_to_what_kubernetes_takes(overlay: str, tmp_path: Path) -> None:
    """With the user's secret.env they build, and pass the schemas; without it nothing is built."""
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes", ignore=shutil.ignore_patterns("secret.env"))
    build = ["kubectl", "kustomize", str(tmp_path / "kubernetes" / overlay)]
    refused = subprocess.run(build, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "secret.env" in refused.stderr

    (tmp_path / "kubernetes/base/secret.env").write_text("database-password=a\ndashboard-password=b\n")
    built = subprocess.run(build, capture_output=True, text=True, check=True).stdout
    documents = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(built)}
    assert documents.keys() == {*DOCUMENTS, ("Secret", "cnn-search"), ("ConfigMap", "cnn-search")}
    for document in documents.values():
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
        assert "namespace" not in document["metadata"]
    pod = pod_of(documents["Job", "worker"])
    (worker,) = pod["containers"]
    tag = "gpu" if overlay == "gpu" else "cpu"
    assert {container["image"] for container in containers(pod)} == {f"registry.example/cnn-search:{tag}"}
    assert worker["resources"]["limits"].get("nvidia.com/gpu") == (1 if overlay == "gpu" else None)
    assert "PGPASSWORD" in {variable["name"] for variable in worker["env"]}


def test_every_manifest_is_listed() -> None:
    """The kustomization builds all files of its folder, and no password is in any."""
    listed = {*KUSTOMIZATION["resources"], "kustomization.yaml"}
    assert listed == {file.name for file in BASE.glob("*.yaml")}
    assert ("Secret", "cnn-search") not in DOCUMENTS
    example = (BASE / "secret.env.example").read_text(encoding="utf-8")
    assert re.findall(r"^([a-z-]+)=(.*)$", example, re.MULTILINE) == [
        ("database-password", ""),
        ("dashboard-password", ""),
    ]
    keys = {"database-password", "dashboard-password"}
    for pod in PODS.values():
        for container in containers(pod):
            for variable in container.get("env", ()):
                if "PASSWORD" in variable["name"]:
                    reference = variable["valueFrom"]["secretKeyRef"]
                    assert reference["name"] == KUSTOMIZATION["secretGenerator"][0]["name"]
                    assert reference["key"] in keys
    (literals,) = (one["literals"] for one in KUSTOMIZATION["configMapGenerator"])
    settings = dict(literal.split("=", 1) for literal in literals)
    assert parse_url(settings["CNN_SEARCH_STORAGE"]).password is None
    assert ("Service", parse_url(settings["CNN_SEARCH_STORAGE"]).host) in DOCUMENTS


@pytest.mark.parametrize("key", PODS, ids=" ".join)
def test_pods_may_do_little(key: tuple[str, str]) -> None:
    """No root, no capabilities, a read-only image, no token of the cluster's; memory has a limit."""
    pod = PODS[key]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["securityContext"]["runAsUser"] == (999 if key[1] == "database" else 10001)
    for container in containers(pod):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claims = DOCUMENTS[key]["spec"].get("volumeClaimTemplates", ())
        known = {*(one["name"] for one in pod["volumes"]), *(one["metadata"]["name"] for one in claims)}
        assert "tmp" in mounted <= known


def test_a_finished_study_ends_the_job_and_a_lost_node_costs_no_try() -> None:
    """Workers are an indexed Job; evictions and hand-backs are not counted, wrong options end it."""
    job = DOCUMENTS["Job", "worker"]["spec"]
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"]
    assert job["backoffLimitPerIndex"] > 0
    # Kubernetes takes neither backoffLimitPerIndex nor podFailurePolicy with another.
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    disruption, signalled, misused = job["podFailurePolicy"]["rules"]
    assert (disruption["action"], disruption["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (signalled["action"], signalled["onExitCodes"]["values"]) == ("Ignore", [130, 143])
    assert (misused["action"], misused["onExitCodes"]["values"]) == ("FailJob", [2])
    # Without a name they are for `wait` too, which meets a wrong URL first.
    assert all("containerName" not in rule["onExitCodes"] for rule in (signalled, misused))
    pod = job["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > STOP_SECONDS + 5
    assert pod["shareProcessNamespace"] is True


def test_no_probe_ends_a_worker_or_waits_for_the_database() -> None:
    """While the database is away, nothing is killed for it: workers wait, and the dashboard says 503."""
    (worker,) = PODS["Job", "worker"]["containers"]
    assert "livenessProbe" not in worker
    assert worker["readinessProbe"]["exec"]["command"] == ["python", "/opt/cnn-search/health.py"]
    (dashboard,) = PODS["Deployment", "dashboard"]["containers"]
    assert "tcpSocket" in dashboard["livenessProbe"]
    assert dashboard["readinessProbe"]["httpGet"]["path"] == "/healthz"


def test_commands_exist() -> None:
    """What the pods run is a command of cnn-search."""
    for (_, name), pod in PODS.items():
        for container in containers(pod):
            if container["image"] == "cnn-search":
                words = container.get("args") or re.findall(r"cnn-search (\w+)", container["command"][2])
                assert words[0] in commands.commands, name


@pytest.mark.parametrize("codes, ended, asked", [([1, 1, 0], 0, 3), ([1, 2], 2, 2)])
def test_a_worker_waits_for_its_study_but_not_for_ever(
    codes: list[int], ended: int, asked: int, tmp_path: Path
) -> None:
    """Until `cnn-search status` finds it; a URL or option that is wrong stays so."""
    (wait,) = PODS["Job", "worker"]["initContainers"]
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    for name, text in {
        "cnn-search": 'echo "$@" >>asked; code=$(head -1 codes); sed -i 1d codes; exit "$code"',
        "sleep": ":",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(wait["command"], cwd=tmp_path, env=path).returncode == ended
    assert (tmp_path / "asked").read_text() == "status\n" * asked


@pytest.mark.parametrize("target, options", [("", ""), ("0.7737", "--target 0.7737 ")])
def test_init_hands_the_target_on_where_there_is_one(target: str, options: str, tmp_path: Path) -> None:
    """An empty one, as in kustomization.yaml, is none."""
    (config,) = KUSTOMIZATION["configMapGenerator"]
    assert "TARGET=" in config["literals"]
    (tmp_path / "cnn-search").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "cnn-search").chmod(0o755)
    (init,) = PODS["Job", "init"]["containers"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TRIALS": "7", "STUDY_OPTIONS": "--seed 3"}
    done = subprocess.run(
        init["command"], env={**environment, "TARGET": target}, capture_output=True, text=True
    )
    assert done.stdout == f"init --trials 7 {options}--seed 3\n"


def test_the_images_are_those_that_the_docs_build() -> None:
    """docs/deploy.md builds a tag for each target; the overlay for GPUs needs both."""
    overlay = yaml.safe_load((KUBERNETES / "gpu/kustomization.yaml").read_text(encoding="utf-8"))
    images = [*KUSTOMIZATION["images"], *overlay["images"]]
    docs = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    (targets,) = re.findall(r"for target in (.*); do", docs)
    built = {f"registry.example/cnn-search:{target}" for target in targets.split()}
    assert {f"{image['newName']}:{image['newTag']}" for image in images} == built
    assert "--target $target --tag registry.example/cnn-search:$target" in docs


@pytest.mark.parametrize("script", ["deploy/rehearse", "deploy/slurm/worker.sbatch", ".ci/run"])
def test_scripts_pass_shellcheck(script: str) -> None:
    """Nothing that shellcheck knows to go wrong."""
    folders = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    checker = shutil.which("shellcheck", path=folders)
    assert checker is not None, "`make install` brings shellcheck"
    checked = subprocess.run([checker, ROOT / script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start worker.sbatch with a worker that is the given line of shell; what scontrol is told is kept."""
    folder = tmp_path / "bin"
    folder.mkdir()
    started: list[subprocess.Popen[str]] = []

    def start(worker: str, **environment: str) -> subprocess.Popen[str]:
        for name, text in {"cnn-search": worker, "scontrol": f'echo "$@" >{tmp_path}/requeued'}.items():
            (folder / name).write_text(f"#!/bin/bash\n{text}\n")
            (folder / name).chmod(0o755)
        process = subprocess.Popen(
            ["bash", SLURM, "--lease", "15"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PATH": f"{folder}:{os.environ['PATH']}",
                "CNN_SEARCH_STORAGE": "postgresql://cnn@host/cnn",
                "SLURM_JOB_ID": "7",
                "SLURM_CPUS_PER_TASK": "2",
                **environment,
            },
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


HANDS_BACK = "trap 'echo handed back; exit 130' TERM; echo runs; while :; do sleep 0.05; done"


def test_a_slurm_worker_whose_time_is_up_hands_back_and_is_queued_again(
    slurm: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """USR1 comes a minute before the end; the worker hears TERM, and its exit code is the job's."""
    process = slurm(HANDS_BACK)
    assert process.stdout is not None and process.stdout.readline() == "runs\n"
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "handed back\n", "")
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"


def test_a_cancelled_slurm_worker_hands_back_and_stays_cancelled(
    slurm: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """TERM is passed on; nothing is queued again."""
    process = slurm(HANDS_BACK)
    assert process.stdout is not None and process.stdout.readline() == "runs\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    assert (process.returncode, out) == (130, "handed back\n")
    assert not (tmp_path / "requeued").exists()


def test_a_slurm_worker_gets_its_options_and_a_finished_study_ends_it(
    slurm: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Threads are the task's cores, locks a folder of its own that is removed, exit code 0 is the job's."""
    process = slurm('echo "$@ $CNN_SEARCH_DEVICE"; ls -d "$CNN_SEARCH_LOCKS"')
    out, _ = process.communicate()
    command, locks = out.splitlines()
    assert command == "worker --threads 2 --lease 15 gpu"
    assert not Path(locks).exists()
    assert process.returncode == 0
    assert not (tmp_path / "requeued").exists()


def test_a_slurm_worker_without_a_database_says_so(slurm: Callable[..., subprocess.Popen[str]]) -> None:
    """It ends before it starts anything."""
    process = slurm("echo never", CNN_SEARCH_STORAGE="")
    out, err = process.communicate()
    assert process.returncode != 0
    assert out == ""
    assert "the URL of the database" in err
