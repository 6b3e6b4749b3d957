"""Decodes traces of `scheduler simulate --perfetto` and `record` with the code that Perfetto publishes of its schema.

    perfetto-check.py SCHEDULER SCENARIO
    perfetto-check.py TRACE

Nothing in it may be unknown to that schema, and the time that it gives each group is what the report says. The trace
processor itself is not in Perfetto's package: it is fetched at run time, which a build must not.
"""

import collections
import json
import subprocess
import sys
import tempfile

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace
from google.protobuf.unknown_fields import UnknownFieldSet


def check(scheduler, scenario):
    with tempfile.NamedTemporaryFile() as file:
        command = [scheduler, "simulate", scenario, "--json", "--perfetto", file.name]
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        trace = Trace.FromString(file.read())
    running, ran_ns, wakeups = {}, collections.Counter(), 0
    for packet in trace.packet:
        assert not len(UnknownFieldSet(packet)), packet
        bundle = packet.ftrace_events
        for event in bundle.event:
            assert not len(UnknownFieldSet(event)), event
            wakeups += event.HasField("sched_waking")
            if not event.HasField("sched_switch"):
                continue
            switch = event.sched_switch
            assert not len(UnknownFieldSet(switch)), switch
            since, pid = running.get(bundle.cpu, (event.timestamp, switch.prev_pid))
            assert pid == switch.prev_pid and since <= event.timestamp, switch
            ran_ns[switch.prev_comm.rpartition(" ")[0]] += event.timestamp - since
            running[bundle.cpu] = (event.timestamp, switch.next_pid)
    machine = report["machine"]
    whole_ns = machine["simulated_s"] * 1e9 * machine["cpus"]
    for group in report["groups"]:
        percent = 100 * ran_ns[group["name"]] / whole_ns
        assert abs(percent - group["cpu_percent"]) < 0.5, (group["name"], percent, group["cpu_percent"])
    assert wakeups >= sum(group["wakeup_latency"]["count"] for group in report["groups"])
    print(f"perfetto: {len(trace.packet)} packets, {wakeups} wakeups, as the schema has them")


def check_recorded(path):
    with open(path, "rb") as file:
        trace = Trace.FromString(file.read())
    threads, notes, switches = set(), 0, 0
    for packet in trace.packet:
        parts = [packet, packet.track_descriptor, packet.track_event]
        parts += [packet.track_descriptor.thread, *packet.track_event.debug_annotations]
        for part in parts:
            assert not len(UnknownFieldSet(part)), part
        if packet.HasField("track_descriptor"):
            threads.add(packet.track_descriptor.uuid)
        if packet.HasField("track_event"):
            assert packet.track_event.track_uuid in threads and packet.timestamp, packet
            notes += 1
        switches += sum(event.HasField("sched_switch") for event in packet.ftrace_events.event)
    assert switches, "no switch"
    print(f"perfetto: {switches} switches and {notes} notes recorded, as the schema has them")


check(*sys.argv[1:]) if len(sys.argv) > 2 else check_recorded(sys.argv[1])
