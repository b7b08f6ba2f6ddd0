"""`predict` over gRPC on one real Triton server, against tritonclient.grpc: wall time, CPU time, memory.

As `remote.py` does it over HTTP, whose server, turns and ratios these are. (A file called grpc.py in this folder would
be imported in place of gRPC.)

    python benchmarks/grpc_calls.py             # writes benchmarks/results/grpc.json
    python benchmarks/grpc_calls.py --rounds 5 --sizes 12 1048576
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import remote
from processes import free_port, two_cores
from report import written

SIZES = (12, 1 << 20, 16 << 20)


# ---------------------------------------------------------------- the clients, each in its own process
def ours(port: int) -> Callable[[Any], Any]:
    import aiaas_sdk as aiaas

    model = aiaas.load(f"grpc://127.0.0.1:{port}/models/{remote.MODEL}")
    return lambda x: model.predict(x)["y"]


def theirs(port: int) -> Callable[[Any], Any]:
    import tritonclient.grpc as client

    server = client.InferenceServerClient(f"127.0.0.1:{port}")

    def call(x: Any) -> Any:
        given = client.InferInput("x", x.shape, "FP32")
        given.set_data_from_numpy(x)
        return server.infer(remote.MODEL, [given], outputs=[client.InferRequestedOutput("y")]).as_numpy("y")

    return call


# ---------------------------------------------------------------- the report
def shown(result: dict[str, Any]) -> str:
    lines = ["    bytes   wall    CPU       ours us (CPU)      theirs us (CPU)"]
    for row in result["calls"]:
        mine, other = row["ours"], row["theirs"]
        lines.append(
            f"{row['bytes']:>9}  {row['wall_ratio']:5.2f}  {row['cpu_ratio']:5.2f}"
            f"  {mine['wall_us']:9.0f} ({mine['cpu_us']:.0f})  {other['wall_us']:9.0f} ({other['cpu_us']:.0f})"
        )
    grown = result["memory"]["grown_mib"]
    lines.append(f"memory grown by a call of 64 MiB: ours {grown['ours']:.0f} MiB, theirs {grown['theirs']:.0f} MiB")
    return "\n".join(lines)


def main() -> None:
    options = remote.asked(__doc__, "grpc", SIZES)
    if options.client:
        remote.work(ours if options.client == "ours" else theirs, options)
        return
    remote.peer_there()
    two_cores()
    port = free_port()
    with remote.triton("--grpc-address=127.0.0.1", f"--grpc-port={port}"):
        calls = remote.compare(port, options.sizes, options.rounds, __file__)
        result = {"calls": calls, "memory": remote.memory(port, remote.SIZES[-1], __file__)}
    print(shown(result))
    written(options.json, result)


if __name__ == "__main__":
    main()
