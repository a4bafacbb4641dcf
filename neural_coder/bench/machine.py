"""What this machine and the user's Python offer. Nothing heavy is imported here: children are asked."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import neural_coder
from neural_coder.bench.shadow import PREFIX

INSPECTOR = Path(neural_coder.__file__).resolve().parent / "_worker" / "environment.py"
IMPORT_SECONDS = 180.0
FEATURES = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "BF16": ("avx512_bf16", "amx_bf16", "bf16"),
    "AMX": ("amx_tile",),
    "NEON": ("asimd", "neon"),
}
"""CPU features that matter, and the flags of Linux or names of macOS that stand for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The hardware that measurements hold for."""

    cpu: str
    cores: int
    """Physical cores that this process may use."""
    features: tuple[str, ...]
    """Which of AVX2, AVX-512, VNNI, BF16, AMX and NEON the CPU has."""
    memory_bytes: int
    """0 when it is not known."""
    gpus: tuple[str, ...]
    system: str

    def as_dict(self) -> dict[str, Any]:
        """The record as plain data."""
        return {**asdict(self), "features": list(self.features), "gpus": list(self.gpus)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What one Python interpreter offers."""

    python: Path
    python_version: str
    """Empty when the interpreter could not be asked; `problem` says why."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """By module; None when it is not there, or has no known version."""
    distributions: Mapping[str, str] = field(default_factory=dict)
    """By module: what it was installed as, where that is known."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """By module: why it cannot be used, in words; empty when it can."""
    cuda: bool = False
    """PyTorch can use a GPU. Asked of PyTorch itself only after a deep look."""
    compiler: str = ""
    """A C++ compiler for code that is built at run time; empty when there is none."""
    problem: str = ""

    def version(self, module: str) -> str | None:
        """The version of a module, if it is installed and has one."""
        return self.versions.get(module)

    def requirement(self, module: str) -> str:
        """What pip installs a module by, in the version that is here."""
        name, version = self.distributions.get(module, module), self.version(module)
        return f"{name}=={version}" if version else name

    def why_unusable(self, module: str) -> str:
        """Why a module cannot be used, in words; empty when it can."""
        return self.problem or self.reasons.get(module, f"{module} was not looked for")

    def usable(self, module: str) -> bool:
        """Whether a module can be used."""
        return not self.why_unusable(module)


def describe_machine() -> Machine:
    """Describe this machine."""
    return Machine(
        cpu=_cpu_model(),
        cores=usable_cores(),
        features=_cpu_features(),
        memory_bytes=_memory_bytes(),
        gpus=_gpus(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def inspect_environment(python: Path, modules: Sequence[str], *, deep: bool = False) -> Environment:
    """Ask an interpreter what it has.

    Args:
        python: The interpreter.
        modules: Modules to look for.
        deep: Also import each of them, in a child of its own, to see whether it works.
    """
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "g++", "g++", "clang++", "c++"))), "")
    found, problem = ask(python, "find", modules, 60.0)
    if found is None:
        return Environment(python=python, python_version="", compiler=compiler, problem=problem)
    reasons = {module: str(entry["reason"]) for module, entry in found["modules"].items()}
    cuda = bool(found["cuda_build"]) and bool(_gpus())
    for module in [module for module, reason in reasons.items() if deep and not reason]:
        answer, problem = ask(python, "import", [module], IMPORT_SECONDS)
        reasons[module] = problem if answer is None else answer["reason"]
        if module == "torch":
            cuda = answer is not None and bool(answer.get("cuda"))
    return Environment(
        python=python,
        python_version=found["python_version"],
        versions={module: entry["version"] for module, entry in found["modules"].items()},
        distributions={
            module: entry["distribution"] for module, entry in found["modules"].items() if entry["distribution"]
        },
        reasons=reasons,
        cuda=cuda,
        compiler=compiler,
    )


def ask(
    python: Path, action: str, modules: Sequence[str], seconds: float, *, program: Path = INSPECTOR
) -> tuple[dict[str, Any] | None, str]:
    """Run one of our small programs in an interpreter.

    Args:
        python: The interpreter.
        action: What the program is to do.
        modules: What it is to do that with.
        seconds: Limit for the process.
        program: Which program.

    Returns:
        Its answer, or None and why there is none.
    """
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        output = Path(folder) / "answer.json"
        command = [str(python), str(program), str(output), action, *modules]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            # Answers come by file: sitecustomize and chatty libraries may print what they like.
            done = subprocess.run(
                command, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds, cwd=folder, env=environment
            )
        except OSError as error:
            return None, f"{python} could not be started: {error.strerror}"
        except subprocess.TimeoutExpired:
            return None, f"{' '.join(modules) or action} did not answer within {seconds:g} s"
        try:
            answer: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None, _why_no_answer(python, action, modules, done)
        return answer, ""


def _why_no_answer(python: Path, action: str, modules: Sequence[str], done: subprocess.CompletedProcess[bytes]) -> str:
    last = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    if action == "import":
        return f"importing {modules[0]} ends the process: {last}"
    if action != "find":
        return f"measuring {action} fails: {last}"
    return f"{python} does not work as a Python: {last}"


# --- the processor


SYSTEM_CPUS = Path("/sys/devices/system/cpu")


def usable_cores() -> int:
    """Physical cores that this process may use: what PyTorch takes for its threads by default."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = sum(map(len, physical_cores()))
    return max(1, min(cores, _quota(cores)))


