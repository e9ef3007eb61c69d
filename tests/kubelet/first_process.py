"""The first process of a node's namespaces. When its standard input ends, it ends, and the kernel ends all others with it.

What a kubelet and a container runtime write at fixed places is in memory here: nothing of it is left on the machine.
"""

import signal
import subprocess
import sys
from pathlib import Path

# They are of the whole machine, and a kubelet sets them: here it finds what it wants, and changes nothing.
_SYSCTLS = {
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def main() -> None:
    """Makes the mounts, says so, and waits."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the orphans
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _mount("--make-rshared", "/")
    _mount("-t", "proc", "proc", "/proc")
    for place in ("/run", "/var/log", "/var/lib"):
        _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", place)
    for name, value in _SYSCTLS.items():
        written = Path("/run/sysctl", name.replace("/", "."))
        written.parent.mkdir(exist_ok=True)
        written.write_text(value)
        _mount("--bind", str(written), f"/proc/sys/{name}")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    print("ready", flush=True)
    sys.stdin.read()


def _mount(*arguments: str) -> None:
    # Not `run`: with SIGCHLD ignored there is no status to wait for, and a failure shows on standard error.
    child = subprocess.Popen(["mount", *arguments])
    child.wait()


if __name__ == "__main__":
    main()
