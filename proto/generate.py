"""Generate the Python stubs beside the .proto files, or with --check lint and compare with the committed ones."""

import subprocess
import sys
import tempfile
from importlib import metadata, resources
from pathlib import Path

ROOT = Path(__file__).parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def includes() -> list[str]:
    """Folders of the .proto files that ours import: protoc's own and googleapis'."""
    googleapis = next(
        str(file.locate()) for file in metadata.files("googleapis-common-protos") or () if file.name == "status.proto"
    )
    return [str(resources.files("grpc_tools") / "_proto"), str(Path(googleapis).parents[2])]


def generate(out: Path) -> None:
    """Run protoc for every .proto file into `out`. Files without a service get no *_pb2_grpc."""
    sources = sorted(ROOT.glob("penstock/**/*.proto"))
    services = [path for path in sources if "\nservice " in path.read_text()]
    bin_dir = Path(sys.executable).parent
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", *(f"-I{path}" for path in includes())]
    plugins = [f"--plugin=protoc-gen-{name}={bin_dir / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    messages = [f"--python_out={out}", f"--mypy_out=quiet:{out}"]
    stubs = [f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"]
    subprocess.run([*command, *plugins, *messages, *map(str, sources)], check=True)  # noqa: S603  our own arguments
    subprocess.run([*command, *plugins, *stubs, *map(str, services)], check=True)  # noqa: S603  our own arguments


def lint() -> int:
    """Run buf's STANDARD rules over our files; the exit code. It gets an image, as it cannot find googleapis."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        sources = [str(path) for path in sorted(ROOT.glob("penstock/**/*.proto"))]
        paths = [f"-I{path}" for path in (ROOT, *includes())]
        options = ["--include_imports", "--include_source_info", f"--descriptor_set_out={image}"]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *paths, *options, *sources], check=True)  # noqa: S603
        buf = [str(Path(sys.executable).parent / "buf"), "lint", str(image), "--config", str(ROOT / "buf.yaml")]
        return subprocess.run([*buf, "--path", "penstock"], check=False, cwd=ROOT).returncode  # noqa: S603


def generated(root: Path) -> dict[str, str]:
    """All generated files below `root` by their relative path."""
    return {str(path.relative_to(root)): path.read_text() for pattern in GENERATED for path in root.rglob(pattern)}


def main() -> int:
    """Return the exit code: 1 when --check found a difference."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        generate(out)
        fresh, committed = generated(out), generated(ROOT)
    if "--check" not in sys.argv:
        for name in committed.keys() - fresh.keys():
            (ROOT / name).unlink()
        for name, text in fresh.items():
            (ROOT / name).write_text(text)
        return 0
    stale = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    if stale:
        print("generated stubs differ from the .proto files; run `make proto`:", *stale, sep="\n  ")
    return 1 if stale or lint() else 0


if __name__ == "__main__":
    sys.exit(main())
