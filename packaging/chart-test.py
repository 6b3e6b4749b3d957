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


def objects(values):
    """What is rendered, by kind; those that Kubernetes itself knows have been checked."""
    by_kind = {}
    for made in render(values):
        assert by_kind.setdefault(made["kind"], made) is made, f"two of {made['kind']}"
        if made["apiVersion"].startswith("monitoring.coreos.com/"):
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(made, version, strict=True)
    return by_kind


def container(values):
    """The one container of the DaemonSet, having checked both."""
    daemonset = objects(values)["DaemonSet"]
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

    assert objects({}).keys() == {"DaemonSet"}, objects({})
    rules = '[[rule]]\nname = "nginx"\nclass = "latency"\n'
    ruled = objects({"config": rules})
    assert ruled.keys() == {"DaemonSet", "ConfigMap"}, ruled
    assert ruled["ConfigMap"]["data"] == {"config.toml": rules}, ruled
    pod, follows = container({"config": rules, "args": ["--slice-us", "2000"]})
    assert follows["args"][2:] == ["--config", "/etc/scheduler/config.toml", "--watch-config", "--slice-us", "2000"]
    (mount,) = follows["volumeMounts"]
    # A subPath would never change.
    assert mount["mountPath"] == "/etc/scheduler" and "subPath" not in mount, mount
    assert pod["volumes"] == [{"name": "config", "configMap": {"name": "cpu"}}], pod

    _, asked = container({"metrics": {"enabled": True, "port": 9200}})
    assert asked["args"][2:] == ["--metrics", "0.0.0.0:9200"], asked
    assert asked["ports"] == [{"name": "metrics", "containerPort": 9200}], asked
    assert objects({"metrics": {"enabled": True}}).keys() == {"DaemonSet", "Service"}
    monitored = objects({"metrics": {"enabled": True, "serviceMonitor": {"enabled": True, "labels": {"release": "p"}}}})
    service, monitor = monitored["Service"], monitored["ServiceMonitor"]
    template = monitored["DaemonSet"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= template.items(), service
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items(), monitor
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]], endpoint
    assert endpoint["interval"] == "15s" and monitor["metadata"]["labels"]["release"] == "p", monitor

    refused({"metrics": {"enabled": True, "port": 0}})
    refused({"config": {"slice_us": 3000}})
    refused({"policy": "best"})
    refused({"args": "--stats"})
    refused({"privileged": True})
    print("ok   the chart renders, fits the schemas of Kubernetes", ", ".join(KUBERNETES))


main()
