"""Stands for penstockd where only starting and stopping matter: serves gRPC health, or misbehaves as files beside its
data tell it to (`broken`, `mute`, `stubborn` in the node's folder)."""

import signal
import sys
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


def main() -> int:
    options = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=False))
    if sys.argv[1] == "format":
        data = Path(options["--data-dir"])
        if data.exists():
            print(f"{data} is not empty", file=sys.stderr)
            return 1
        data.mkdir()
        (data / "founding").write_text(sys.argv[-1])
        return 0
    config = tomllib.loads(Path(options["--config"]).read_text())
    folder = Path(config["data_dir"]).parent
    if (folder / "broken").exists():
        print("the disk is on fire", file=sys.stderr)
        return 1
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: None if (folder / "stubborn").exists() else done.set())
    server = grpc.server(ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    status = health_pb2.HealthCheckResponse
    servicer.set("", status.NOT_SERVING if (folder / "mute").exists() else status.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(config["listen"]["client"])
    server.start()
    done.wait()
    server.stop(None).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