def physical_cores() -> tuple[tuple[int, ...], ...]:
    """One logical CPU of each physical core that this process may use, by memory node.

    Returns:
        Empty where processes cannot be bound to cores (macOS, Windows).
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    nodes: dict[str, dict[str, int]] = {}
    for number in sorted(os.sched_getaffinity(0)):
        folder = SYSTEM_CPUS / f"cpu{number}"
        node = next((entry.name for entry in sorted(folder.glob("node[0-9]*"))), "")
        # Hyper-threads of one core share their list of siblings; the first of them stands for the core.
        siblings = _text(folder / "topology" / "thread_siblings_list") or str(number)
        nodes.setdefault(node, {}).setdefault(siblings, number)
    return tuple(tuple(cores.values()) for _, cores in sorted(nodes.items(), key=lambda item: min(item[1].values())))


def _quota(cores: int) -> int:
    """Cores that the control group grants, rounded up."""
    fields = _text(Path("/sys/fs/cgroup/cpu.max")).split()
    if len(fields) != 2:
        fields = [_text(Path(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us")).strip() for name in ("quota", "period")]
    if all(field.isdigit() for field in fields) and int(fields[1]) > 0:
        return -(-int(fields[0]) // int(fields[1]))
    return cores


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu_info() -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    first = _text(Path("/proc/cpuinfo")).partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _cpu_model() -> str:
    info = _cpu_info()
    return info.get("model name") or _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()


def _cpu_features() -> tuple[str, ...]:
    info = _cpu_info()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    if sys.platform == "darwin":
        flags |= _mac_flags()
    return tuple(name for name, signs in FEATURES.items() if flags.intersection(signs))


def _mac_flags() -> set[str]:
    flags = {flag.lower() for flag in _sysctl("machdep.cpu.leaf7_features").split()}
    if platform.machine() == "arm64":
        flags |= {"neon"} | ({"bf16"} if _sysctl("hw.optional.arm.FEAT_BF16") == "1" else set())
    return flags


def _sysctl(name: str) -> str:
    if sys.platform != "darwin":
        return ""
    return _output(["sysctl", "-n", name])


def _output(command: Sequence[str]) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=20, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


def _memory_bytes() -> int:
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0


def _gpus() -> tuple[str, ...]:
    if shutil.which("nvidia-smi") is None:
        return ()
    return tuple(_output(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]).splitlines())
