"""What a broker needs to run: Java, and Kafka's jars from Maven Central, fetched once into benchmarks/.cache."""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.system import UnavailableError

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
CACHE = HERE.parents[1] / ".cache"
OLDEST_JAVA = 17
"""Kafka 4 brokers need it."""
FETCH_TIMEOUT_S = 600.0
JAVA_TIMEOUT_S = 30.0
_SHOWN_CHARACTERS = 2_000
"""Of a failed command's output."""


def kafka_version() -> str:
    """Give the version that the pom pins."""
    found = re.search(r"<kafka\.version>(.+)</kafka\.version>", POM.read_text())
    if found is None:
        raise ValueError(f"{POM} has no kafka.version")
    return found[1]


def java() -> str:
    """Find Java. Raises UnavailableError where there is none, or an old one."""
    home = os.environ.get("JAVA_HOME")
    command = shutil.which(str(Path(home) / "bin" / "java") if home else "java")
    remedy = f"install Java {OLDEST_JAVA} or newer (Debian: openjdk-{OLDEST_JAVA}-jre-headless), or set JAVA_HOME"
    if command is None:
        raise UnavailableError(f"Kafka needs Java, and there is no java command; {remedy}")
    said = _output([command, "-version"], JAVA_TIMEOUT_S)
    major = java_major(said)
    if major < OLDEST_JAVA:
        raise UnavailableError(f"Kafka needs Java {OLDEST_JAVA}, and {command} is of version {major}; {remedy}")
    return command


def java_major(said: str) -> int:
    """Read the major version from the output of `java -version`; 0 where it says none."""
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else 0


def require_client() -> None:
    """Raise UnavailableError where the Python client is not installed."""
    if importlib.util.find_spec("confluent_kafka") is None:
        raise UnavailableError("Kafka's Python client is not installed; pip install confluent-kafka")


def fetch(cache: Path = CACHE) -> Path:
    """Give the folder of the jars; get them where they are not there. Raises UnavailableError when that fails."""
    folder = cache / f"kafka-{kafka_version()}"
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise UnavailableError(
            f"Kafka's jars are not in {folder}, and there is no mvn command to fetch them; "
            "install Maven (Debian: maven), or copy the libs folder of a Kafka release there"
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as part:
        target = Path(part) / "jars"
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target}"]
        _output([maven, "--batch-mode", "--quiet", "--file", str(POM), *goal], FETCH_TIMEOUT_S)
        target.rename(folder)  # all of them or none
    return folder


def _output(command: list[str], timeout_s: float) -> str:
    """Run a command; what it wrote. Raises UnavailableError when it fails."""
    try:
        done = subprocess.run(  # noqa: S603  fixed commands, no shell
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{command[0]} did not run: {error}") from error
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(command)} failed:\n{done.stdout[-_SHOWN_CHARACTERS:]}")
    return done.stdout
