"""Renders the chart with Helm's own engine and checks the result: against the schemas that Kubernetes publishes, and
for what it promises. scripts/setup.sh package installs both into .cache/helm; make package-test runs this there."""

import sys
from pathlib import Path

import helm_python as helm
import kubernetes_validate
import yaml

CHART = str(Path(__file__).parent / "chart")
# The oldest that kubeVersion allows, one between, and the newest that kubernetes_validate knows.
KUBERNETES = ["1.25", "1.31", "1.37"]


def render(values):
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        manifests = chart.render(values, name="cpu", namespace="kube-system")
    return [doc for text in manifests.values() for doc in yaml.safe_load_all(text) if doc]


def container(values):
    """The one container of the one DaemonSet, having checked both."""
    (daemonset,) = render(values)
    for version in KUBERNETES:
        kubernetes_validate.validate(daemonset, version, strict=True)
    assert daemonset["kind"] == "DaemonSet", daemonset
    template = daemonset["spec"]["template"]
    selector = daemonset["spec"]["selector"]["matchLabels"]
    assert selector.items() <= template["metadata"]["labels"].items(), selector
    pod = template["spec"]
    assert pod["hostPID"] is True and "hostNetwork" not in pod, pod
    (only,) = pod["containers"]
    security = only["securityContext"]
    assert security["privileged"] is False and security["capabilities"]["drop"] == ["ALL"], security
    return pod, only


def refused(values):
    try:
        render(values)
    except helm.HelmError:
        return
    sys.exit(f"FAIL these values are taken: {values}")


def main():
    findings = helm.lint(CHART)
    assert "[ERROR]" not in str(findings), findings

    pod, plain = container({})
    assert plain["securityContext"]["capabilities"]["add"] == ["BPF", "PERFMON"], plain
    assert plain["args"] == ["--policy", "kernel"], plain
    version = yaml.safe_load(Path(CHART, "Chart.yaml").read_text())["appVersion"]
    assert plain["image"] == f"scheduler:{version}", plain
    assert pod["tolerations"] == [{"operator": "Exists"}], pod
    assert plain["readinessProbe"]["exec"]["command"][-1] == "/sys/kernel/sched_ext/root/ops"

    _, fifo = container({"policy": "fifo", "args": ["--grace-us", "500"], "image": {"tag": "x"}})
    assert fifo["securityContext"]["capabilities"]["add"] == ["BPF", "PERFMON", "IPC_LOCK"], fifo
    assert fifo["args"] == ["--policy", "fifo", "--grace-us", "500"], fifo
    assert fifo["image"] == "scheduler:x", fifo

    pod, bare = container({"tolerations": [], "nodeSelector": None, "resources": None, "priorityClassName": ""})
    assert not {"tolerations", "nodeSelector", "priorityClassName"} & pod.keys(), pod
    assert "resources" not in bare, bare

    refused({"policy": "best"})
    refused({"args": "--stats"})
    refused({"privileged": True})
    print("ok   the chart renders, fits the schemas of Kubernetes", ", ".join(KUBERNETES))


main()
