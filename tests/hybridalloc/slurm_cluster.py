"""A Slurm of one's own on loopback: a controller, several daemons for nodes, munge with its own key."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

NEEDED = ("slurmctld", "slurmd", "munged", "squeue", "sinfo", "scontrol", "sbatch")
CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={at}/munge.sock
SlurmUser=root
SlurmdUser=root
StateSaveLocation={at}/state
SlurmdSpoolDir={at}/spool/%n
SlurmctldPidFile={at}/slurmctld.pid
SlurmdPidFile={at}/slurmd-%n.pid
SlurmctldLogFile={at}/slurmctld.log
SlurmdLogFile={at}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
KillWait=1
"""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")  # that stand for GPUs


class Cluster:
    """Nodes given as (name, CPUs, MB, GPUs); all in the partitions "batch" and "other"."""

    def __init__(self, at: Path, nodes: list[tuple[str, int, int, int]]) -> None:
        self.at, self.nodes = at, nodes
        at.chmod(0o755)
        host = socket.gethostname().split(".")[0]
        self.ports = _free_ports(1 + len(nodes))
        lines = [CONF.format(host=host, ports=self.ports, at=at)]
        for (name, cpus, memory, gpus), port in zip(nodes, self.ports[1:], strict=True):
            gres = f" Gres=gpu:{gpus}" if gpus else ""
            where = f"NodeAddr=127.0.0.1 NodeHostname={host} Port={port}"
            lines.append(f"NodeName={name} {where} CPUs={cpus} RealMemory={memory}{gres}\n")
        names = ",".join(name for name, *_ in nodes)
        lines += [f"PartitionName={part} Nodes={names} MaxTime=INFINITE State=UP\n" for part in ("batch", "other")]
        (at / "slurm.conf").write_text("".join(lines))
        gres = [f"NodeName={n} Name=gpu File={','.join(DEVICES[:g])}\n" for n, _, _, g in nodes if g]
        (at / "gres.conf").write_text("".join(gres))
        (at / "state").mkdir()
        for name, *_ in nodes:
            (at / "spool" / name).mkdir(parents=True)
        self.env = os.environ | {"SLURM_CONF": str(at / "slurm.conf")}
        self.children: list[subprocess.Popen] = []

    def start(self) -> None:
        key = self.at / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        where = {"socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munge.seed"}
        options = [f"--{name}={self.at / file}" for name, file in where.items()]
        self.spawn("munged", "--foreground", "--force", f"--key-file={key}", *options)
        _until(lambda: (self.at / "munge.sock").exists(), 10)
        self.controller()
        for name, *_ in self.nodes:
            self.spawn("slurmd", "-D", "-N", name)
        _until(self.idle, 60)

    def controller(self) -> None:
        self.control = self.spawn("slurmctld", "-D")

    def idle(self) -> bool:
        return self.run("sinfo", "-h", "-N", "-p", "batch", "-o", "%T", check=False).split() == ["idle"] * len(
            self.nodes
        )

    def spawn(self, *words: str) -> subprocess.Popen:
        with open(self.at / f"{words[0]}.out", "ab") as out:
            child = subprocess.Popen(words, env=self.env, stdout=out, stderr=out, start_new_session=True)
        self.children.append(child)
        return child

    def run(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, f"{words}: {done.stderr or done.stdout}"
        return done.stdout

    def stop(self) -> None:
        for child in reversed(self.children):
            if child.poll() is None:
                child.terminate()
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()


def missing() -> str:
    """Why no Slurm can be started here, "" where one can."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)} (Debian: slurmctld slurmd slurm-client munge)"
    return "" if os.geteuid() == 0 else "slurmd is started as root"


def _free_ports(many: int) -> list[int]:
    sockets = [socket.socket() for _ in range(many)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _until(holds, limit_s: float) -> None:
    ends = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < ends, "not in time"
        time.sleep(0.2)
