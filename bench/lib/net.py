"""Two nodes on one machine with a link as slow as wanted: network namespaces joined by a veth pair, each direction
limited by tc's token bucket (package iproute2). Needs root, or a kernel that lets a user make namespaces.

enter() re-runs the script inside a fresh network namespace, which is node 0; node 1 is a second namespace, kept by a
process that sleeps. Both vanish with the script: nothing of the machine's own network is touched."""
import json
import os
import shutil
import subprocess
import sys
import time

import common

MARK = "ATOLL_BENCH_INSIDE_NAMESPACE"
ADDRESS = ["10.213.0.1", "10.213.0.2"]
INTERFACE = ["atoll0", "atoll1"]
BURST = "32kb"


def sbin():
    """ip and tc live where a user's PATH may not look."""
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def enter():
    """Returns inside the namespace, or ends the script with the reason."""
    sbin()
    if os.environ.get(MARK):
        return
    for tool, package in (("ip", "iproute2"), ("tc", "iproute2"), ("unshare", "util-linux"), ("nsenter", "util-linux")):
        if shutil.which(tool) is None:
            common.die(f"{tool} is not here; Debian's package {package} brings it", 5)
    new = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-r", "-n"]
    tried = common.run([*new, "sh", "-c", "ip link add atoll0 type veth peer name atoll1 && "
                                         "tc qdisc add dev atoll0 root tbf rate 1mbit burst 32kb latency 400ms"])
    if tried.returncode != 0:
        common.die("this machine lets neither a user nor this root make network namespaces with a limited link "
                   f"({tried.stderr.strip().splitlines()[-1] if tried.stderr.strip() else 'no message'}): run it as root "
                   "on a kernel with veth and sch_tbf, or set kernel.unprivileged_userns_clone=1", 5)
    os.environ[MARK] = "1"
    os.execvp(new[0], [*new, sys.executable, *sys.argv])


def link_name(mbit_per_s):
    return "unlimited" if mbit_per_s is None else f"{mbit_per_s:g} Mbit/s"


def must(*command):
    done = common.run(list(command))
    if done.returncode != 0:
        common.die(f"{' '.join(command)}: {done.stderr.strip()}", 5)
    return done.stdout


class TwoNodes:
    def __enter__(self):
        self.keeper = subprocess.Popen(["unshare", "-n", "sleep", "86400"])
        own = os.readlink("/proc/self/ns/net")
        for _ in range(100):
            if os.readlink(f"/proc/{self.keeper.pid}/ns/net") != own:
                break
            time.sleep(0.02)
        self.prefix = [[], ["nsenter", "-t", str(self.keeper.pid), "-n"]]
        must("ip", "link", "add", INTERFACE[0], "type", "veth", "peer", "name", INTERFACE[1], "netns",
             str(self.keeper.pid))
        for i in (0, 1):
            must(*self.prefix[i], "ip", "addr", "add", ADDRESS[i] + "/24", "dev", INTERFACE[i])
            must(*self.prefix[i], "ip", "link", "set", INTERFACE[i], "up")
            must(*self.prefix[i], "ip", "link", "set", "lo", "up")
        return self

    def __exit__(self, *_):
        common.run(["ip", "link", "del", INTERFACE[0]])
        self.keeper.kill()
        self.keeper.wait()

    def limit(self, mbit_per_s):
        """Both directions; None: unlimited."""
        for i in (0, 1):
            common.run([*self.prefix[i], "tc", "qdisc", "del", "dev", INTERFACE[i], "root"])
            if mbit_per_s is not None:
                must(*self.prefix[i], "tc", "qdisc", "add", "dev", INTERFACE[i], "root", "tbf", "rate",
                     f"{mbit_per_s}mbit", "burst", BURST, "latency", "400ms")

    def sent_bytes(self):
        """What each node has sent so far, with all headers."""
        sent = []
        for i in (0, 1):
            told = json.loads(must(*self.prefix[i], "ip", "-s", "-j", "link", "show", INTERFACE[i]))
            sent.append(next(t["stats64"]["tx"]["bytes"] for t in told if t))
        return sent

    def start(self, node, command, env=None, talk=False):
        return subprocess.Popen([*self.prefix[node], *command], stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=common.peer_environment(env))
