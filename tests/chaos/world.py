"""Nodes of a run as real processes, each in its own network namespace, and what can be done to them.

    node i: namespace, address 10.214.i.2, interface atoll0 --- veth --- n<i> in the hub, which forwards between nodes
    with delay or loss: atoll0 --- x<i> =(chaos_relay)= y<i> --- n<i>

Rates are tc's token bucket at both ends (package iproute2). A cut is a rule of the hub's routing table that swallows the
packets of one direction: links stay up, packets vanish, as in a real partition. Everything lives in one network and mount
namespace of its own and vanishes with it. Needs root, or a kernel that lets users make namespaces."""
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

MARK = "ATOLL_INSIDE_NAMESPACE"
SKIP = 77
PORT = 7700


def skip(why):
    print(f"SKIPPED: {why}", flush=True)
    sys.exit(SKIP)


def fail(why):
    print(f"FAILED: {why}", flush=True)
    sys.exit(1)


def call(*command, **more):
    return subprocess.run(list(command), capture_output=True, text=True, check=False, **more)


def must(*command):
    done = call(*command)
    if done.returncode != 0:
        fail(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def enter(unable=skip):
    """Returns inside the namespaces, or ends the program by `unable` with the reason."""
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if os.environ.get(MARK):
        must("ip", "link", "set", "lo", "up")
        with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as f:
            f.write("1")
        return
    for tool, package in (("ip", "iproute2"), ("tc", "iproute2"), ("unshare", "util-linux"), ("nsenter", "util-linux")):
        if shutil.which(tool) is None:
            unable(f"{tool} is not here; Debian's package {package} brings it")
    new = ["unshare", "-n", "-m"] if os.geteuid() == 0 else ["unshare", "-r", "-n", "-m"]
    tried = call(*new, "sh", "-c", "ip link add na type veth peer name nb && tc qdisc add dev na root tbf rate 1mbit burst 32kb "
                                   "latency 400ms && ip rule add from 10.214.1.2 to 10.214.2.2 blackhole && "
                                   "echo 1 >/proc/sys/net/ipv4/ip_forward && mount -t tmpfs -o size=1m none /mnt")
    if tried.returncode != 0:
        told = tried.stderr.strip().splitlines()
        unable("this machine lets neither a user nor this root make network namespaces with limited links "
               f"({told[-1] if told else 'no message'})")
    os.environ[MARK] = "1"
    os.execvp(new[0], [*new, sys.executable, *sys.argv])


class Node:
    """One member: its namespace and its process."""

    def __init__(self, world, index):
        self.world, self.index = world, index
        self.name = f"member-{index + 1}"
        self.folder = os.path.join(world.folder, self.name)
        self.log_path = os.path.join(world.folder, self.name + ".log")
        self.address = f"10.214.{index + 1}.2"
        self.process = None
        self.relay = None
        self.hub_if = f"n{index + 1}"
        self.down_if = self.hub_if  # whose qdisc limits what comes to the node
        self.clock_path = os.path.join(world.folder, self.name + ".clock")
        self.move_clock(0)
        self.keeper = subprocess.Popen(["unshare", "-n", "sleep", "86400"])
        own = os.readlink("/proc/self/ns/net")
        for _ in range(1000):
            if os.readlink(f"/proc/{self.keeper.pid}/ns/net") != own:
                break
            time.sleep(0.01)
        self.inside = ["nsenter", "-t", str(self.keeper.pid), "-n"]
        self.build()

    def build(self, delay_ms=0, loss_permille=0, seed=0):
        hub, pid = self.hub_if, str(self.keeper.pid)
        if self.relay is not None:
            self.relay.kill()
            self.relay.wait()
            self.relay = None
        call("ip", "link", "del", hub)
        call(*self.inside, "ip", "link", "del", "atoll0")
        slow = delay_ms or loss_permille
        x, y = f"x{self.index + 1}", f"y{self.index + 1}"
        must("ip", "link", "add", x if slow else hub, "type", "veth", "peer", "name", "atoll0", "netns", pid)
        if slow:
            must("ip", "link", "add", hub, "type", "veth", "peer", "name", y)
            must(*self.inside, self.world.relay, "plain", "atoll0")
            must(self.world.relay, "plain", hub)
            must("ip", "link", "set", x, "up")
            must("ip", "link", "set", y, "up")
        must(*self.inside, "ip", "addr", "add", self.address + "/24", "dev", "atoll0")
        must(*self.inside, "ip", "link", "set", "atoll0", "up")
        must(*self.inside, "ip", "link", "set", "lo", "up")
        must("ip", "addr", "add", f"10.214.{self.index + 1}.1/24", "dev", hub)
        must("ip", "link", "set", hub, "up")
        must(*self.inside, "ip", "route", "add", "default", "via", f"10.214.{self.index + 1}.1")
        if slow:
            self.relay = subprocess.Popen([self.world.relay, x, y, str(delay_ms), str(loss_permille), str(seed)],
                                          stdout=subprocess.PIPE, text=True)
            if self.relay.stdout.readline().strip() != "ready":
                fail("the relay does not start")

    # ---- the process ----

    def start(self, *arguments):
        env = dict(os.environ)
        if self.world.clock:
            env["LD_PRELOAD"], env["CHAOS_CLOCK"] = self.world.clock, self.clock_path
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([*self.inside, self.world.atoll, *arguments, "--dir", self.folder, "--threads",
                                             "1"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)

    def run(self):
        self.start("start")

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.alive():
            self.process.kill()
            self.process.wait()

    def pause(self):
        if self.alive():
            self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        if self.alive():
            self.process.send_signal(signal.SIGCONT)

    def status(self):
        """The running node's own words, or {} when it does not answer."""
        if not self.alive():
            return {}
        done = call(self.world.atoll, "status", "--dir", self.folder, "--json")
        try:
            told = json.loads(done.stdout)
        except ValueError:
            return {}
        return told if told.get("running") else {}

    def memory(self, what="VmRSS"):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith(what + ":"))

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    # ---- what is done to it ----

    def move_clock(self, ms):
        mode = "r+b" if os.path.exists(self.clock_path) else "w+b"  # in place: the process has it mapped
        with open(self.clock_path, mode) as f:
            f.write(struct.pack("<q", ms))

    def limit(self, mbit_per_s):
        """Both directions; None: no limit."""
        for prefix, dev in ((self.inside, "atoll0"), ([], self.hub_if)):
            call(*prefix, "tc", "qdisc", "del", "dev", dev, "root")
            if mbit_per_s is not None:
                must(*prefix, "tc", "qdisc", "add", "dev", dev, "root", "tbf", "rate", f"{mbit_per_s}mbit", "burst", "32kb",
                     "latency", "400ms")

    def sent_bytes(self):
        told = json.loads(must(*self.inside, "ip", "-s", "-j", "link", "show", "atoll0"))
        stats = next(t["stats64"] for t in told if t)
        return stats["tx"]["bytes"], stats["rx"]["bytes"]

    def small_disk(self, mib):
        """Its folder on a disk of its own."""
        os.makedirs(self.folder, exist_ok=True)
        must("mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0700", "none", self.folder)

    def fill_disk(self):
        with open(os.path.join(self.folder, "filler"), "wb", buffering=0) as f:
            for block in (b"\0" * 1048576, b"\0" * 4096):
                try:
                    while f.write(block) == len(block):
                        pass
                except OSError:
                    pass

    def empty_disk(self):
        path = os.path.join(self.folder, "filler")
        if os.path.exists(path):
            os.unlink(path)


class World:
    """`count` nodes; the first one founds the run."""

    def __init__(self, folder, count):
        self.folder = folder
        self.atoll = os.path.abspath(os.environ["ATOLL"])
        self.relay = os.environ.get("CHAOS_RELAY", "")
        self.clock = os.environ.get("CHAOS_CLOCK_LIB", "")
        self.nodes = [Node(self, i) for i in range(count)]
        self.founder = self.nodes[0]
        self.invite = None

    def found(self, *arguments):
        must(*self.founder.inside, self.atoll, "init", "--dir", self.founder.folder, "--listen", f"{self.founder.address}:{PORT}", "--name",
             "member-1", *arguments)
        self.invite = must(self.atoll, "invite", "--dir", self.founder.folder).strip()

    def join(self, node):
        node.start("join", self.invite, "--listen", f"{node.address}:{PORT}", "--name", node.name)

    def gather(self, seconds=120):
        """One after the other: node i is replica i."""
        self.founder.run()
        for i, node in enumerate(self.nodes[1:], 1):
            self.join(node)
            self.until(seconds, f"{node.name} has joined", lambda: len(self.founder.status().get("members", [])) == i + 1)

    def until(self, seconds, what, true, every=0.1):
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                self.tell_logs()
                fail(f"in vain, for {seconds} s: {what}")
            time.sleep(every)

    def round(self):
        return self.founder.status().get("rounds_done", -1)

    def cut(self, source, target):
        """Nothing of source reaches target any more; None: nobody, or from nobody."""
        self.rule("add", source, target)

    def mend(self, source, target):
        self.rule("del", source, target)

    def rule(self, verb, source, target):
        more = []
        more += ["from", source.address] if source is not None else []
        more += ["to", target.address] if target is not None else []
        must("ip", "rule", verb, *more, "blackhole")

    def tell_logs(self):
        for node in self.nodes:
            if os.path.exists(node.log_path):
                told = node.status()
                known = {k: told.get(k) for k in ("phase", "joined", "round", "state_round", "records", "peers", "hops")}
                print(f"== {node.name}: {known if told else 'does not answer'}", *node.log().splitlines()[-15:], sep="\n",
                      flush=True)

    def close(self):
        for node in self.nodes:
            node.go_on()
            node.kill()
            for process in (node.relay, node.keeper):
                if process is not None:
                    process.kill()
                    process.wait()
