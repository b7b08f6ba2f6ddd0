"""The real openai clients watch our jobs: files, uploads in parts, and fine-tuning jobs from their beginning to their
end, as they are told in OpenAI's guide."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk.server import serve_in_thread
from tests.server.training import create, npz, rows

pytestmark = [pytest.mark.slow, pytest.mark.peer]

PROGRAM = """
import json, sys, time
from pathlib import Path
import openai

told = {"version": openai.__version__}
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", timeout=60)
path = Path(sys.argv[2])
jobs = client.fine_tuning.jobs


def ended(id):
    end = time.monotonic() + 90
    while (job := jobs.retrieve(id)).status not in ("succeeded", "failed", "cancelled") and time.monotonic() < end:
        time.sleep(0.1)
    return job


file = client.files.create(file=path, purpose="fine-tune")
told["file"] = [type(file).__name__, file.bytes == path.stat().st_size, file.purpose, file.status, file.filename]
told["content"] = client.files.content(file.id).read() == path.read_bytes()

upload = client.uploads.upload_file_chunked(
    file=path, mime_type="application/octet-stream", purpose="fine-tune", part_size=1000
)
told["upload"] = [upload.status, upload.file.bytes == path.stat().st_size]
told["files"] = [one.id for one in client.files.list(limit=1)] == [upload.file.id, file.id]

job = jobs.create(
    model="iris",
    training_file=upload.file.id,
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 16}}},
    seed=1,
    metadata={"why": "a test"},
    extra_body={"aiaas": {"fit": {"optimizer": "momentum"}}},
)
told["queued"] = [type(job).__name__, job.status, job.seed, job.hyperparameters.n_epochs, job.metadata]
job = ended(job.id)
told["done"] = [job.status, job.fine_tuned_model, job.finished_at is not None, job.error]
events = list(jobs.list_events(job.id, limit=2))
told["events"] = [events[-1].message, events[0].message, len({event.id for event in events}) == len(events)]
told["loss"] = [event.data["metrics"]["loss"] > 0 for event in events if event.data["type"] == "epoch"]
told["checkpoints"] = [one.step_number for one in jobs.checkpoints.list(job.id)][:1]

long = jobs.create(model="iris", training_file=file.id, hyperparameters={"n_epochs": 100000})
while jobs.retrieve(long.id).status == "queued":
    time.sleep(0.1)
jobs.cancel(long.id)
told["cancelled"] = ended(long.id).status
told["listed"] = [one.id for one in jobs.list(limit=1)] == [long.id, job.id]

told["deleted"] = client.files.delete(file.id).deleted
errors = {
    "file": lambda: client.files.retrieve(file.id),
    "model": lambda: jobs.create(model="nothing", training_file=upload.file.id),
    "training file": lambda: jobs.create(model="iris", training_file=file.id),
}
for name, call in errors.items():
    try:
        call()
    except openai.APIStatusError as error:
        errors[name] = [type(error).__name__, error.status_code, error.param]
told["errors"] = errors
print(json.dumps(told))
"""


@pytest.mark.parametrize("peer", ["openai2", "openai3"])
def test_a_client_of_openai_has_a_model_trained(peer: str, peer_python: Callable[[str], Path], tmp_path: Path) -> None:
    x, y = rows()
    data = tmp_path / "rows.npz"
    data.write_bytes(npz(x=x, y=y))
    with serve_in_thread([str(create(tmp_path))], jobs=tmp_path / "jobs") as url:
        command = [str(peer_python(peer)), "-c", PROGRAM, url, str(data)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-4000:]
    told: dict[str, Any] = json.loads(run.stdout)
    assert told["version"].startswith(f"{peer[-1]}.")
    assert told["file"] == ["FileObject", True, "fine-tune", "processed", "rows.npz"]
    assert told["content"] is told["files"] is told["listed"] is told["deleted"] is True
    assert told["upload"] == ["completed", True]
    assert told["queued"] == ["FineTuningJob", "queued", 1, 3, {"why": "a test"}]
    assert told["done"] == ["succeeded", "iris@2", True, None]
    assert told["events"] == ["the job started", "the job succeeded", True]
    assert told["loss"] == [True] * 3
    assert told["checkpoints"][0] in (16, 32, 48)  # one that costs more than 2 % of the time is left out
    assert told["cancelled"] == "cancelled"
    assert told["errors"] == {
        "file": ["NotFoundError", 404, None],
        "model": ["NotFoundError", 404, None],
        "training file": ["BadRequestError", 400, "training_file"],
    }
