#!/bin/sh
# Says where `make run` is going to schedule, before anything is installed or compiled. lab/src/demo.rs decides it, and says
# it again when it comes to that.
set -eu
if [ ! -d /sys/kernel/sched_ext ]; then
	where="in a virtual machine, because this machine's kernel has no sched_ext"
elif [ "$(id -u)" != 0 ]; then
	where="in a virtual machine, because you are not root"
else
	where="on this machine if you agree when asked, else in a virtual machine"
fi
echo "run: it will schedule $where"
echo "run: before that it installs what is missing and compiles: some ten minutes the first time"
