"""What the benchmarks share: finding Atoll and its peers, programs that take turns, medians, tables, JSON.

Only Python's standard library. Nothing is installed here: a peer that is missing is named with the Debian package that
brings it, and the comparison goes on without it."""
import json
import math
import os
import shutil
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEERS = os.path.join(ROOT, "bench", "peers")


def say(text=""):
    print(text, flush=True)


def note(text):
    print(text, file=sys.stderr, flush=True)


def die(text, code=2):
    note(text)
    sys.exit(code)


def atoll_path():
    """The program to measure: $ATOLL, or the one that `make` left at build/atoll."""
    path = os.environ.get("ATOLL", os.path.join(ROOT, "build", "atoll"))
    if not os.access(path, os.X_OK):
        die(f"{path}: not there; `make build` makes it, or set ATOLL")
    return os.path.abspath(path)


def out_dir():
    path = os.environ.get("ATOLL_BENCH_OUT", os.path.join(ROOT, "build", "bench"))
    os.makedirs(path, exist_ok=True)
    return path


def machine():
    """The processor's model and how many there are: all that is told of a machine."""
    model = "unknown processor"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            for line in f:
                if line.startswith("model name"):
                    model = line.split(":", 1)[1].strip()
                    break
    except OSError:
        pass
    return {"cpu": model, "cpus": len(os.sched_getaffinity(0))}


def write_json(name, value):
    return write_json_at(os.path.join(out_dir(), name), value)


def write_json_at(path, value):
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1)
        f.write("\n")
    os.replace(path + ".new", path)
    return path


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def median(values):
    return statistics.median(values)


def geomean(values):
    values = [v for v in values if v > 0]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else float("nan")


def peak_memory(pid):
    """The most memory that a process has held, in bytes (Linux)."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as f:
            for line in f:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


# A library that is told to take other kernels than its own choice is not that library's speed.
FORCED_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def peer_environment(extra=None):
    """What programs that are measured run with."""
    return {**{k: v for k, v in os.environ.items() if k not in FORCED_KERNELS}, **(extra or {})}


class Turns:
    """A program that measures once for every line it is sent and answers with one number."""

    def __init__(self, name, command, env=None):
        self.name = name
        self.command = command
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=peer_environment(env))

    def scheduled(self):
        """Nanoseconds that its threads have run, and waited for a processor."""
        ran = waited = 0
        folder = f"/proc/{self.process.pid}/task"
        try:
            for task in os.listdir(folder):
                with open(f"{folder}/{task}/schedstat", encoding="utf-8") as f:
                    a, b = f.read().split()[:2]
                ran, waited = ran + int(a), waited + int(b)
        except OSError:
            pass
        return ran, waited

    def ask_on_cpu(self, line):
        """The speed without the time that it waited for a processor: what a busy machine allows to be said of one
        thread."""
        ran, waited = self.scheduled()
        speed = self.ask(line)
        ran_after, waited_after = self.scheduled()
        ran, waited = ran_after - ran, waited_after - waited
        return speed * (ran + waited) / ran if ran > 0 else speed

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
            return float(answer)
        except (BrokenPipeError, ValueError):
            _, err = self.process.communicate()
            words = err.strip().splitlines()
            die(f"{self.name} stopped ({' '.join(self.command)}): {words[-1] if words else 'no message'}", 1)

    def close(self):
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


def run(command, **more):
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def atoll_json(*args):
    done = run([atoll_path(), *args, "--json"])
    if done.returncode != 0:
        die(f"atoll {' '.join(args)} failed: {done.stderr.strip() or done.stdout.strip()}", 1)
    return json.loads(done.stdout)


GEMM_PEERS = {  # name: source, flags, package
    "oneDNN": ("gemm_onednn.c", ["-fopenmp", "-ldnnl"], "libdnnl-dev"),
    "OpenBLAS": ("gemm_openblas.c", None, "libopenblas-dev"),
}


def peer_version(program):
    """What a peer says of itself: version and, if the library tells, its kernels."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, env=peer_environment())
    return done.stdout.strip() or "unknown version"


def build_gemm_peers():
    """name -> program. Missing ones are named."""
    found = {}
    cc = os.environ.get("CC", "cc")
    if shutil.which(cc) is None:
        note("no C compiler (package gcc): no comparison with matrix-product libraries")
        return found
    for name, (source, flags, package) in GEMM_PEERS.items():
        if flags is None:
            asked = run(["pkg-config", "--cflags", "--libs", "openblas"])
            flags = asked.stdout.split() if asked.returncode == 0 else ["-lopenblas"]
        program = os.path.join(out_dir(), source[:-2])
        done = run([cc, "-std=c17", "-O2", os.path.join(PEERS, source), os.path.join(PEERS, "gemm_peer.c"), *flags,
                    "-o", program])
        if done.returncode == 0:
            found[name] = program
        else:
            note(f"{name} is not here; Debian's package {package} brings it")
    return found


def find_torch():
    """A Python that has PyTorch, or None: its package may belong to the system's Python and not to the first one."""
    tried = []
    for python in (os.environ.get("ATOLL_TORCH_PYTHON"), "/usr/bin/python3", shutil.which("python3")):
        if python is None or python in tried:
            continue
        tried.append(python)
        if run([python, "-c", "import torch, numpy"]).returncode == 0:
            return python
    note("PyTorch is not here; Debian's packages python3-torch and python3-numpy bring it")
    return None


def table(head, rows, align=None):
    """Plain columns for a terminal. align: one of < > for each."""
    cells = [head, *rows]
    widths = [max(len(str(r[i])) for r in cells) for i in range(len(head))]
    align = align or "<" + ">" * (len(head) - 1)
    for r in cells:
        say("  ".join(f"{str(c):{a}{w}}" for c, a, w in zip(r, align, widths)).rstrip())
